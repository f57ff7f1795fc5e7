use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::channel::{Channel, Input};
use super::error::Error;
use super::stack::{Body, Frame, Stack};
use super::state::{State, Step};

/// Where a body leaves what it returned or raised.
pub(super) type Outcome<R, E> = Rc<Cell<Option<Result<R, Error<E>>>>>;

/// A call that yields values of `Y`, is sent values of `S`, returns an `R` and may raise an `E`; what its body
/// borrows lives for `'a`.
///
/// Resuming takes `&self`, so that a coroutine may be shared (`Rc`) even with its own body, as in Python; a
/// resume from inside itself is an error, [`Error::AlreadyExecuting`], of every method that resumes.
/// Dropping a suspended coroutine closes it; what goes wrong in its clean-up is then lost, call
/// [`close`](Self::close) to see it.
///
/// ```
/// use ropewalk::coroutine::Coroutine;
///
/// let words = ["to", "and", "fro"];
/// let letters = Coroutine::<char>::new(|mut co| async move {
///     for word in &words {
///         co.yield_from_iter(word.chars()).await?;
///     }
///     Ok(())
/// });
/// assert_eq!(letters.collect::<String>(), "toandfro");
/// ```
pub struct Coroutine<'a, Y, S = (), R = (), E = Infallible> {
    stack: RefCell<Stack<'a, Y, S, E>>,
    outcome: Outcome<R, E>,
}

impl<'a, Y, S, R, E> Coroutine<'a, Y, S, R, E>
where
    Y: 'a,
    S: 'a,
    R: 'a,
    E: 'a,
{
    /// `make` gets the channel of the new coroutine and makes the body from it.
    pub(super) fn with<F>(make: impl FnOnce(Rc<Channel<'a, Y, S, E>>) -> F) -> Self
    where
        F: Future<Output = Result<R, Error<E>>> + 'a,
    {
        let channel = Rc::new(Channel::new());
        let outcome = Outcome::default();
        let body = Box::pin(Leaving {
            future: make(channel.clone()),
            outcome: outcome.clone(),
        });
        Coroutine {
            stack: RefCell::new(Stack::new(Frame { body, channel })),
            outcome,
        }
    }
}

pin_project! {
    /// A body that leaves its result behind. It is no `async` block around the future, whose own state machine would cost
    /// a tenth of a switch.
    struct Leaving<F, R, E> {
        #[pin]
        future: F,
        outcome: Outcome<R, E>,
    }
}

impl<R, E, F: Future<Output = Result<R, Error<E>>>> Body for Leaving<F, R, E> {
    fn run(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        match this.future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => false,
            Poll::Ready(result) => {
                this.outcome.set(Some(match result {
                    Err(Error::Finished) => Err(Error::RaisedStopIteration),
                    result => result,
                }));
                true
            }
        }
    }
}

impl<'a, Y, S, R, E> Coroutine<'a, Y, S, R, E> {
    /// Runs to the next yield, or from the start to the first one: `next(coroutine)`.
    ///
    /// The body receives `S::default()`, Rust's nearest to Python's `None`.
    ///
    /// # Errors
    /// What the body raises; [`Error::Finished`] after the end.
    #[inline]
    pub fn next(&self) -> Result<Step<Y, R>, Error<E>>
    where
        S: Default,
    {
        let mut stack = self.stack.try_borrow_mut().map_err(|_| Error::AlreadyExecuting)?;
        let yielded = match stack.state() {
            State::Created => stack.start(),
            State::Suspended => {
                stack.put(Input::Next(S::default()));
                stack.resume()
            }
            _ => return Err(Error::Finished),
        };
        self.step(yielded)
    }

    /// Runs a coroutine just created to its first yield. It needs no value, since no yield waits for one.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] when it is suspended; otherwise as [`next`](Self::next).
    pub fn prime(&self) -> Result<Step<Y, R>, Error<E>> {
        let mut stack = self.stack.try_borrow_mut().map_err(|_| Error::AlreadyExecuting)?;
        match stack.state() {
            State::Created => {}
            State::Suspended => return Err(Error::AlreadyStarted),
            _ => return Err(Error::Finished),
        }
        let yielded = stack.start();
        self.step(yielded)
    }

    /// Makes `value` the result of the yield at which the coroutine is suspended, and runs to the next one.
    ///
    /// # Errors
    /// [`Error::NotStarted`] before the first yield, which leaves it as it was; [`Error::Finished`] after the
    /// end; what the body raises.
    #[inline]
    pub fn send(&self, value: S) -> Result<Step<Y, R>, Error<E>> {
        let mut stack = self.stack.try_borrow_mut().map_err(|_| Error::AlreadyExecuting)?;
        match stack.state() {
            State::Suspended => {}
            State::Created => return Err(Error::NotStarted),
            _ => return Err(Error::Finished),
        }
        stack.put(Input::Sent(value));
        let yielded = stack.resume();
        self.step(yielded)
    }

    /// Raises `error` at the yield where the coroutine, or the innermost one that it delegates to, is suspended,
    /// and runs to the next yield.
    ///
    /// Before the start it closes the coroutine, whose body never runs. [`Error::GeneratorExit`] closes
    /// sub-coroutines first (PEP 380).
    ///
    /// # Errors
    /// `error` itself when the body does not handle it, has not started or has ended; whatever else the body
    /// raises.
    pub fn throw(&self, error: impl Into<Error<E>>) -> Result<Step<Y, R>, Error<E>> {
        let mut stack = self.stack.try_borrow_mut().map_err(|_| Error::AlreadyExecuting)?;
        let error = error.into();
        if stack.state() != State::Suspended {
            stack.clear();
            return Err(error);
        }
        let yielded = stack.throw(error);
        self.step(yielded)
    }

    /// Raises GeneratorExit at the yield, lets the body clean up, and gives what it returned, if it did (as
    /// CPython 3.13).
    ///
    /// A coroutine that was not started is closed without running; closing a closed one does nothing.
    ///
    /// # Errors
    /// [`Error::IgnoredGeneratorExit`] when it yields again instead: it is still suspended then. What else its
    /// clean-up raises.
    pub fn close(&self) -> Result<Option<R>, Error<E>> {
        let mut stack = self.stack.try_borrow_mut().map_err(|_| Error::AlreadyExecuting)?;
        if stack.state() != State::Suspended {
            stack.clear();
            return Ok(None);
        }
        let yielded = stack.throw(Error::GeneratorExit);
        match self.step(yielded) {
            Ok(Step::Yielded(_)) => Err(Error::IgnoredGeneratorExit),
            Ok(Step::Returned(value)) => Ok(Some(value)),
            Err(Error::GeneratorExit) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Created, Running, Suspended or Closed.
    pub fn state(&self) -> State {
        self.stack
            .try_borrow()
            .map_or(State::Running, |stack| stack.state())
    }

    #[inline]
    fn step(&self, yielded: Option<Y>) -> Result<Step<Y, R>, Error<E>> {
        match yielded {
            Some(value) => Ok(Step::Yielded(value)),
            None => self.ended(),
        }
    }

    #[cold]
    fn ended(&self) -> Result<Step<Y, R>, Error<E>> {
        // A body that is gone and left nothing behind was dropped for waiting on something foreign.
        self.outcome
            .take()
            .unwrap_or(Err(Error::ForeignAwait))
            .map(Step::Returned)
    }

    /// Takes the coroutine apart for its new driver.
    pub(super) fn into_parts(self) -> (Stack<'a, Y, S, E>, Outcome<R, E>) {
        (self.stack.into_inner(), self.outcome)
    }
}

/// Where nothing is sent and nothing raised, a coroutine is the iterator of what it yields.
///
/// What it returns ends the iteration and is dropped, as in Python's `for`.
impl<Y, R> Iterator for Coroutine<'_, Y, (), R> {
    type Item = Y;

    fn next(&mut self) -> Option<Y> {
        Coroutine::next(self).ok()?.yielded()
    }
}

impl<Y, R> std::iter::FusedIterator for Coroutine<'_, Y, (), R> {}

impl<Y, S, R, E> fmt::Debug for Coroutine<'_, Y, S, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coroutine")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
