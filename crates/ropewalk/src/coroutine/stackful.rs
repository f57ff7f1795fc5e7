//! Stackful coroutines: the body is an ordinary closure and may yield from any depth of ordinary calls.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{CoroutineResult, Yielder};

use super::channel::{Cold, Input};
use super::coroutine::{Coroutine, Outcome, end};
use super::error::Error;
use super::stack::{Body, Stopped};

/// Room for the body's calls, in bytes. Address space: memory is taken page by page as it is touched.
const STACK_SIZE: usize = 1 << 20;

impl<Y, S, R, E> Coroutine<'static, Y, S, R, E>
where
    Y: 'static,
    S: 'static,
    R: 'static,
    E: 'static,
{
    /// Makes a stackful coroutine. The body may borrow nothing, as it lives on a stack of its own.
    ///
    /// Running out of the stack's 1 MiB hits a guard page and ends the process, as it does for a thread. A body
    /// still suspended after it was closed twice (it ignored GeneratorExit) is unwound by a forced panic.
    ///
    /// ```
    /// use ropewalk::coroutine::{Coroutine, Error, stackful::Co};
    ///
    /// fn visit(co: &Co<'_, u32>, depth: u32) -> Result<(), Error> {
    ///     if depth > 0 {
    ///         visit(co, depth - 1)?;
    ///         co.yield_(depth)?;
    ///         visit(co, depth - 1)?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let ruler = Coroutine::stackful(|co| visit(co, 3))?;
    /// assert_eq!(ruler.collect::<Vec<_>>(), [1, 2, 1, 3, 1, 2, 1]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the system has no address space, or no mapping, left for the stack.
    pub fn stackful<B>(body: B) -> io::Result<Self>
    where
        B: FnOnce(&Co<'_, Y, S, E>) -> Result<R, Error<E>> + 'static,
    {
        let stack = DefaultStack::new(STACK_SIZE)?;
        Ok(Coroutine::with(|outcome| {
            let cold = Rc::new(Cold::new());
            let inside = cold.clone();
            let switch = move |yielder: &Yielder<_, _>, _| {
                body(&Co {
                    cold: inside,
                    yielder,
                })
            };
            Stackful {
                stack: corosensei::Coroutine::with_stack(stack, switch),
                cold,
                outcome,
            }
        }))
    }
}

/// The body. Values pass through the switch of stacks itself.
struct Stackful<Y, S, R, E> {
    stack: corosensei::Coroutine<Input<S>, Option<Y>, Result<R, Error<E>>>,
    cold: Rc<Cold<'static, Y, S, E>>,
    outcome: Outcome<R, E>,
}

// The stack stays where it is; what moves is the handle.
impl<Y, S, R, E> Unpin for Stackful<Y, S, R, E> {}

impl<Y, S, R, E> Body<'static, Y, S, E> for Stackful<Y, S, R, E> {
    fn resume(mut self: Pin<&mut Self>, input: Input<S>) -> Option<Y> {
        match self.stack.resume(input) {
            CoroutineResult::Yield(value) => value,
            CoroutineResult::Return(result) => {
                end(&self.outcome, &self.cold, result);
                None
            }
        }
    }

    fn stopped(&self) -> Stopped<'static, Y, S, E> {
        self.cold.stopped()
    }

    fn throw(&self, error: Error<E>) {
        self.cold.throw(error);
    }
}

/// The body's end of a stackful coroutine.
pub struct Co<'y, Y, S = (), E = Infallible> {
    cold: Rc<Cold<'static, Y, S, E>>,
    yielder: &'y Yielder<Input<S>, Option<Y>>,
}

impl<Y, S, E> Co<'_, Y, S, E> {
    /// Hands `value` to the caller and waits to be resumed: `received = yield value`.
    ///
    /// # Errors
    /// What is thrown in, [`Error::GeneratorExit`] when the coroutine is closed.
    #[inline]
    pub fn yield_(&self, value: Y) -> Result<S, Error<E>> {
        self.exchange(value, Input::received)
    }

    /// Lets the caller talk to `sub`, of either kind, until that has ended, as [`super::Co::yield_from`] does.
    ///
    /// # Errors
    /// As there.
    pub fn yield_from<R>(&self, sub: Coroutine<'static, Y, S, R, E>) -> Result<R, Error<E>>
    where
        S: Default,
    {
        let outcome = self.cold.delegate(sub)?;
        loop {
            self.yielder.suspend(None);
            if let Some(result) = self.cold.joined(&outcome) {
                return result;
            }
        }
    }

    /// Yields all that `items` gives, as [`super::Co::yield_from_iter`] does.
    ///
    /// # Errors
    /// As there.
    pub fn yield_from_iter(&self, items: impl IntoIterator<Item = Y>) -> Result<(), Error<E>> {
        for item in items {
            if !self.exchange(item, Input::received_next)? {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn exchange<T>(&self, value: Y, receive: impl Fn(Input<S>, &Cold<'static, Y, S, E>) -> Option<T>) -> T {
        let mut input = self.yielder.suspend(Some(value));
        loop {
            match receive(input, &self.cold) {
                Some(received) => return received,
                None => input = self.yielder.suspend(None),
            }
        }
    }
}
