//! [`Future`]: an outcome that somebody else will set.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::current;
use super::error::{Cancelled, Error, Result};

/// The outcome of something that is no coroutine: a bridge from callbacks to awaits (Python: `asyncio.Future`).
///
/// A handle: clones are the same future, and several tasks may await it; a value goes to the first who takes it. Cancelling a
/// task that awaits it cancels it. It belongs to one thread; between threads there is
/// [`futures::Promise`](crate::futures::Promise).
///
/// ```
/// use ropewalk::asyncio::{self, Future};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let future = Future::new();
///     let setter = future.clone();
///     asyncio::get_running_loop()?.call_later(Duration::from_millis(1), move || {
///         setter.set_result("called back").expect("nobody else sets it");
///     });
///     assert_eq!(future.await?, "called back");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Future<T> {
    state: Rc<RefCell<State<T>>>,
    /// The place among those who wait of who has begun to wait by this handle.
    place: Option<u64>,
}

enum State<T> {
    /// Those who wait, by their places, in the order of their coming.
    Pending(BTreeMap<u64, Waker>),
    Done(Option<T>),
    Failed(Error),
}

impl<T> Future<T> {
    /// A future without an outcome.
    pub fn new() -> Self {
        Self {
            state: Rc::new(RefCell::new(State::Pending(BTreeMap::new()))),
            place: None,
        }
    }

    /// Ends it with a value.
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) if it has ended (Python: `InvalidStateError`); the value is dropped.
    pub fn set_result(&self, value: T) -> Result<()> {
        self.end(State::Done(Some(value)))
    }

    /// Ends it with a failure.
    ///
    /// # Errors
    /// As [`set_result`](Future::set_result).
    pub fn set_exception(&self, error: impl Into<Error>) -> Result<()> {
        self.end(State::Failed(error.into()))
    }

    /// Ends it as cancelled; false if it has ended.
    pub fn cancel(&self) -> bool {
        self.end(State::Failed(Cancelled::default().into())).is_ok()
    }

    fn end(&self, state: State<T>) -> Result<()> {
        let wakers = match &mut *self.state.borrow_mut() {
            State::Pending(wakers) => std::mem::take(wakers),
            _ => return Err(Error::misuse("the future is already done")),
        };
        *self.state.borrow_mut() = state;
        wakers.into_values().for_each(Waker::wake);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        match &*self.state.borrow() {
            State::Pending(wakers) => wakers.len(),
            _ => 0,
        }
    }

    /// Whether it has ended.
    pub fn done(&self) -> bool {
        !matches!(*self.state.borrow(), State::Pending(_))
    }

    /// Whether it has ended as cancelled.
    pub fn cancelled(&self) -> bool {
        self.exception().is_some_and(|error| error.is_cancelled())
    }

    /// What it failed with, if it did.
    pub fn exception(&self) -> Option<Error> {
        match &*self.state.borrow() {
            State::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Takes the outcome.
    ///
    /// # Errors
    /// What it failed with. One that [`is_misuse`](Error::is_misuse) if it has not ended, or the value was taken.
    pub fn result(&self) -> Result<T> {
        match &mut *self.state.borrow_mut() {
            State::Pending(_) => Err(Error::misuse("the result is not set: await the future")),
            State::Done(value) => value
                .take()
                .ok_or(Error::misuse("the result has already been taken")),
            State::Failed(error) => Err(error.clone()),
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        // Who has waited until a request came gets that, and a value stays where it is.
        let this = self.get_mut();
        if this.done() {
            return Poll::Ready(match this.place.take().and_then(|_| current::take_request()) {
                Some(cancelled) => Err(cancelled.into()),
                None => this.result(),
            });
        }
        let old = match &mut *this.state.borrow_mut() {
            State::Pending(wakers) => {
                let next = || wakers.last_key_value().map_or(0, |(last, _)| last + 1);
                let place = *this.place.get_or_insert_with(next);
                wakers.insert(place, cx.waker().clone())
            }
            _ => None,
        };
        drop(old); // outside the borrow
        match current::take_request() {
            None => Poll::Pending,
            Some(cancelled) => {
                let _ = this.end(State::Failed(cancelled.into()));
                Poll::Ready(this.result())
            }
        }
    }
}

impl<T> Drop for Future<T> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Who waits no more leaves nothing behind.
        let old = match &mut *self.state.borrow_mut() {
            State::Pending(wakers) => wakers.remove(&place),
            _ => None,
        };
        drop(old); // outside the borrow
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            place: None,
        }
    }
}

impl<T> Default for Future<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.state.borrow() {
            State::Pending(_) => f.write_str("<Future pending>"),
            State::Done(_) => f.write_str("<Future finished>"),
            State::Failed(error) if error.is_cancelled() => f.write_str("<Future cancelled>"),
            State::Failed(error) => write!(f, "<Future finished exception={error:?}>"),
        }
    }
}
