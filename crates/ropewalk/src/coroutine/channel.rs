//! What passes between a body and its driver.

use std::cell::Cell;

use super::coroutine::{Coroutine, Outcome};
use super::error::Error;
use super::stack::Stopped;
use super::state::State;

/// To a body that waits at a yield.
pub(super) enum Input<S> {
    /// It starts, or what it waits for is the end of a sub-coroutine, or it has only just begun to wait.
    Nothing,
    Sent(S),
    /// By `next`. Told apart from `Sent` because an iterator takes `next` only.
    Next(S),
    /// The error lies in the body's `Cold`, so that moving a value never moves the room for one.
    Thrown,
}

/// What passes rarely between a body and its driver.
pub(super) struct Cold<'a, Y, S, E>(Cell<Notice<'a, Y, S, E>>);

enum Notice<'a, Y, S, E> {
    Nothing,
    /// To the body.
    Thrown(Error<E>),
    /// From the body.
    Stopped(Stopped<'a, Y, S, E>),
}

impl<S> Input<S> {
    /// What a yield gives, once there is something.
    #[inline]
    pub(super) fn received<Y, E>(self, cold: &Cold<'_, Y, S, E>) -> Option<Result<S, Error<E>>> {
        match self {
            Input::Nothing => None,
            Input::Sent(value) | Input::Next(value) => Some(Ok(value)),
            Input::Thrown => cold.thrown().map(Err),
        }
    }

    /// Whether an iterator that is delegated to goes on. It takes `next` alone; a thrown StopIteration ends it, as
    /// in CPython from 3.12 on.
    pub(super) fn received_next<Y, E>(self, cold: &Cold<'_, Y, S, E>) -> Option<Result<bool, Error<E>>> {
        match self {
            Input::Nothing => None,
            Input::Next(_) => Some(Ok(true)),
            Input::Sent(_) => Some(Err(Error::NoSend)),
            Input::Thrown => match cold.thrown()? {
                Error::Finished => Some(Ok(false)),
                error => Some(Err(error)),
            },
        }
    }
}

impl<'a, Y, S, E> Cold<'a, Y, S, E> {
    pub(super) fn new() -> Self {
        Cold(Cell::new(Notice::Nothing))
    }

    pub(super) fn throw(&self, error: Error<E>) {
        self.0.set(Notice::Thrown(error));
    }

    pub(super) fn clear(&self) {
        self.0.set(Notice::Nothing);
    }

    // Kept out of line: inlined, its room on the stack would cost every switch.
    #[cold]
    #[inline(never)]
    pub(super) fn thrown(&self) -> Option<Error<E>> {
        match self.0.replace(Notice::Nothing) {
            Notice::Thrown(error) => Some(error),
            _ => None,
        }
    }

    pub(super) fn stop(&self, stopped: Stopped<'a, Y, S, E>) {
        self.0.set(Notice::Stopped(stopped));
    }

    pub(super) fn stopped(&self) -> Stopped<'a, Y, S, E> {
        match self.0.replace(Notice::Nothing) {
            Notice::Stopped(stopped) => stopped,
            _ => Stopped::Foreign,
        }
    }

    /// Begins a `yield_from`: the driver goes on with `sub` once the body has given up control.
    pub(super) fn delegate<R>(&self, sub: Coroutine<'a, Y, S, R, E>) -> Result<Outcome<R, E>, Error<E>>
    where
        S: Default,
    {
        let (stack, outcome) = sub.into_parts();
        let input = match stack.state() {
            State::Created => Input::Nothing,
            State::Suspended => Input::Next(S::default()),
            _ => return Err(Error::Finished),
        };
        self.stop(Stopped::Delegated(stack, input));
        Ok(outcome)
    }

    /// Ends a `yield_from`: what the sub-coroutine left, or what is raised here instead. An error of its clean-up
    /// comes before the GeneratorExit that it was closed for.
    pub(super) fn joined<R>(&self, outcome: &Outcome<R, E>) -> Option<Result<R, Error<E>>> {
        let result = outcome.take();
        match (self.thrown(), &result) {
            (None, _) => result,
            (Some(Error::GeneratorExit), Some(Err(error))) if !matches!(error, Error::GeneratorExit) => {
                result
            }
            (Some(thrown), _) => Some(Err(thrown)),
        }
    }
}
