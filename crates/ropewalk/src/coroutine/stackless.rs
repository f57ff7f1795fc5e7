use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::channel::{Cold, Input};
use super::coroutine::{Coroutine, Outcome, end};
use super::error::Error;
use super::stack::{Body, Stopped};

impl<'a, Y, S, R, E> Coroutine<'a, Y, S, R, E>
where
    Y: 'a,
    S: 'a,
    R: 'a,
    E: 'a,
{
    /// Makes a stackless coroutine; `body` is called at once, the future that it returns runs at the first resume.
    ///
    /// ```
    /// use ropewalk::coroutine::{Coroutine, Step};
    ///
    /// let doubler = Coroutine::<i32, i32, &str>::new(|mut co| async move {
    ///     let mut value = 0;
    ///     while value < 100 {
    ///         value = 2 * co.yield_(value).await?;
    ///     }
    ///     Ok("large enough")
    /// });
    /// doubler.prime()?;
    /// assert_eq!(doubler.send(4)?, Step::Yielded(8));
    /// assert_eq!(doubler.send(50)?, Step::Returned("large enough"));
    /// # Ok::<(), ropewalk::coroutine::Error>(())
    /// ```
    pub fn new<B, F>(body: B) -> Self
    where
        B: FnOnce(Co<'a, Y, S, E>) -> F,
        F: Future<Output = Result<R, Error<E>>> + 'a,
    {
        let channel = Rc::new(Channel::new());
        let future = body(Co {
            channel: channel.clone(),
        });
        Coroutine::with(|outcome| Stackless {
            future,
            channel,
            outcome,
        })
    }
}

/// Where a body and its driver exchange values. The body is polled by its driver alone, so either side empties what the
/// other has filled: plain cells will do. Stores are what a switch is made of: each direction has a cell of its own,
/// so that neither needs a mark of whose turn it is.
struct Channel<'a, Y, S, E> {
    yielded: Cell<Option<Y>>,
    input: Cell<Input<S>>,
    cold: Cold<'a, Y, S, E>,
}

impl<'a, Y, S, E> Channel<'a, Y, S, E> {
    fn new() -> Self {
        Channel {
            yielded: Cell::new(None),
            input: Cell::new(Input::Nothing),
            cold: Cold::new(),
        }
    }

    fn delegate<R>(&self, sub: Coroutine<'a, Y, S, R, E>) -> Result<Outcome<R, E>, Error<E>>
    where
        S: Default,
    {
        self.yielded.set(None); // of a yield that was never awaited
        self.cold.delegate(sub)
    }

    #[inline]
    fn received(&self) -> Option<Result<S, Error<E>>> {
        self.input.replace(Input::Nothing).received(&self.cold)
    }
}

pin_project! {
    /// The body. It is no `async` block around the future, whose own state machine would cost a tenth of a switch.
    struct Stackless<'a, F, Y, S, R, E> {
        #[pin]
        future: F,
        channel: Rc<Channel<'a, Y, S, E>>,
        outcome: Outcome<R, E>,
    }
}

impl<'a, F, Y, S, R, E> Body<'a, Y, S, E> for Stackless<'a, F, Y, S, R, E>
where
    F: Future<Output = Result<R, Error<E>>>,
{
    fn resume(self: Pin<&mut Self>, input: Input<S>) -> Option<Y> {
        let this = self.project();
        this.channel.input.set(input);
        match this.future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => this.channel.yielded.take(),
            Poll::Ready(result) => {
                end(this.outcome, &this.channel.cold, result);
                None
            }
        }
    }

    fn stopped(&self) -> Stopped<'a, Y, S, E> {
        self.channel.cold.stopped()
    }

    fn throw(&self, error: Error<E>) {
        self.channel.cold.throw(error);
    }
}

/// The body's end of a stackless coroutine. Helpers of the body borrow it: `async fn f(co: &mut Co<'_, …>)`.
pub struct Co<'a, Y, S = (), E = Infallible> {
    channel: Rc<Channel<'a, Y, S, E>>,
}

impl<'a, Y, S, E> Co<'a, Y, S, E> {
    /// Hands `value` to the caller and waits to be resumed: `received = yield value`.
    ///
    /// The value is put down by the call, handed over by the await; one that is never awaited is lost.
    ///
    /// # Errors
    /// What is thrown in, [`Error::GeneratorExit`] when the coroutine is closed.
    #[inline]
    pub fn yield_(&mut self, value: Y) -> Yield<'_, 'a, Y, S, E> {
        self.channel.yielded.set(Some(value));
        Yield {
            channel: &self.channel,
            begun: false,
        }
    }

    /// Lets the caller talk to `sub` until that has ended: `result = yield from sub` (PEP 380).
    ///
    /// Values sent, errors thrown and `close` go straight to the innermost sub-coroutine, at a cost that does
    /// not grow with the depth of the chain. A suspended `sub` goes on as if by `next`.
    ///
    /// ```
    /// use ropewalk::coroutine::{Coroutine, Error, Step};
    ///
    /// fn sum() -> Coroutine<'static, (), Option<u32>, u32> {
    ///     Coroutine::new(|mut co| async move {
    ///         let mut sum = 0;
    ///         while let Some(term) = co.yield_(()).await? {
    ///             sum += term;
    ///         }
    ///         Ok(sum)
    ///     })
    /// }
    ///
    /// let product = Coroutine::new(|mut co| async move { Ok(co.yield_from(sum()).await? * co.yield_from(sum()).await?) });
    /// product.prime()?;
    /// for term in [Some(1), Some(2), None] {
    ///     product.send(term)?;
    /// }
    /// product.send(Some(7))?;
    /// assert_eq!(product.send(None)?, Step::Returned(21));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// What `sub` raises; [`Error::Finished`] if it had ended before; [`Error::GeneratorExit`], after `sub` was
    /// closed, when this coroutine is closed.
    pub fn yield_from<R>(&mut self, sub: Coroutine<'a, Y, S, R, E>) -> YieldFrom<'_, 'a, Y, S, R, E> {
        YieldFrom {
            channel: &self.channel,
            sub: Some(sub),
            outcome: None,
        }
    }

    /// Yields all that `items` gives: `yield from iterable`.
    ///
    /// # Errors
    /// What is thrown in, [`Error::GeneratorExit`] when the coroutine is closed, and [`Error::NoSend`] for a
    /// value sent, since an iterator takes none. A thrown [`Error::Finished`] ends it as the iterator's end does.
    pub async fn yield_from_iter(&mut self, items: impl IntoIterator<Item = Y>) -> Result<(), Error<E>> {
        for item in items {
            self.channel.yielded.set(Some(item));
            if !self.received_next().await? {
                break;
            }
        }
        Ok(())
    }

    async fn received_next(&self) -> Result<bool, Error<E>> {
        poll_fn(|_| {
            let input = self.channel.input.replace(Input::Nothing);
            input
                .received_next(&self.channel.cold)
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The future of [`Co::yield_`].
#[must_use = "a yield does nothing unless awaited"]
pub struct Yield<'c, 'a, Y, S, E> {
    channel: &'c Channel<'a, Y, S, E>,
    /// The first poll need not look for an input: to read back what was just stored costs a quarter of a switch.
    begun: bool,
}

impl<Y, S, E> Future for Yield<'_, '_, Y, S, E> {
    type Output = Result<S, Error<E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.begun {
            self.begun = true;
            return Poll::Pending;
        }
        match self.channel.received() {
            Some(received) => Poll::Ready(received),
            None => Poll::Pending,
        }
    }
}

/// The future of [`Co::yield_from`].
#[must_use = "a yield from does nothing unless awaited"]
pub struct YieldFrom<'c, 'a, Y, S, R, E> {
    channel: &'c Channel<'a, Y, S, E>,
    sub: Option<Coroutine<'a, Y, S, R, E>>,
    outcome: Option<Outcome<R, E>>,
}

// The sub-coroutine is a handle, its body is pinned in a box of its own.
impl<Y, S, R, E> Unpin for YieldFrom<'_, '_, Y, S, R, E> {}

// One that is given up in the poll that began it must not leave its sub-coroutine for the driver to find.
impl<Y, S, R, E> Drop for YieldFrom<'_, '_, Y, S, R, E> {
    fn drop(&mut self) {
        self.channel.cold.clear();
    }
}

impl<Y, S: Default, R, E> Future for YieldFrom<'_, '_, Y, S, R, E> {
    type Output = Result<R, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.sub.take() {
            Some(sub) => match self.channel.delegate(sub) {
                Ok(outcome) => {
                    self.outcome = Some(outcome);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            None => match self
                .outcome
                .as_ref()
                .and_then(|outcome| self.channel.cold.joined(outcome))
            {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            },
        }
    }
}
