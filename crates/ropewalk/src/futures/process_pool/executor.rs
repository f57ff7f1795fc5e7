//! The Rust face: an executor whose calls run in other processes.

use std::io;
use std::panic;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::job::{Job, Limits, Outcome, Receiver};
use super::message::Message;
use super::pool::{Config, Pool, Refused, Statistics, may_wait};
use super::remote::{self, Remote, Signature, status};
use crate::futures::error::{Error, Kind};
use crate::futures::future::{Engine, Future, Promise};
use crate::park::Wake;
use crate::sync::lock;

/// An executor that runs calls in worker processes (Python: `concurrent.futures.ProcessPoolExecutor`).
///
/// The workers are this program, started again: they are fresh processes, not forks, and begin before `main` does
/// anything. They are started when there are calls for them, and kept. What they run are functions marked
/// [`#[remote]`](macro@crate::remote); arguments and results travel by serde.
///
/// A call that panics, exits, crashes its process or runs for too long ends its own future with an error and
/// nothing else: the worker is replaced, and what was queued goes on.
///
/// Dropping the executor waits for the calls that are pending. In a fork of the process it is dead: it accepts no
/// calls, and dropping it does nothing. When the process ends in any way, its workers end.
///
/// ```
/// use ropewalk::futures::ProcessPoolExecutor;
///
/// #[ropewalk::remote]
/// fn cube(n: i64) -> i64 {
///     n * n * n
/// }
///
/// let pool = ProcessPoolExecutor::builder().max_workers(2).build()?;
/// let future = pool.submit(&cube, (3,))?;
/// assert_eq!(future.result()?, 27);
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
pub struct ProcessPoolExecutor {
    pool: Arc<Pool>,
}

/// How a [`ProcessPoolExecutor`] is to be.
#[derive(Debug, Default)]
pub struct Builder {
    max_workers: Option<usize>,
    max_tasks_per_child: Option<u64>,
    max_memory_per_child: Option<u64>,
    max_pending: Option<usize>,
    initializer: Option<Result<Message, String>>,
}

impl Builder {
    /// The most workers; by default as many as the process may use processors.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers);
        self
    }

    /// Replaces a worker after so many calls.
    pub fn max_tasks_per_child(mut self, calls: u64) -> Self {
        self.max_tasks_per_child = Some(calls);
        self
    }

    /// Replaces a worker after a call that leaves it with more resident memory than this, in bytes.
    pub fn max_memory_per_child(mut self, bytes: u64) -> Self {
        self.max_memory_per_child = Some(bytes);
        self
    }

    /// Lets no more than so many calls be pending: `submit` waits for one to end.
    pub fn max_pending(mut self, calls: usize) -> Self {
        self.max_pending = Some(calls);
        self
    }

    /// Has each worker call `function` before anything else. If it panics, the pool is broken.
    pub fn initializer<F: Signature>(
        mut self,
        function: &'static Remote<F>,
        arguments: F::Arguments,
    ) -> Self {
        self.initializer = Some(remote::call(function, &arguments));
        self
    }

    /// Makes the executor. No worker is started yet.
    ///
    /// # Errors
    /// A limit is zero, the initializer cannot be sent, or memory or file descriptors could not be had.
    pub fn build(self) -> Result<ProcessPoolExecutor, Error> {
        let zero = |what| Err(Kind::Invalid(what).into());
        if self.max_workers == Some(0) {
            return zero("max_workers must be greater than 0");
        }
        if self.max_tasks_per_child == Some(0) {
            return zero("max_tasks_per_child must be >= 1");
        }
        if self.max_pending == Some(0) {
            return zero("max_pending must be >= 1");
        }
        let setup = match self.initializer {
            None => Message::new(&[]).map_err(broken)?,
            Some(Ok(message)) => message,
            Some(Err(why)) => return Err(Kind::Unsendable(why.into()).into()),
        };
        let pool = Pool::new(Config {
            max_workers: self
                .max_workers
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            command: Box::new(remote::command),
            setup,
            max_tasks_per_child: self.max_tasks_per_child,
            max_memory_per_child: self.max_memory_per_child,
            max_pending: self.max_pending,
        })
        .map_err(broken)?;
        Ok(ProcessPoolExecutor { pool: Arc::new(pool) })
    }
}

fn broken(error: io::Error) -> Error {
    Kind::Broken(error.to_string().into()).into()
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Shutdown => Kind::Shutdown,
            Refused::Broken(why) => Kind::Broken(why),
            Refused::Full => Kind::Full,
            Refused::Forked => Kind::Broken("a process pool cannot be used in a fork of its process".into()),
        }
        .into()
    }
}

impl ProcessPoolExecutor {
    /// An executor with a worker for each processor that the process may use.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// An executor to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Has a worker call `function` with `arguments`, a tuple.
    ///
    /// Waits while as many calls are pending as [`Builder::max_pending`] allows.
    ///
    /// # Errors
    /// The executor is shut down or broken, or the arguments cannot be serialised; in a callback of a future, which
    /// must not wait, also if there is no room.
    pub fn submit<F: Signature>(
        &self,
        function: &'static Remote<F>,
        arguments: F::Arguments,
    ) -> Result<Future<F::Output>, Error> {
        self.submit_with(Limits::default(), function, arguments)
    }

    /// As [`submit`](Self::submit), with a limit to how long the call may run and how often it is run again if its
    /// worker dies.
    ///
    /// A call that runs for too long ends with an error that [`is_timeout`](Error::is_timeout); its worker is ended
    /// and replaced.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_with<F: Signature>(
        &self,
        limits: Limits,
        function: &'static Remote<F>,
        arguments: F::Arguments,
    ) -> Result<Future<F::Output>, Error> {
        let message = remote::call(function, &arguments).map_err(|why| Kind::Unsendable(why.into()))?;
        let reply = Reply(Mutex::new(None));
        let job = Job::new(message, None, limits, reply);
        let engine = InPool {
            pool: self.pool.clone(),
            job: job.clone(),
        };
        let (promise, future) = Promise::with_engine(engine);
        *lock(&job.receiver.0) = Some(promise);
        loop {
            match self.pool.submit(job.clone()) {
                Err(Refused::Full) if may_wait() => self.pool.wait_for_room(None),
                submitted => return Ok(submitted.map(|()| future)?),
            };
        }
    }

    /// Calls `function` with each tuple of arguments and returns the results in that order.
    ///
    /// All calls are submitted at once. Dropping the iterator cancels what has not begun; so does an error, after which
    /// the iterator is at its end.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); the iterator's items are errors where a call failed.
    pub fn map<F: Signature>(
        &self,
        function: &'static Remote<F>,
        arguments: impl IntoIterator<Item = F::Arguments>,
    ) -> Result<Results<F::Output>, Error> {
        let mut results = Results(Vec::new().into_iter());
        let mut futures = Vec::new();
        for arguments in arguments {
            match self.submit(function, arguments) {
                Ok(future) => futures.push(future),
                Err(error) => {
                    results.0 = futures.into_iter();
                    return Err(error);
                }
            }
        }
        results.0 = futures.into_iter();
        Ok(results)
    }

    /// Starts all workers and waits until they are ready.
    ///
    /// # Errors
    /// The executor is shut down, or the workers cannot be started.
    pub fn warm_up(&self) -> Result<(), Error> {
        self.pool.warm_up()?;
        while !self.pool.wait_until_ready(None)? {}
        Ok(())
    }

    /// Cancels a call even if it runs: its worker is then ended, and replaced. False if it is over.
    pub fn cancel_running<T>(&self, future: &Future<T>) -> bool {
        future.engine().is_some_and(|engine| engine.cancel(true))
    }

    /// Accepts no more calls.
    ///
    /// With `cancel_futures`, what has not begun is cancelled; otherwise it is still run. With `wait`, returns when
    /// all is over and the workers have exited; in a callback of a future, at once. Can be called again.
    pub fn shutdown(&self, wait: bool, cancel_futures: bool) {
        self.pool.shutdown(cancel_futures);
        while wait && may_wait() && !self.pool.has_ended() {
            self.pool.wait_for_end(None);
        }
    }

    /// The processes of the workers.
    pub fn pids(&self) -> Vec<u32> {
        self.pool.pids()
    }

    /// What the pool has done so far.
    pub fn statistics(&self) -> Statistics {
        self.pool.statistics()
    }
}

impl Drop for ProcessPoolExecutor {
    fn drop(&mut self) {
        self.shutdown(true, false);
    }
}

/// The results of [`ProcessPoolExecutor::map`], in the order of the arguments.
pub struct Results<T>(std::vec::IntoIter<Future<T>>);

impl<T> Iterator for Results<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.0.next()?.result();
        if result.is_err() {
            self.cancel_rest();
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> Results<T> {
    fn cancel_rest(&mut self) {
        for future in self.0.by_ref() {
            future.cancel();
        }
    }
}

impl<T> Drop for Results<T> {
    fn drop(&mut self) {
        self.cancel_rest();
    }
}

/// Turns the outcome into the future's.
struct Reply<T>(Mutex<Option<Promise<T>>>);

impl<T: DeserializeOwned + Send + 'static> Receiver for Reply<T> {
    fn receive(&self, outcome: Outcome) {
        let Some(promise) = lock(&self.0).take() else {
            return;
        };
        let error = match outcome {
            Outcome::Returned { status, message } => match status {
                // To deserialise is user code.
                status::RETURNED => match panic::catch_unwind(|| postcard::from_bytes(message.first())) {
                    Ok(Ok(value)) => return promise.set_result(value),
                    Ok(Err(error)) => Kind::Unsendable(error.to_string().into()).into(),
                    Err(payload) => Error::panicked(payload),
                },
                status::PANICKED => {
                    Error::panicked(Box::new(String::from_utf8_lossy(message.first()).into_owned()))
                }
                _ => Kind::Unsendable(String::from_utf8_lossy(message.first()).into()).into(),
            },
            // A promise that is dropped cancels.
            Outcome::Cancelled => return,
            Outcome::Died(death) => Kind::Died(death).into(),
            Outcome::TimedOut => Kind::TimedOut { unfinished: None }.into(),
            Outcome::Broken(why) => Kind::Broken(why).into(),
        };
        promise.set_exception(error);
    }
}

/// A call that the pool has.
struct InPool<R> {
    pool: Arc<Pool>,
    job: Arc<Job<R>>,
}

impl<R: Receiver> Engine for InPool<R> {
    fn cancel(&self, running: bool) -> bool {
        let job: Arc<Job> = self.job.clone();
        if running {
            self.pool.cancel_running(&job)
        } else {
            self.pool.cancel(&job)
        }
    }

    fn running(&self) -> bool {
        let job: Arc<Job> = self.job.clone();
        self.pool.is_running(&job)
    }

    fn wait(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> Option<Wake> {
        self.pool.receive_until(done, deadline)
    }
}

/// A time limit, by itself.
impl From<Duration> for Limits {
    fn from(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            retries: 0,
        }
    }
}
