//! `ropewalk.gil`: how the interpreter's own lock is watched from outside.

use pyo3::prelude::*;

/// Samples whether the GIL is held and how many threads wait for it, in a thread that never takes it.
///
/// `start` and `stop` nest; the figures add up over all times between them.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct GilSampler(sampler::Sampler);

#[pymethods]
impl GilSampler {
    #[new]
    fn new(rate: f64) -> Self {
        Self(sampler::Sampler::new(rate))
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.0.start(py)
    }

    fn stop(&self, py: Python<'_>) {
        self.0.stop(py);
    }

    /// The number of looks, and seconds: measured, with the GIL held, with threads waiting for it, of all
    /// those threads.
    fn read(&self) -> (u64, f64, f64, f64, f64) {
        self.0.read()
    }
}

// How it sees the lock. A thread that waits for the GIL waits on a condition variable inside the
// interpreter's lock, and that knows how many wait on it. Where it is the interpreter does not say. So a
// probe is sent to wait for the GIL while the caller holds it, and /proc/self/task/PROBE/syscall tells on
// which address it sleeps. Just before lies what the lock knows: the thread state that holds it, which is the
// caller's, a word that is 1 as long as it is held, and the count of switches, which must have grown by two
// when the probe has been and gone. Where all this is found the places are certain; where it is not, nothing
// is guessed. From then on a look is three loads, whatever the number of threads.
//
// Against a probe that takes the GIL again and again: it would itself be the contention, and each time make a
// computing thread drop the lock. Against the clocks and states of threads as the kernel has them: a thread
// that computes without the GIL looks like one that holds it, and one that waits for the GIL looks, on a busy
// machine, half of the time like one that runs, since it wakes up every switch interval and waits for a
// processor to ask for the lock.
#[cfg(target_os = "linux")]
mod sampler {
    use std::fs::{self, File};
    use std::mem::ManuallyDrop;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use libc::{pthread_cond_t, pthread_mutex_t};
    use pyo3::exceptions::PyNotImplementedError;
    use pyo3::ffi::PyThreadState_Get;
    use pyo3::prelude::*;
    use ropewalk::park::{Futex, Wake};
    use ropewalk::signals;

    /// The parts of the interpreter's lock, which live as long as its runtime: as long as the process.
    struct Lock {
        /// Not 0 while the lock is held.
        held: &'static AtomicU32,
        /// How often the lock has gone to another thread than had it before.
        switches: &'static AtomicUsize,
        /// The state words of two condition variables: for the lock, and for a switch that a thread was asked
        /// for.
        waiters: [&'static AtomicU32; 2],
    }

    impl Lock {
        /// Finds the lock that the caller holds.
        fn find(py: Python<'_>) -> PyResult<&'static Lock> {
            static LOCK: OnceLock<Lock> = OnceLock::new();
            if let Some(lock) = LOCK.get() {
                return Ok(lock);
            }
            // SAFETY: the caller is attached.
            let state = unsafe { PyThreadState_Get() }.addr();
            let (tell, told) = channel();
            let probe = signals::blocked(|| {
                thread::Builder::new()
                    .name("ropewalk-gil-probe".into())
                    .spawn(move || {
                        // SAFETY: cannot fail.
                        if tell.send(unsafe { libc::gettid() }).is_ok() {
                            Python::try_attach(|_| ());
                        }
                    })
            })?;
            let mut found = None;
            if let Ok(probe) = told.recv() {
                let started = Instant::now();
                while found.is_none() && started.elapsed() < Duration::from_secs(2) {
                    thread::sleep(Duration::from_micros(20));
                    found = sleeps_on(probe).and_then(|futex| Lock::around(futex, state));
                }
            }
            let before = found.as_ref().map(Lock::switches);
            // It ends as soon as it gets the lock. How it ended says nothing.
            py.detach(|| drop(probe.join()));
            match found {
                Some(lock) if before.is_some_and(|before| lock.switches() >= before + 2) => {
                    Ok(LOCK.get_or_init(|| lock))
                }
                _ => Err(PyNotImplementedError::new_err(
                    "the GIL cannot be watched on this system: it takes /proc, glibc, and a lock as CPython 3.10 to 3.14 have it",
                )),
            }
        }

        /// The lock around a futex on which a thread waits for it, if the thread of `state` holds it.
        fn around(futex: usize, state: usize) -> Option<Lock> {
            /// From the holder to the end of the first condition variable, at most.
            const BEFORE: usize = 96;
            let start = (futex & !7).checked_sub(BEFORE)?;
            let mut memory = [0; BEFORE];
            // Not by a pointer: the address may be no such place at all.
            let file = File::open("/proc/self/mem").ok()?;
            file.read_exact_at(&mut memory, start as u64).ok()?;
            let (words, _) = memory.as_chunks::<8>();
            let holder = words.windows(2).rposition(|pair| {
                usize::from_ne_bytes(pair[0]) == state && pair[1][..4] == 1_u32.to_ne_bytes()
            })?;
            // The interpreter's struct: the holder, whether it holds, the count of switches, the condition
            // variable for the lock, its mutex, and the condition variable for switches.
            let held = start + 8 * (holder + 1);
            let condition = held + 16;
            let switch_condition = condition + size_of::<pthread_cond_t>() + size_of::<pthread_mutex_t>();
            // glibc's: the waiters of either group sleep on one of two words, and before these comes one that
            // counts all waiters, times 8.
            let count = (futex & !7).checked_sub(condition + 4)?;
            if count + 12 > size_of::<pthread_cond_t>() {
                return None;
            }
            let place = |address| std::ptr::with_exposed_provenance_mut::<u32>(address);
            // SAFETY: all are aligned, and parts of the lock: the word that was read as such, and what its
            // struct has at fixed distances. It lives as long as the process. The interpreter changes the
            // first by atomic stores, the second, a word, under its mutex; glibc changes the others
            // atomically.
            let lock = unsafe {
                Lock {
                    held: AtomicU32::from_ptr(place(held)),
                    switches: AtomicUsize::from_ptr(place(held + 8).cast()),
                    waiters: [
                        AtomicU32::from_ptr(place(condition + count)),
                        AtomicU32::from_ptr(place(switch_condition + count)),
                    ],
                }
            };
            // The probe waits, and there are not a million threads.
            (1..1_000_000).contains(&lock.waiting()).then_some(lock)
        }

        fn switches(&self) -> usize {
            self.switches.load(Ordering::Relaxed)
        }

        fn waiting(&self) -> u64 {
            let sum = |count: &AtomicU32| u64::from(count.load(Ordering::Relaxed) >> 3);
            self.waiters.into_iter().map(sum).sum()
        }
    }

    /// The futex that a thread sleeps on. Its file says "running", or the number of a system call and its
    /// arguments.
    fn sleeps_on(thread: i32) -> Option<usize> {
        let text = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
        let mut words = text.split(' ');
        let number: libc::c_long = words.next()?.parse().ok()?;
        let address = words.next()?.strip_prefix("0x")?;
        (number == libc::SYS_futex).then_some(usize::from_str_radix(address, 16).ok()?)
    }

    pub(super) struct Sampler {
        period: Duration,
        counts: Arc<Counts>,
        running: Mutex<Running>,
    }

    /// Sums over the samples; times in nanoseconds. Each a number by itself: relaxed.
    #[derive(Default)]
    struct Counts {
        samples: AtomicU64,
        time: AtomicU64,
        held: AtomicU64,
        waited: AtomicU64,
        waiting: AtomicU64,
    }

    #[derive(Default)]
    struct Running {
        depth: usize,
        now: Option<Run>,
    }

    struct Run {
        stop: Arc<Futex>,
        thread: JoinHandle<()>,
        /// A forked child has no such thread.
        process: u32,
    }

    impl Run {
        /// Lets the thread end; gives it back if it is one of this process.
        fn end(self) -> Option<JoinHandle<()>> {
            self.stop.store(1, Ordering::Release);
            self.stop.wake_all();
            let mine = self.process == std::process::id();
            // Not even to be detached in a forked child: there its handle means nothing.
            let thread = ManuallyDrop::new(self.thread);
            mine.then(|| ManuallyDrop::into_inner(thread))
        }
    }

    impl Drop for Sampler {
        /// Forgotten while it was running: its thread ends by itself.
        fn drop(&mut self) {
            let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(run) = running.now.take() {
                drop(run.end());
            }
        }
    }

    impl Sampler {
        pub(super) fn new(rate: f64) -> Self {
            Self {
                period: Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX),
                counts: Arc::default(),
                running: Mutex::default(),
            }
        }

        pub(super) fn start(&self, py: Python<'_>) -> PyResult<()> {
            let lock = Lock::find(py)?;
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.depth == 0 {
                let stop = Arc::new(Futex::new(0));
                let (counts, period) = (self.counts.clone(), self.period);
                let thread = signals::blocked(|| {
                    let stop = stop.clone();
                    thread::Builder::new()
                        .name("ropewalk-gil".into())
                        .spawn(move || sample(lock, &counts, period, &stop))
                })?;
                running.now = Some(Run {
                    stop,
                    thread,
                    process: std::process::id(),
                });
            }
            running.depth += 1;
            Ok(())
        }

        pub(super) fn stop(&self, py: Python<'_>) {
            let ended = {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.depth = running.depth.saturating_sub(1);
                if running.depth > 0 {
                    return;
                }
                let Some(run) = running.now.take() else { return };
                run
            };
            if let Some(thread) = ended.end() {
                // It cannot have panicked, and nothing would follow from it.
                py.detach(|| drop(thread.join()));
            }
        }

        pub(super) fn read(&self) -> (u64, f64, f64, f64, f64) {
            let seconds = |sum: &AtomicU64| sum.load(Ordering::Relaxed) as f64 / 1e9;
            let counts = &self.counts;
            (
                counts.samples.load(Ordering::Relaxed),
                seconds(&counts.time),
                seconds(&counts.held),
                seconds(&counts.waited),
                seconds(&counts.waiting),
            )
        }
    }

    /// What one look sees.
    #[derive(Clone, Copy)]
    struct Look {
        at: Instant,
        held: bool,
        waiting: u64,
    }

    impl Look {
        fn at(lock: &Lock) -> Self {
            let held = lock.held.load(Ordering::Relaxed) != 0;
            Self {
                at: Instant::now(),
                held,
                // Who is on the way out of a wait for a lock that is free does not wait.
                waiting: if held { lock.waiting() } else { 0 },
            }
        }
    }

    /// Looks again and again until it is stopped.
    ///
    /// Half of the time between two looks counts for what each of them saw: on a busy machine looks come
    /// late, and later while the program computes.
    fn sample(lock: &Lock, counts: &Counts, period: Duration, stop: &Futex) {
        let mut random = Random::new();
        let mut last = Look::at(lock);
        loop {
            // Never in step with the switch interval, nor with any other period of the program.
            let deadline = Instant::now().checked_add(random.around(period));
            while stop.load(Ordering::Acquire) == 0 && stop.wait(0, deadline) != Wake::TimedOut {}
            let look = Look::at(lock);
            let half = (look.at - last.at).as_nanos() as u64 / 2;
            let add = |sum: &AtomicU64, amount| sum.fetch_add(amount, Ordering::Relaxed);
            add(&counts.samples, 1);
            add(&counts.time, 2 * half);
            for seen in [last, look] {
                add(&counts.held, half * u64::from(seen.held));
                add(&counts.waited, half * u64::from(seen.waiting > 0));
                add(&counts.waiting, half * seen.waiting);
            }
            if stop.load(Ordering::Acquire) != 0 {
                return;
            }
            last = look;
        }
    }

    /// Marsaglia's xorshift: enough to be out of step.
    struct Random(u64);

    impl Random {
        fn new() -> Self {
            Self(u64::from(std::process::id()) << 32 | 1)
        }

        /// Evenly between a half and three halves of `time`.
        fn around(&mut self, time: Duration) -> Duration {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let fraction = (self.0 >> 40) as f64 / (1_u64 << 24) as f64;
            time / 2 + time.mul_f64(fraction)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod sampler {
    use pyo3::exceptions::PyNotImplementedError;
    use pyo3::prelude::*;

    /// Nothing tells here where a thread sleeps.
    pub(super) struct Sampler;

    impl Sampler {
        pub(super) fn new(_rate: f64) -> Self {
            Self
        }

        pub(super) fn start(&self, _py: Python<'_>) -> PyResult<()> {
            Err(PyNotImplementedError::new_err(format!(
                "the GIL cannot be watched on {}",
                std::env::consts::OS
            )))
        }

        pub(super) fn stop(&self, _py: Python<'_>) {}

        pub(super) fn read(&self) -> (u64, f64, f64, f64, f64) {
            (0, 0.0, 0.0, 0.0, 0.0)
        }
    }
}
