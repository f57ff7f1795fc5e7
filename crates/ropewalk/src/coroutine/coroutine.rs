use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;

use super::channel::{Cold, Input};
use super::error::Error;
use super::stack::{Body, Stack, Stopped};
use super::state::{State, Step};

/// Where a body leaves what it returned or raised.
pub(super) type Outcome<R, E> = Rc<Cell<Option<Result<R, Error<E>>>>>;

/// Ends a body: leaves its result, by PEP 479's rule for a StopIteration.
#[cold]
#[inline(never)]
pub(super) fn end<Y, S, R, E>(
    outcome: &Outcome<R, E>,
    cold: &Cold<'_, Y, S, E>,
    result: Result<R, Error<E>>,
) {
    outcome.set(Some(match result {
        Err(Error::Finished) => Err(Error::RaisedStopIteration),
        result => result,
    }));
    cold.stop(Stopped::Ended);
}

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

impl<'a, Y, S, R, E> Coroutine<'a, Y, S, R, E> {
    /// `make` makes the body from the place where it leaves its result.
    pub(super) fn with<B: Body<'a, Y, S, E> + 'a>(make: impl FnOnce(Outcome<R, E>) -> B) -> Self {
        let outcome = Outcome::default();
        let body = Box::pin(make(outcome.clone()));
        Coroutine {
            stack: RefCell::new(Stack::new(body)),
            outcome,
        }
    }

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
            State::Suspended => stack.resume(Input::Next(S::default())),
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
        let yielded = stack.resume(Input::Sent(value));
        self.step(yielded)
    }

    /// Raises `error` at the yield where the coroutine, or the innermost one that it delegates to, is suspended,
    /// and runs to the next yield.
    ///
    /// Before the start it closes the coroutine, whose body never runs. [`Error::GeneratorExit`] closes
    /// sub-coroutines first (PEP 380).
    ///
    /// ```
    /// use ropewalk::coroutine::{Coroutine, Error, Step};
    ///
    /// let counter = Coroutine::<u32, (), (), &str>::new(|mut co| async move {
    ///     let mut count = 0;
    ///     loop {
    ///         match co.yield_(count).await {
    ///             Err(Error::Raised("reset")) => count = 0,
    ///             received => received.map(|()| count += 1)?,
    ///         }
    ///     }
    /// });
    /// counter.next()?;
    /// assert_eq!(counter.next()?, Step::Yielded(1));
    /// assert_eq!(counter.throw("reset")?, Step::Yielded(0));
    /// assert_eq!(counter.throw("stop"), Err(Error::Raised("stop")));
    /// # Ok::<(), Error<&str>>(())
    /// ```
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
    /// ```
    /// use ropewalk::coroutine::{Coroutine, Error};
    ///
    /// let lines = Coroutine::<(), &str, usize>::new(|mut co| async move {
    ///     let mut written = 0;
    ///     while let Ok(line) = co.yield_(()).await {
    ///         written += line.len();
    ///     }
    ///     Ok(written) // here a file would be flushed
    /// });
    /// lines.prime()?;
    /// lines.send("hawser")?;
    /// assert_eq!(lines.close()?, Some(6));
    /// assert_eq!(lines.close()?, None);
    /// # Ok::<(), Error>(())
    /// ```
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
