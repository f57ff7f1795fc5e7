//! [`Task`]: a coroutine that the loop runs.
//!
//! # What a task is made of
//!
//! One allocation (`cell.rs`): what every task has (`Header`), and the future or, once that is gone, its outcome. The loop and handles
//! see the header alone; `Methods` in it knows the types.
//!
//! # Access rules
//! - `Shared`, the first part of the header, belongs to every thread.
//! - All else (the rest of the header, the outcome, the future) belongs to the loop's thread. Two of the three references to
//!   a task never leave it: `LocalRef`, a handle, and `Due`, a place in the ready ring. The third, `SharedRef`, is a waker and
//!   goes anywhere; it sees more than `Shared` only where the loop with the task's number runs in its own thread.
//! - The future is polled and dropped by the loop alone, while the stage says so, and is gone when the task is done.
//! - Whatever thread drops the last reference drops neither future, nor outcome, nor callbacks: the loop has a handle of every
//!   task that is not done, and [`Task`], which cannot leave the thread either, empties the outcome. The place of both is
//!   `ManuallyDrop`, so that even a mistake here would leak and not drop in a foreign thread.
//! - How references are counted, `counts.rs` argues.

mod any;
mod cell;
mod header;
mod memory;
mod refs;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use any::AnyTask;
pub(super) use any::SendTask;
pub(super) use cell::new;
pub(super) use header::{Header, Watch};
pub(super) use memory::Memory;
pub(super) use refs::{Due, LocalRef, SharedRef};

use super::current;
use super::error::{Error, Result};

/// A coroutine that the loop runs, and the right to its outcome (Python: `asyncio.Task`).
///
/// Await it for the outcome. Cancelling a task that awaits it cancels it, too. Dropping it neither cancels nor ends
/// the task: it runs on, and a failure is told to the loop's exception handler.
///
/// What every task can do, [`AnyTask`] documents.
///
/// # Errors
/// What the coroutine failed with; an error that [`is_panic`](Error::is_panic) if it panicked. A task that awaits itself or
/// one of another loop, or an outcome that was taken, gives an error that [`is_misuse`](Error::is_misuse).
///
/// ```
/// use ropewalk::asyncio;
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let flag = Rc::new(7); // futures need not be Send
///     let task = asyncio::create_task(async move { Ok(*flag) });
///     assert!(!task.done()); // it begins when the loop gets control
///     assert_eq!(task.await?, 7);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Task<T: 'static> {
    any: AnyTask,
    _outcome: PhantomData<T>,
}

pub(super) const FOREIGN: Error = Error::misuse("the task belongs to another event loop: await it there");

impl<T: 'static> Task<T> {
    fn new(task: LocalRef) -> Self {
        Self {
            any: AnyTask::new(task),
            _outcome: PhantomData,
        }
    }

    pub(super) fn handle(&self) -> LocalRef {
        self.any.task().clone()
    }

    fn outcome(&self) -> Option<Result<T>> {
        // SAFETY: a `Task<T>` is only made for a cell whose outcome is a `T`.
        unsafe { cell::take_outcome(self.any.task()) }
    }

    /// Whether it is not done, and another loop runs than the one that will see to that.
    pub(super) fn is_foreign(&self) -> bool {
        let current = current::loop_id();
        !self.done() && current != 0 && current != self.any.task().loop_id()
    }

    /// Awaits the task without passing requests on to it.
    pub(super) fn join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.done() {
            return Poll::Ready(self.result());
        }
        if self.is_foreign() {
            return Poll::Ready(Err(FOREIGN));
        }
        if current::is_current(self.any.task()) {
            return Poll::Ready(Err(Error::misuse("a task cannot await itself")));
        }
        self.any.task().set_waiter(cx.waker());
        Poll::Pending
    }

    /// Takes the outcome of a task that is over.
    ///
    /// # Errors
    /// What the task failed with. One that [`is_misuse`](Error::is_misuse) if it is not over or the outcome was taken.
    pub fn result(&mut self) -> Result<T> {
        if !self.done() {
            return Err(Error::misuse("the result is not set: await the task"));
        }
        self.set_retrieved();
        self.outcome()
            .unwrap_or(Err(Error::misuse("the result has already been taken")))
    }
}

impl<T: 'static> Unpin for Task<T> {}

impl<T: 'static> Deref for Task<T> {
    type Target = AnyTask;

    fn deref(&self) -> &AnyTask {
        &self.any
    }
}

impl<T: 'static> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waited = &self.any.task().waited;
        // Who has waited here until a request came gets that, and the outcome stays where it is.
        if self.done()
            && waited.replace(false)
            && let Some(cancelled) = current::take_request()
        {
            return Poll::Ready(Err(cancelled.into()));
        }
        if let Poll::Ready(outcome) = self.join(cx) {
            return Poll::Ready(outcome);
        }
        self.any.task().waited.set(true);
        if let Some(cancelled) = current::take_request() {
            if current::current_task().is_some_and(|this| !this.task().ask(self.any.task())) {
                return Poll::Ready(Err(cancelled.into())); // or it would go round for ever
            }
            // The waker is there: what the other task makes of it comes back.
            self.any.request(cancelled.into_message());
        }
        Poll::Pending
    }
}

impl<T: 'static> Drop for Task<T> {
    fn drop(&mut self) {
        self.any.task().detached.set(true);
        let outcome = self.outcome();
        if outcome.is_some() {
            self.any.report();
        }
    }
}

impl<T: 'static> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}
