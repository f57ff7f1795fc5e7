//! The frames of a coroutine and of everything it delegates to, and the trampoline that drives them.
//!
//! `yield_from` does not poll the sub-coroutine from inside the delegating body: it hands it to the driver,
//! which pushes it here and from then on polls the topmost frame alone. A chain of any depth thus costs what
//! one coroutine costs, and neither driving nor dropping it recurses.

use std::pin::Pin;
use std::rc::Rc;

use super::channel::{Channel, Cold, Input};
use super::error::Error;
use super::state::State;

/// One body. It leaves its result where its own kind of coroutine looks for it, so that frames are of one type
/// whatever they return.
pub(super) struct Frame<'a, Y, S, E> {
    pub(super) body: Pin<Box<dyn Body + 'a>>,
    pub(super) channel: Rc<Channel<'a, Y, S, E>>,
}

pub(super) trait Body {
    /// Runs it until it waits: for its caller, or for a sub-coroutine. True once it has ended.
    fn run(self: Pin<&mut Self>) -> bool;
}

/// Created, Suspended or Closed: see `state`. That the coroutine is running shows in its stack being borrowed.
pub(super) struct Stack<'a, Y, S, E> {
    /// Resumed before.
    started: bool,
    /// The innermost frame, the only one that is polled; none once the coroutine is closed.
    top: Option<Frame<'a, Y, S, E>>,
    /// Those that delegate, the outermost first: the frame at index `i` waits for the one at `i + 1`.
    below: Vec<Frame<'a, Y, S, E>>,
}

impl<'a, Y, S, E> Stack<'a, Y, S, E> {
    pub(super) fn new(frame: Frame<'a, Y, S, E>) -> Self {
        Stack {
            started: false,
            top: Some(frame),
            below: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        match (&self.top, self.started) {
            (None, _) => State::Closed,
            (Some(_), false) => State::Created,
            (Some(_), true) => State::Suspended,
        }
    }

    /// Puts a value before the topmost body.
    #[inline]
    pub(super) fn put(&mut self, input: Input<S>) {
        if let Some(top) = &self.top {
            top.channel.input.set(input);
        }
    }

    fn put_error(&mut self, error: Error<E>) {
        if let Some(top) = &self.top {
            top.channel.throw(error);
        }
    }

    /// Runs from the start.
    pub(super) fn start(&mut self) -> Option<Y> {
        self.started = true;
        self.resume()
    }

    /// Runs what is on top until something is yielded, or until the outermost body has ended: `None`.
    #[inline]
    pub(super) fn resume(&mut self) -> Option<Y> {
        self.guarded(|stack| stack.run(0))
    }

    /// Raises `error` at the innermost yield. `GeneratorExit` is not passed inwards as such: it closes the
    /// sub-coroutines and is then raised in the outermost body (PEP 380).
    pub(super) fn throw(&mut self, error: Error<E>) -> Option<Y> {
        if let Error::GeneratorExit = error {
            return self.guarded(|stack| stack.exit(0));
        }
        self.put_error(error);
        self.resume()
    }

    /// A panic in a body closes the coroutine on its way to the caller; without one the guard costs nothing.
    #[inline]
    fn guarded(&mut self, run: impl FnOnce(&mut Self) -> Option<Y>) -> Option<Y> {
        struct ClearOnPanic<'s, 'a, Y, S, E>(&'s mut Stack<'a, Y, S, E>);
        impl<Y, S, E> Drop for ClearOnPanic<'_, '_, Y, S, E> {
            fn drop(&mut self) {
                self.0.clear();
            }
        }
        let guard = ClearOnPanic(self);
        let yielded = run(guard.0);
        std::mem::forget(guard);
        yielded
    }

    /// Drops all frames, innermost first.
    pub(super) fn clear(&mut self) {
        while let Some(frame) = self.pop() {
            drop(frame);
        }
    }

    /// Polls the topmost frame until something is yielded, or until the frame at `base` has ended: `None`.
    #[inline]
    fn run(&mut self, base: usize) -> Option<Y> {
        while let Some(top) = &mut self.top {
            let ended = top.body.as_mut().run();
            if !ended && let Some(value) = top.channel.yielded.take() {
                return Some(value);
            }
            self.ended_or_delegated(ended);
            if self.below.len() < base {
                return None;
            }
        }
        None
    }

    #[cold]
    fn ended_or_delegated(&mut self, ended: bool) {
        if ended {
            self.pop();
            return;
        }
        let Some(top) = &self.top else { return };
        if let Cold::Delegated(mut stack) = top.channel.cold.replace(Cold::Empty) {
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
        if self.state() == State::Suspended {
            self.discard(0);
        }
        self.clear();
    }
}
