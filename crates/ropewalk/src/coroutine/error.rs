use std::convert::Infallible;
use std::fmt;

/// What can be raised in a coroutine and out of it; `E` is the coroutine's own error type.
///
/// One type for both sides, as in Python: what [`throw`](super::Coroutine::throw) passes in arrives at the
/// body's yield, and what the body does not handle reaches the caller. `From<E>` makes `?` work on own errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error<E = Infallible> {
    /// The coroutine's own error, raised in its body or thrown into it.
    Raised(E),
    /// The coroutine is being closed: `GeneratorExit`. Clean up and pass it on with `?`.
    GeneratorExit,
    /// Resumed after its end: `StopIteration` without a value.
    Finished,
    /// A value was sent before the first yield: `TypeError`. Start with `next` or `prime`.
    NotStarted,
    /// `prime` of a coroutine that has been started before.
    AlreadyStarted,
    /// Resumed from inside itself: `ValueError`.
    AlreadyExecuting,
    /// Yielded when told to close: `RuntimeError`. It is still suspended.
    IgnoredGeneratorExit,
    /// The body let [`Finished`](Self::Finished) escape: `RuntimeError` (PEP 479).
    RaisedStopIteration,
    /// A value was sent while `yield_from_iter` delegates to an iterator: `AttributeError`.
    NoSend,
    /// The body awaited something that is no yield of its own; its coroutine is closed.
    ForeignAwait,
}

impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Error::Raised(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Raised(error) => return error.fmt(f),
            Error::GeneratorExit => "coroutine exit",
            Error::Finished => "coroutine has finished",
            Error::NotStarted => "can't send a value to a just-started coroutine",
            Error::AlreadyStarted => "coroutine already started",
            Error::AlreadyExecuting => "coroutine already executing",
            Error::IgnoredGeneratorExit => "coroutine ignored GeneratorExit",
            Error::RaisedStopIteration => "coroutine raised StopIteration",
            Error::NoSend => "can't send a value to an iterator",
            Error::ForeignAwait => "coroutine awaited something other than its own yield",
        })
    }
}

impl<E: std::error::Error> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Raised(error) => error.source(),
            _ => None,
        }
    }
}
