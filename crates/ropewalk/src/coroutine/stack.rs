//! The frames of a coroutine and of everything it delegates to, and the trampoline that drives them.
//!
//! `yield_from` does not poll the sub-coroutine from inside the delegating body: it hands it to the driver,
//! which pushes it here and from then on polls the topmost frame alone. A chain of any depth thus costs what
//! one coroutine costs, and neither driving nor dropping it recurses.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::channel::{Channel, Cold, Hot};
use super::error::Error;
use super::state::State;

/// One body. It leaves its result where its own kind of coroutine looks for it, so that frames are of one type
/// whatever they return.
pub(super) struct Frame<'a, Y, S, E> {
    pub(super) body: Pin<Box<dyn Future<Output = ()> + 'a>>,
    pub(super) channel: Rc<Channel<'a, Y, S, E>>,
}

pub(super) struct Stack<'a, Y, S, E> {
    /// Created, Suspended or Closed. It says Closed while a body runs, so that a panic closes at no cost;
    /// that the coroutine is running shows in its stack being borrowed.
    pub(super) state: State,
    /// The innermost frame, the only one that is polled; none once the coroutine is closed.
    top: Option<Frame<'a, Y, S, E>>,
    /// Those that delegate, the outermost first: the frame at index `i` waits for the one at `i + 1`.
    below: Vec<Frame<'a, Y, S, E>>,
}

impl<'a, Y, S, E> Stack<'a, Y, S, E> {
    pub(super) fn new(frame: Frame<'a, Y, S, E>) -> Self {
        Stack {
            state: State::Created,
            top: Some(frame),
            below: Vec::new(),
        }
    }

    /// Puts a value, or nothing at the start, before the topmost body.
    #[inline]
    pub(super) fn put(&mut self, input: Hot<Y, S>) {
        if let Some(top) = &self.top {
            top.channel.hot.set(input);
        }
    }

    fn put_error(&mut self, error: Error<E>) {
        if let Some(top) = &self.top {
            top.channel.cold.set(Cold::Thrown(error));
        }
    }

    /// Runs what is on top until something is yielded, or until the outermost body has ended: `None`.
    #[inline]
    pub(super) fn resume(&mut self) -> Option<Y> {
        self.state = State::Closed;
        let yielded = self.run(0);
        if yielded.is_some() {
            self.state = State::Suspended;
        }
        yielded
    }

    /// Raises `error` at the innermost yield. `GeneratorExit` is not passed inwards as such: it closes the
    /// sub-coroutines and is then raised in the outermost body (PEP 380).
    pub(super) fn throw(&mut self, error: Error<E>) -> Option<Y> {
        if let Error::GeneratorExit = error {
            self.state = State::Closed;
            let yielded = self.exit(0);
            if yielded.is_some() {
                self.state = State::Suspended;
            }
            return yielded;
        }
        self.put_error(error);
        self.resume()
    }

    /// Drops all frames, innermost first.
    pub(super) fn clear(&mut self) {
        self.state = State::Closed;
        while let Some(frame) = self.pop() {
            drop(frame);
        }
    }

    /// Polls the topmost frame until something is yielded, or until the frame at `base` has ended: `None`.
    #[inline]
    fn run(&mut self, base: usize) -> Option<Y> {
        let mut context = Context::from_waker(Waker::noop());
        while let Some(top) = &mut self.top {
            if top.body.as_mut().poll(&mut context).is_ready() {
                self.pop();
            } else if let Hot::Yielded(value) = top.channel.hot.replace(Hot::Empty) {
                return Some(value);
            } else {
                self.pushed_or_foreign();
            }
            if self.below.len() < base {
                return None;
            }
        }
        None
    }

    #[cold]
    fn pushed_or_foreign(&mut self) {
        let Some(top) = &self.top else { return };
        if let Cold::Delegated(mut stack) = top.channel.cold.replace(Cold::Empty) {
            stack.state = State::Closed;
            self.below.extend(self.top.take());
            self.below.append(&mut stack.below);
            self.top = stack.top.take();
        } else {
            self.pop();
            self.put_error(Error::ForeignAwait);
        }
    }

    /// Raises GeneratorExit in every frame down to `base`, innermost first, each run to its end. `None` when
    /// that of `base` ended, otherwise what it yielded instead.
    fn exit(&mut self, base: usize) -> Option<Y> {
        let mut error = Error::GeneratorExit;
        loop {
            let depth = self.below.len();
            self.put_error(error);
            let yielded = self.run(depth);
            if depth == base {
                return yielded;
            }
            // An error that the frame ended with comes before the GeneratorExit: see `YieldFrom`.
            error = match yielded {
                None => Error::GeneratorExit,
                Some(_) => {
                    self.discard(depth);
                    Error::IgnoredGeneratorExit
                }
            };
        }
    }

    /// Lets go of the frames from `depth` upwards. Like CPython's finaliser it tells each to close, and what such a
    /// frame began instead; then it drops them where they stand.
    fn discard(&mut self, depth: usize) {
        let mut level = depth;
        while self.exit(level).is_some() && self.below.len() > level {
            level += 1;
        }
        while self.top.is_some() && self.below.len() >= depth {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Frame<'a, Y, S, E>> {
        std::mem::replace(&mut self.top, self.below.pop())
    }
}

impl<Y, S, E> Drop for Stack<'_, Y, S, E> {
    fn drop(&mut self) {
        if self.state == State::Suspended {
            self.state = State::Closed;
            self.discard(0);
        }
        self.clear();
    }
}
