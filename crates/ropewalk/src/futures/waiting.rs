//! Waiting for many futures.
//!
//! [`Completions`] is a queue of the numbers of futures in the order in which they were done. It costs each future one
//! entry, whatever their number.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Error, Kind};
use super::future::Future;
use super::state::{Notify, Watcher};
use crate::park::{self, Futex, Wake};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// Somebody sleeps on the word; the other bits count arrivals.
const SLEEPER: u32 = 1;
const ARRIVAL: u32 = 2;

/// The numbers of the futures that are done, in the order in which that happened.
///
/// One thread takes them out; any number put them in.
pub struct Completions {
    arrived: Mutex<VecDeque<usize>>,
    word: Futex,
}

impl Completions {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            arrived: Mutex::new(VecDeque::new()),
            word: Futex::new(0),
        }
    }

    /// Takes the next number if one is there.
    pub fn try_next(&self) -> Option<usize> {
        lock(&self.arrived).pop_front()
    }

    /// Waits for the next number.
    ///
    /// # Errors
    /// [`Wake::TimedOut`] when the deadline has passed, [`Wake::Interrupted`] when a signal handler has run.
    pub fn next(&self, deadline: Option<Instant>) -> Result<usize, Wake> {
        if let Some(number) = park::spin(|| self.try_next()) {
            return Ok(number);
        }
        loop {
            // Acquire and release meet `notify`'s addition: either it sees the flag and wakes us, or the word that we
            // read here counts its arrival, whose number then is in the queue for us to see.
            let seen = self.word.fetch_or(SLEEPER, Ordering::AcqRel) | SLEEPER;
            if let Some(number) = self.try_next() {
                return Ok(number);
            }
            let wake = self.word.wait(seen, deadline);
            if let Some(number) = self.try_next() {
                return Ok(number);
            }
            if wake != Wake::Woken {
                return Err(wake);
            }
        }
    }
}

impl Notify for Completions {
    fn notify(&self, number: usize) {
        lock(&self.arrived).push_back(number);
        if self.word.fetch_add(ARRIVAL, Ordering::AcqRel) & SLEEPER != 0 {
            self.word.fetch_and(!SLEEPER, Ordering::Relaxed);
            self.word.wake_one();
        }
    }
}

impl Default for Completions {
    fn default() -> Self {
        Self::new()
    }
}

/// Futures of one `wait` or `as_completed`, watched until they are done or this is dropped.
struct Watched<T> {
    futures: Vec<Option<Future<T>>>,
    completions: Arc<Completions>,
}

impl<T> Watched<T> {
    /// Watches each future once, though it may be given several times.
    fn new(futures: impl IntoIterator<Item = Future<T>>) -> Self {
        let mut this = Self {
            futures: Vec::new(),
            completions: Arc::new(Completions::new()),
        };
        let mut seen = std::collections::HashSet::new();
        for future in futures.into_iter().filter(|future| seen.insert(future.id())) {
            let watcher = Watcher::Notify(this.completions.clone(), this.futures.len());
            if let Some(done) = future.watch(watcher) {
                done.tell();
            }
            this.futures.push(Some(future));
        }
        this
    }

    fn next(&mut self, deadline: Option<Instant>) -> Option<Future<T>> {
        loop {
            match self.completions.next(deadline) {
                Ok(number) => return self.futures[number].take(),
                Err(Wake::TimedOut) => return None,
                Err(_) => {}
            }
        }
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        let who: Arc<dyn Notify> = self.completions.clone();
        for future in self.futures.iter().flatten() {
            future.unwatch(&who);
        }
    }
}

/// When [`wait`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnWhen {
    /// As soon as a future is done.
    FirstCompleted,
    /// As soon as a future has failed, or when all are done. A cancelled one has not failed.
    FirstException,
    /// When all are done.
    AllCompleted,
}

/// What [`wait`] returns.
#[derive(Debug)]
pub struct DoneAndNotDone<T> {
    /// The futures that are finished or cancelled, in the order in which that was seen.
    pub done: Vec<Future<T>>,
    /// The others.
    pub not_done: Vec<Future<T>>,
}

/// Waits for futures until what `return_when` names has come about, or for `timeout` at most.
///
/// A future given twice counts once.
///
/// ```
/// use ropewalk::futures::{Executor, ReturnWhen, ThreadPoolExecutor, wait};
///
/// let pool = ThreadPoolExecutor::new();
/// let futures = [pool.submit(|| 1)?, pool.submit(|| 2)?];
/// let outcome = wait(futures, None, ReturnWhen::AllCompleted);
/// assert_eq!((outcome.done.len(), outcome.not_done.len()), (2, 0));
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
pub fn wait<T>(
    futures: impl IntoIterator<Item = Future<T>>,
    timeout: Option<Duration>,
    return_when: ReturnWhen,
) -> DoneAndNotDone<T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut watched = Watched::new(futures);
    let mut done = Vec::new();
    let enough = |done: &[Future<T>]| match return_when {
        ReturnWhen::FirstCompleted => !done.is_empty(),
        ReturnWhen::FirstException => done
            .last()
            .is_some_and(|last| !last.cancelled() && last.exception().is_some()),
        ReturnWhen::AllCompleted => false,
    };
    while done.len() < watched.futures.len() && !enough(&done) {
        let Some(future) = watched.next(deadline) else {
            break;
        };
        done.push(future);
    }
    // Those that were done meanwhile belong to the done ones too.
    while let Some(number) = watched.completions.try_next() {
        done.extend(watched.futures[number].take());
    }
    let who: Arc<dyn Notify> = watched.completions.clone();
    let not_done: Vec<_> = mem::take(&mut watched.futures).into_iter().flatten().collect();
    not_done.iter().for_each(|future| future.unwatch(&who));
    DoneAndNotDone { done, not_done }
}

/// Yields futures as they are done, those that are done already first.
///
/// A future given twice is yielded once. An item is an error when `timeout`, counted from this call, is over; that
/// error says how many are unfinished, and the iterator is at its end.
pub fn as_completed<T>(
    futures: impl IntoIterator<Item = Future<T>>,
    timeout: Option<Duration>,
) -> AsCompleted<T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let watched = Watched::new(futures);
    AsCompleted {
        left: watched.futures.len(),
        watched,
        deadline,
    }
}

/// The iterator that [`as_completed`] returns.
pub struct AsCompleted<T> {
    watched: Watched<T>,
    left: usize,
    deadline: Option<Instant>,
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<Future<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        match self.watched.next(self.deadline) {
            Some(future) => {
                self.left -= 1;
                Some(Ok(future))
            }
            None => {
                let unfinished = Some((mem::take(&mut self.left), self.watched.futures.len()));
                Some(Err(Kind::TimedOut { unfinished }.into()))
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    #[test]
    fn every_arrival_is_seen() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let completions = loom::sync::Arc::new(Completions::new());
            let threads: Vec<_> = (0..2)
                .map(|number| {
                    let completions = completions.clone();
                    loom::thread::spawn(move || completions.notify(number))
                })
                .collect();
            let mut seen = [completions.next(None), completions.next(None)];
            seen.sort_by_key(|number| number.as_ref().ok().copied());
            assert_eq!(seen, [Ok(0), Ok(1)]);
            for thread in threads {
                thread.join().expect("notifier");
            }
        });
    }
}
