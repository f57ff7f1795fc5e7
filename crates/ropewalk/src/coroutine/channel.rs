//! What passes between a body and whoever drives it.

use std::cell::Cell;

use super::error::Error;
use super::stack::Stack;

/// The two-way channel of one body. Every resume and every yield moves one value through `hot`.
///
/// A body is polled only by its driver, so either side empties what the other has filled: a plain `Cell` will do.
/// What is rare has a cell of its own, so that moving a value never moves the room for an error.
pub(super) struct Channel<'a, Y, S, E> {
    pub(super) hot: Cell<Hot<Y, S>>,
    pub(super) cold: Cell<Cold<'a, Y, S, E>>,
}

pub(super) enum Hot<Y, S> {
    Empty,
    /// From the body: a yield.
    Yielded(Y),
    /// To the body: `send`.
    Sent(S),
    /// To the body: `next`. Told apart from `Sent` because an iterator takes `next` only.
    Next(S),
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
            hot: Cell::new(Hot::Empty),
            cold: Cell::new(Cold::Empty),
        }
    }

    /// What the driver brought to a body that waits at a yield, if it brought anything; `true` marks a `next`.
    #[inline]
    pub(super) fn received(&self) -> Option<Result<(S, bool), Error<E>>> {
        match self.hot.replace(Hot::Empty) {
            Hot::Sent(value) => Some(Ok((value, false))),
            Hot::Next(value) => Some(Ok((value, true))),
            _ => self.thrown().map(Err),
        }
    }

    #[cold]
    pub(super) fn thrown(&self) -> Option<Error<E>> {
        match self.cold.replace(Cold::Empty) {
            Cold::Thrown(error) => Some(error),
            _ => None,
        }
    }
}
