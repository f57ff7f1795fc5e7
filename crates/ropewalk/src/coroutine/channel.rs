//! What passes between a body and whoever drives it.

use std::cell::Cell;

use super::coroutine::{Coroutine, Outcome};
use super::error::Error;
use super::stack::Stack;
use super::state::State;

/// The two-way channel of one body. A body is polled only by its driver, so either side empties what the other has
/// filled: plain cells will do. Stores are what a switch is made of: each direction has a cell of its own, so that
/// neither needs a mark of whose turn it is, and moving a value never moves the room for an error.
pub(super) struct Channel<'a, Y, S, E> {
    /// From the body: a yield.
    pub(super) yielded: Cell<Option<Y>>,
    pub(super) input: Cell<Input<S>>,
    pub(super) cold: Cell<Cold<'a, Y, S, E>>,
}

/// To the body that waits at a yield.
pub(super) enum Input<S> {
    /// It has only just begun to wait.
    Nothing,
    Sent(S),
    /// By `next`. Told apart from `Sent` because an iterator takes `next` only.
    Next(S),
    /// See `Cold::Thrown`.
    Thrown,
}

pub(super) enum Cold<'a, Y, S, E> {
    Empty,
    /// To the body: raised at its yield.
    Thrown(Error<E>),
    /// From the body: a `yield_from` begins; drive these frames until the lowest of them ends.
    Delegated(Stack<'a, Y, S, E>),
}

impl<'a, Y, S, E> Channel<'a, Y, S, E> {
    pub(super) fn new() -> Self {
        Channel {
            yielded: Cell::new(None),
            input: Cell::new(Input::Nothing),
            cold: Cell::new(Cold::Empty),
        }
    }

    /// What the driver brought to a body that waits at a yield, if it brought anything.
    #[inline]
    pub(super) fn received(&self) -> Option<Result<S, Error<E>>> {
        match self.input.replace(Input::Nothing) {
            Input::Nothing => None,
            Input::Sent(value) | Input::Next(value) => Some(Ok(value)),
            Input::Thrown => self.thrown().map(Err),
        }
    }

    /// The same for an iterator that is delegated to: whether it goes on. It takes `next` alone; a thrown
    /// StopIteration ends it, as in CPython from 3.12 on.
    pub(super) fn received_next(&self) -> Option<Result<bool, Error<E>>> {
        match self.input.replace(Input::Nothing) {
            Input::Nothing => None,
            Input::Next(_) => Some(Ok(true)),
            Input::Sent(_) => Some(Err(Error::NoSend)),
            Input::Thrown => match self.thrown()? {
                Error::Finished => Some(Ok(false)),
                error => Some(Err(error)),
            },
        }
    }

    pub(super) fn throw(&self, error: Error<E>) {
        self.input.set(Input::Thrown);
        self.cold.set(Cold::Thrown(error));
    }

    // Kept out of line: inlined, its room on the stack would cost every switch.
    #[cold]
    #[inline(never)]
    fn thrown(&self) -> Option<Error<E>> {
        match self.cold.replace(Cold::Empty) {
            Cold::Thrown(error) => Some(error),
            _ => None,
        }
    }

    /// Begins a `yield_from`: the driver goes on with `sub` once the body has given up control.
    pub(super) fn delegate<R>(&self, sub: Coroutine<'a, Y, S, R, E>) -> Result<Outcome<R, E>, Error<E>>
    where
        S: Default,
    {
        let (mut stack, outcome) = sub.into_parts();
        match stack.state() {
            State::Created => {}
            State::Suspended => stack.put(Input::Next(S::default())),
            _ => return Err(Error::Finished),
        }
        self.yielded.set(None);
        self.cold.set(Cold::Delegated(stack));
        Ok(outcome)
    }

    /// Ends a `yield_from`: what the sub-coroutine left, or what is raised here instead. An error of its clean-up
    /// comes before the GeneratorExit that it was closed for.
    pub(super) fn joined<R>(&self, outcome: &Outcome<R, E>) -> Option<Result<R, Error<E>>> {
        let result = outcome.take();
        self.input.set(Input::Nothing);
        match (self.thrown(), &result) {
            (None, _) => result,
            (Some(Error::GeneratorExit), Some(Err(error))) if !matches!(error, Error::GeneratorExit) => {
                result
            }
            (Some(thrown), _) => Some(Err(thrown)),
        }
    }
}
