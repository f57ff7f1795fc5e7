use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::statistics::{Statistics, ThreadStatistics};
use crate::park::{Futex, Wake, spin};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, Thread, ThreadId};

/// Queued and awake.
const WAITING: u32 = 0;
/// Queued and asleep: the only state that costs whoever signals a system call.
const PARKED: u32 = 1;

/// What a waiter is told.
#[derive(Clone, Copy)]
pub(super) enum Signal {
    /// See whether the lock is free, and whether it is now yours to watch the clock.
    Look = 2,
    /// The lock is yours.
    Granted = 3,
}

/// A thread's own place at a lock: where it waits, and its books.
///
/// The books are written by their thread alone, hence loads and stores, and read by anybody; a number by
/// itself needs no order: relaxed.
pub(super) struct Slot {
    thread: Thread,
    pub(super) id: ThreadId,
    signal: Futex,
    /// When the present hold began by the coarse clock, in nanoseconds; 0 without one.
    since: AtomicU64,
    switches: AtomicU64,
    forced: AtomicU64,
    waited: AtomicU64,
    held: AtomicU64,
}

impl Slot {
    pub(super) fn new() -> Self {
        let thread = thread::current();
        Self {
            id: thread.id(),
            thread,
            signal: Futex::new(WAITING),
            since: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Tells the waiter, which is queued or has just been taken out of the queue. Under the queue's mutex.
    pub(super) fn signal(&self, signal: Signal) {
        // Release: what the last holder did to the value must be seen by the heir, whose acquire loads of the
        // signal are in `is_granted` and `wait`.
        if self.signal.swap(signal as u32, Ordering::Release) == PARKED {
            self.signal.wake_one();
        }
    }

    /// Whether the lock was granted to this waiter. Under the queue's mutex or not.
    pub(super) fn is_granted(&self) -> bool {
        self.signal.load(Ordering::Acquire) == Signal::Granted as u32
    }

    /// Ready for the next signal. Under the queue's mutex, so that none is overwritten unread.
    pub(super) fn wait_again(&self) {
        self.signal.store(WAITING, Ordering::Relaxed);
    }

    /// Waits for a signal or until `deadline`; true when the lock was granted.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let signalled = || (self.signal.load(Ordering::Relaxed) > PARKED).then_some(());
        if spin(signalled).is_none()
            && self
                .signal
                .compare_exchange(WAITING, PARKED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            while signalled().is_none() && self.signal.wait(PARKED, deadline) != Wake::TimedOut {}
        }
        self.is_granted()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn is_roused(&self) -> bool {
        self.signal.load(Ordering::Relaxed) == Signal::Look as u32
    }

    pub(super) fn holds(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    #[inline]
    pub(super) fn begins(&self, switched: bool) {
        if switched {
            add(&self.switches, 1);
        }
        self.since.store(coarse_now(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn ends(&self) {
        let since = self.since.load(Ordering::Relaxed);
        add(&self.held, coarse_now().saturating_sub(since));
        self.since.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_forced(&self) {
        add(&self.forced, 1);
    }

    pub(super) fn has_waited(&self, time: Duration) {
        add(&self.waited, super::nanos(time));
    }

    pub(super) fn statistics(&self) -> Statistics {
        let held = match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => coarse_now().saturating_sub(since),
        };
        Statistics {
            switches: self.switches.load(Ordering::Relaxed),
            forced: self.forced.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited.load(Ordering::Relaxed)),
            held: Duration::from_nanos(self.held.load(Ordering::Relaxed) + held),
        }
    }

    pub(super) fn row(&self) -> ThreadStatistics {
        ThreadStatistics {
            thread: self.thread.clone(),
            statistics: self.statistics(),
        }
    }
}

#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

/// A clock for the short way: an eighth of the cost of the precise one. Never 0.
#[cfg(target_os = "linux")]
#[inline]
fn coarse_now() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A clock for the short way. Never 0.
#[cfg(not(target_os = "linux"))]
fn coarse_now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    super::nanos(START.get_or_init(Instant::now).elapsed()) + 1
}
