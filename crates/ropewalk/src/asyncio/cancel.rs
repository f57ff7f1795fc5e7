//! Cancellation: a request to a task, delivered as an error at the point where the task waits.
//!
//! # The state machine
//!
//! A task carries `count` (requests not taken back: [`cancelling`](super::AnyTask::cancelling)) and `pending` (a request not
//! delivered yet).
//!
//! | event | count | pending | besides |
//! |---|---|---|---|
//! | `cancel` of a task that is done | - | - | false |
//! | `cancel` otherwise | + 1 | set | the task is scheduled; true |
//! | an await point of ours that has waited is polled | | cleared | `Err(Cancelled)`, whether or not what it waited for has come |
//! | an await point of ours would begin to wait | | cleared | `Err(Cancelled)` at once |
//! | a task that waits for another task is polled | | cleared | the request passes to the other task, and its outcome decides |
//! | the same, and the request would come round to that task, since they await each other | | cleared | `Err(Cancelled)` |
//! | a task that has never run is run | | cleared | it ends as cancelled, without being polled |
//! | `uncancel` | - 1 | cleared at 0 | |
//! | the task ends | | | as its outcome says; a request still pending is forgotten |
//!
//! From which follows:
//! - Each request is delivered once; two before the first delivery are one. Who catches the error may wait again
//!   undisturbed, until the next request.
//! - An await point that does not wait, for what it waits for is there, delivers nothing: as in Python.
//! - A request comes before an arrival: an await point that is cancelled has not taken what came for it in the meantime. No
//!   item, lock, byte or result is lost with it.
//! - A future that is not ours does not look for requests: the request stays pending until the task comes to an await
//!   point that does. [`cancellable`] makes one of any future.
//! - Within one task (`join!`, `select!`) the first await point that is polled gets the request.
//!
//! All of it happens on the loop's thread, in plain cells.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::current;
use super::error::Cancelled;

/// The requests that one task has got; what they say is kept elsewhere.
#[derive(Default)]
pub(super) struct Requests {
    count: Cell<u32>,
    pending: Cell<bool>,
}

impl Requests {
    pub(super) fn add(&self) {
        self.count.set(self.count.get().saturating_add(1));
        self.pending.set(true);
    }

    /// Whether there is a request to be delivered, which the caller now does.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.pending.replace(false)
    }

    pub(super) fn count(&self) -> u32 {
        self.count.get()
    }

    pub(super) fn uncancel(&self) -> u32 {
        let left = self.count.get().saturating_sub(1);
        self.count.set(left);
        if left == 0 {
            self.pending.set(false);
        }
        left
    }
}

pin_project! {
    /// The future that [`cancellable`] returns.
    #[derive(Debug)]
    #[must_use = "a future does nothing unless awaited"]
    pub struct Cancellable<F> {
        #[pin]
        future: F,
        waiting: bool,
    }
}

/// Makes an await point at which a task can be cancelled of any future.
///
/// All that is awaitable here is one already. Needed for futures of other libraries: channels, clients, timers. A
/// future that is cancelled is dropped with the await point; nothing of it is polled before.
///
/// # Errors
/// The task was cancelled.
///
/// ```
/// use ropewalk::asyncio;
///
/// asyncio::run(async {
///     let task = asyncio::create_task(async {
///         asyncio::cancellable(std::future::pending::<()>()).await?;
///         Ok(())
///     });
///     asyncio::sleep(std::time::Duration::ZERO).await?;
///     task.cancel();
///     assert!(task.await.unwrap_err().is_cancelled());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn cancellable<F: Future>(future: F) -> Cancellable<F> {
    Cancellable {
        future,
        waiting: false,
    }
}

impl<F: Future> Future for Cancellable<F> {
    type Output = Result<F::Output, Cancelled>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.waiting
            && let Some(cancelled) = current::take_request()
        {
            return Poll::Ready(Err(cancelled));
        }
        if let Poll::Ready(value) = this.future.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        match current::take_request() {
            Some(cancelled) => Poll::Ready(Err(cancelled)),
            None => {
                *this.waiting = true;
                Poll::Pending
            }
        }
    }
}
