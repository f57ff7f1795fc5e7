//! Stackful coroutines: the body is an ordinary closure and may yield from any depth of ordinary calls.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use corosensei::stack::DefaultStack;
use corosensei::{CoroutineResult, Yielder};

use super::channel::Channel;
use super::coroutine::Coroutine;
use super::error::Error;

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
        Ok(Coroutine::with(move |channel| {
            Body(corosensei::Coroutine::with_stack(stack, move |yielder, ()| {
                body(&Co { channel, yielder })
            }))
        }))
    }
}

/// The body's end of a stackful coroutine.
pub struct Co<'y, Y, S = (), E = Infallible> {
    channel: Rc<Channel<'static, Y, S, E>>,
    yielder: &'y Yielder<(), ()>,
}

impl<Y, S, E> Co<'_, Y, S, E> {
    /// Hands `value` to the caller and waits to be resumed: `received = yield value`.
    ///
    /// # Errors
    /// What is thrown in, [`Error::GeneratorExit`] when the coroutine is closed.
    #[inline]
    pub fn yield_(&self, value: Y) -> Result<S, Error<E>> {
        self.exchange(value, Channel::received)
    }

    /// Lets the caller talk to `sub`, of either kind, until that has ended, as [`super::Co::yield_from`] does.
    ///
    /// # Errors
    /// As there.
    pub fn yield_from<R>(&self, sub: Coroutine<'static, Y, S, R, E>) -> Result<R, Error<E>>
    where
        S: Default,
    {
        let outcome = self.channel.delegate(sub)?;
        loop {
            self.yielder.suspend(());
            if let Some(result) = self.channel.joined(&outcome) {
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
            if !self.exchange(item, Channel::received_next)? {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn exchange<T>(&self, value: Y, receive: impl Fn(&Channel<'static, Y, S, E>) -> Option<T>) -> T {
        self.channel.yielded.set(Some(value));
        loop {
            self.yielder.suspend(());
            if let Some(received) = receive(&self.channel) {
                return received;
            }
        }
    }
}

/// To its driver a stackful body is a future like any other: polling it switches to its stack.
struct Body<T>(corosensei::Coroutine<(), (), T>);

// The stack stays where it is; what moves is the handle.
impl<T> Unpin for Body<T> {}

impl<T> Future for Body<T> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        match self.0.resume(()) {
            CoroutineResult::Yield(()) => Poll::Pending,
            CoroutineResult::Return(result) => Poll::Ready(result),
        }
    }
}
