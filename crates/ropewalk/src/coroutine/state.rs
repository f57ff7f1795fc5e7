/// Where a coroutine is in its life, as `inspect.getgeneratorstate` tells it for a Python generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Made, not yet started: `GEN_CREATED`.
    Created,
    /// Being resumed just now: `GEN_RUNNING`.
    Running,
    /// Stopped at a yield: `GEN_SUSPENDED`.
    Suspended,
    /// Returned, failed or closed: `GEN_CLOSED`.
    Closed,
}

/// The name in capitals, as the Python package spells it: `SUSPENDED`.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Created => "CREATED",
            State::Running => "RUNNING",
            State::Suspended => "SUSPENDED",
            State::Closed => "CLOSED",
        })
    }
}

/// What a resumed coroutine came to: its next yielded value, or its end.
///
/// Python raises `StopIteration(value)` for the end; here it is a value like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step<Y, R> {
    /// It stopped at a yield and handed this out.
    Yielded(Y),
    /// It ran to its end and returned this.
    Returned(R),
}

impl<Y, R> Step<Y, R> {
    /// The yielded value, if it is one.
    pub fn yielded(self) -> Option<Y> {
        match self {
            Step::Yielded(value) => Some(value),
            Step::Returned(_) => None,
        }
    }

    /// The returned value, if it is one: `StopIteration.value`.
    pub fn returned(self) -> Option<R> {
        match self {
            Step::Yielded(_) => None,
            Step::Returned(value) => Some(value),
        }
    }
}
