//! Calls made by a pool of threads (Python: `concurrent.futures.ThreadPoolExecutor`).

mod queue;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

pub use queue::{Queue, Refused, Worker};

use super::error::{Error, Kind};
use super::executor::Executor;
use super::future::Task;
use crate::park::Wake;
use crate::sync::{Mutex, lock};

/// The number that the next unnamed pool bears in the names of its threads.
static POOLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The pool that this thread works for: the address of its `Shared`, never dereferenced.
    static POOL: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

type Initializer = Box<dyn Fn() + Send + Sync>;

struct Shared {
    queue: Queue<Task>,
    initializer: Option<Initializer>,
    broken: OnceLock<Error>,
}

impl Shared {
    fn work(self: &Arc<Self>) {
        POOL.set(Arc::as_ptr(self));
        let mut worker = self.queue.worker();
        if let Some(initializer) = &self.initializer
            && let Err(payload) = panic::catch_unwind(AssertUnwindSafe(initializer))
        {
            return self.fail(&Error::panicked(payload));
        }
        while let Some(task) = worker.pop() {
            task.run();
        }
    }

    /// Breaks the pool: what is queued fails, and so does what comes.
    fn fail(&self, why: &Error) {
        let why = format!("a thread initializer failed, the thread pool is not usable anymore: {why}");
        let error = self.broken.get_or_init(|| Kind::Broken(why.into()).into());
        self.queue.close();
        for task in self.queue.drain() {
            task.fail(error.clone());
        }
    }
}

/// Makes calls in threads that it starts on demand and keeps.
///
/// An idle thread is used before a new one is started. Threads wait for calls without using the processor. Dropping the
/// pool shuts it down and waits for what is queued, as Python's `with` block does.
///
/// Does not work in the child of a fork: its threads do not exist there.
///
/// ```
/// use ropewalk::futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::builder().max_workers(2).thread_name_prefix("flags").build();
/// let name = pool.submit(|| std::thread::current().name().map(str::to_owned))?;
/// assert_eq!(name.result()?.as_deref(), Some("flags_0"));
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
pub struct ThreadPoolExecutor {
    shared: Arc<Shared>,
    name: String,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    started: usize,
    running: Vec<JoinHandle<()>>,
}

impl ThreadPoolExecutor {
    /// A pool of up to `min(32, cpus + 4)` threads.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A pool with settings of one's own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.shared.queue.threads()
    }

    /// How many of its threads wait for a call.
    pub fn idle_threads(&self) -> usize {
        self.shared.queue.idle()
    }

    /// How many calls wait for a thread.
    pub fn pending(&self) -> usize {
        self.shared.queue.len()
    }

    fn start_thread(&self) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        let shared = self.shared.clone();
        let name = format!("{}_{}", self.name, threads.started);
        threads
            .running
            .push(thread::Builder::new().name(name).spawn(move || shared.work())?);
        threads.started += 1;
        Ok(())
    }

    fn refusal(&self) -> Error {
        self.shared
            .broken
            .get()
            .cloned()
            .unwrap_or_else(|| Kind::Shutdown.into())
    }
}

impl Default for ThreadPoolExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor for ThreadPoolExecutor {
    /// Waits for room where `max_pending` is set and reached, except in a thread of this very pool.
    fn execute(&self, mut task: Task) -> Result<(), Error> {
        let queue = &self.shared.queue;
        let start = loop {
            match queue.push(task) {
                Ok(start) => break start,
                Err(Refused::Closed(_)) => return Err(self.refusal()),
                Err(Refused::Full(_)) if POOL.get() == Arc::as_ptr(&self.shared) => {
                    return Err(Kind::Full.into());
                }
                Err(Refused::Full(back)) => task = back,
            }
            queue.wait_for_room(None);
        };
        // If the system has no more threads, those that run make do; without any, the calls fail.
        if start
            && let Err(error) = self.start_thread()
            && !queue.not_started()
        {
            let error: Error = Kind::Broken(format!("no thread can be started: {error}").into()).into();
            queue
                .drain()
                .into_iter()
                .for_each(|task| task.fail(error.clone()));
            return Err(error);
        }
        Ok(())
    }

    /// In a thread of this very pool it does not wait: the pool's threads would wait for each other.
    fn shutdown(&self, wait: bool, cancel_futures: bool) {
        self.shared.queue.close();
        if cancel_futures {
            self.shared.queue.drain().into_iter().for_each(Task::cancel);
        }
        if wait && POOL.get() != Arc::as_ptr(&self.shared) {
            // Also for threads that somebody else joins at this moment, or is about to start.
            while self.shared.queue.wait_for_workers(None) != Wake::Woken {}
            let threads = std::mem::take(&mut lock(&self.threads).running);
            for thread in threads {
                // A worker catches what its calls panic with.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for ThreadPoolExecutor {
    fn drop(&mut self) {
        self.shutdown(true, false);
    }
}

impl fmt::Debug for ThreadPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolExecutor")
            .field("name", &self.name)
            .field("threads", &self.threads())
            .field("idle_threads", &self.idle_threads())
            .field("pending", &self.pending())
            .finish()
    }
}

/// The settings of a [`ThreadPoolExecutor`].
#[derive(Default)]
pub struct Builder {
    max_workers: Option<NonZero<usize>>,
    thread_name_prefix: Option<String>,
    initializer: Option<Initializer>,
    max_pending: Option<NonZero<usize>>,
}

impl Builder {
    /// At most this many threads; `min(32, cpus + 4)` if not set.
    ///
    /// # Panics
    /// For zero.
    pub fn max_workers(mut self, count: usize) -> Self {
        self.max_workers = Some(NonZero::new(count).expect("max_workers must be greater than 0"));
        self
    }

    /// What the names of the threads begin with; `ThreadPoolExecutor-N` if not set.
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.thread_name_prefix = Some(prefix.into());
        self
    }

    /// Called in each thread before its first call. If it panics the pool is broken: all its calls fail.
    pub fn initializer(mut self, initializer: impl Fn() + Send + Sync + 'static) -> Self {
        self.initializer = Some(Box::new(initializer));
        self
    }

    /// At most this many calls wait for a thread; who submits more waits for room.
    ///
    /// In a thread of the pool itself that would be a deadlock: there `submit` fails with an error that
    /// [`is_full`](Error::is_full).
    ///
    /// # Panics
    /// For zero.
    pub fn max_pending(mut self, count: usize) -> Self {
        self.max_pending = Some(NonZero::new(count).expect("max_pending must be greater than 0"));
        self
    }

    /// The pool. No thread is started yet.
    pub fn build(self) -> ThreadPoolExecutor {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let max_workers = self.max_workers.map_or((cpus + 4).min(32), NonZero::get);
        let max_pending = self.max_pending.map_or(usize::MAX, NonZero::get);
        let name = self
            .thread_name_prefix
            .unwrap_or_else(|| format!("ThreadPoolExecutor-{}", POOLS.fetch_add(1, Ordering::Relaxed)));
        ThreadPoolExecutor {
            shared: Arc::new(Shared {
                queue: Queue::new(max_workers, max_pending),
                initializer: self.initializer,
                broken: OnceLock::new(),
            }),
            name,
            threads: Mutex::new(Threads::default()),
        }
    }
}
