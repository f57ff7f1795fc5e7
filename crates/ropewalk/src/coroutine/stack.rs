//! The frames of a coroutine and of everything it delegates to, and the trampoline that drives them.
//!
//! `yield_from` does not run the sub-coroutine from inside the delegating body: it hands it to the driver,
//! which pushes it here and from then on resumes the topmost frame alone. A chain of any depth thus costs what
//! one coroutine costs, and neither driving nor dropping it recurses.

use std::pin::Pin;

use super::channel::Input;
use super::error::Error;
use super::state::State;

/// What is driven: the body of a coroutine. It leaves its result where its coroutine looks for it, so that bodies are
/// of one type whatever they return.
pub(super) trait Body<'a, Y, S, E> {
    /// Runs it until it waits for its caller, whom it hands the value, or until it stops for another reason.
    fn resume(self: Pin<&mut Self>, input: Input<S>) -> Option<Y>;

    /// That reason.
    fn stopped(&self) -> Stopped<'a, Y, S, E>;

    /// What `Input::Thrown` will raise.
    fn throw(&self, error: Error<E>);
}

pub(super) type Frame<'a, Y, S, E> = Pin<Box<dyn Body<'a, Y, S, E> + 'a>>;

pub(super) enum Stopped<'a, Y, S, E> {
    Ended,
    /// A `yield_from` begins: drive these frames, the topmost with this input, until the lowest of them ends.
    Delegated(Stack<'a, Y, S, E>, Input<S>),
    /// It waits for something that its driver knows nothing of.
    Foreign,
}

/// Created, Suspended or Closed: see `state`. That the coroutine is running shows in its stack being borrowed.
pub(super) struct Stack<'a, Y, S, E> {
    /// Resumed before.
    started: bool,
    /// The innermost frame, the only one that is resumed; none once the coroutine is closed.
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

    /// Runs from the start.
    pub(super) fn start(&mut self) -> Option<Y> {
        self.started = true;
        self.resume(Input::Nothing)
    }

    /// Runs what is on top until something is yielded, or until the outermost body has ended: `None`.
    #[inline]
    pub(super) fn resume(&mut self, input: Input<S>) -> Option<Y> {
        self.guarded(|stack| stack.run(0, input))
    }

    /// Raises `error` at the innermost yield. `GeneratorExit` is not passed inwards as such: it closes the
    /// sub-coroutines and is then raised in the outermost body (PEP 380).
    pub(super) fn throw(&mut self, error: Error<E>) -> Option<Y> {
        self.guarded(|stack| match error {
            Error::GeneratorExit => stack.exit(0),
            error => {
                let input = stack.throwing(error);
                stack.run(0, input)
            }
        })
    }

    fn throwing(&mut self, error: Error<E>) -> Input<S> {
        if let Some(top) = &self.top {
            top.throw(error);
        }
        Input::Thrown
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

    /// Resumes the topmost frame until something is yielded, or until the frame at `base` has ended: `None`.
    #[inline]
    fn run(&mut self, base: usize, mut input: Input<S>) -> Option<Y> {
        while let Some(top) = &mut self.top {
            if let Some(value) = top.as_mut().resume(input) {
                return Some(value);
            }
            input = self.ended_or_delegated();
            if self.below.len() < base {
                return None;
            }
        }
        None
    }

    /// Pops or pushes frames, and gives the input for what is then on top.
    #[cold]
    fn ended_or_delegated(&mut self) -> Input<S> {
        match self.top.as_ref().map(|top| top.stopped()) {
            Some(Stopped::Delegated(mut stack, input)) => {
                self.below.extend(self.top.take());
                self.below.append(&mut stack.below);
                self.top = stack.top.take();
                input
            }
            Some(Stopped::Foreign) => {
                self.pop();
                self.throwing(Error::ForeignAwait)
            }
            Some(Stopped::Ended) | None => {
                self.pop();
                Input::Nothing
            }
        }
    }

    /// Raises GeneratorExit in every frame down to `base`, innermost first, each run to its end. `None` when
    /// that of `base` ended, otherwise what it yielded instead.
    fn exit(&mut self, base: usize) -> Option<Y> {
        let mut error = Error::GeneratorExit;
        loop {
            let depth = self.below.len();
            let input = self.throwing(error);
            let yielded = self.run(depth, input);
            if depth == base {
                return yielded;
            }
            // An error that the frame ended with comes before the GeneratorExit: see `Cold::joined`.
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
