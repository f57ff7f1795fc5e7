//! What an await can fail with: [`Cancelled`], and [`Error`], which holds any failure, as an exception does in Python.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::futures;

/// The outcome of a coroutine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Somebody has asked this task to end (Python: `asyncio.CancelledError`).
///
/// Comes out of the await point at which the task waits. Clean up, with awaits where they are needed, and pass it on by
/// `?`; it becomes an [`Error`], an [`io::Error`] or an error of one's own that implements `From<Cancelled>`.
/// Who keeps it instead should call [`uncancel`](super::AnyTask::uncancel).
///
/// ```
/// use ropewalk::asyncio::{self, Cancelled};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = asyncio::create_task(async {
///         if let Err(cancelled) = asyncio::sleep(Duration::from_secs(3600)).await {
///             assert_eq!(cancelled.message(), Some("too slow"));
///             asyncio::sleep(Duration::ZERO).await?; // clean-up may wait
///             return Err(cancelled.into());
///         }
///         Ok(())
///     });
///     asyncio::sleep(Duration::ZERO).await?;
///     task.cancel_with("too slow");
///     assert!(task.await.unwrap_err().is_cancelled());
///     Ok(())
/// })
/// # .unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    message: Option<Arc<str>>,
}

impl Cancelled {
    pub(super) fn new(message: Option<Arc<str>>) -> Self {
        Self { message }
    }

    pub(super) fn into_message(self) -> Option<Arc<str>> {
        self.message
    }

    /// What [`cancel_with`](super::AnyTask::cancel_with) was told.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "cancelled: {message}"),
            None => f.write_str("cancelled"),
        }
    }
}

impl StdError for Cancelled {}

/// I/O says `io::Error`; that it was cancelled is not lost in it: [`Error::is_cancelled`] finds it there.
impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> Self {
        io::Error::other(cancelled)
    }
}

/// A failure of any kind: an exception.
///
/// Made by `?` from whatever implements [`std::error::Error`], which [`downcast_ref`](Error::downcast_ref) finds again.
/// Clones are the same failure.
///
/// ```
/// use ropewalk::asyncio;
///
/// let outcome = asyncio::run(async { Ok("12 flags".parse::<u32>()?) });
/// let error = outcome.unwrap_err();
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
/// ```
#[derive(Clone)]
pub struct Error(Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Cancelled(Cancelled),
    TimedOut,
    KeyboardInterrupt,
    Panicked(Arc<Panic>),
    Group(Arc<[Error]>),
    Invalid(&'static str),
    Other(Arc<dyn StdError + Send + Sync>),
}

pub(super) struct Panic {
    message: Option<String>,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Error {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(Kind::Panicked(Arc::new(Panic {
            message,
            payload: Mutex::new(Some(payload)),
        })))
    }

    pub(super) fn group(errors: Vec<Error>) -> Self {
        Self(Kind::Group(errors.into()))
    }

    /// Whether it is [`Cancelled`], perhaps within an [`io::Error`] or as the [source](StdError::source) of another error.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled().is_some()
    }

    /// The cancellation that this is; see [`is_cancelled`](Error::is_cancelled).
    pub fn cancelled(&self) -> Option<&Cancelled> {
        match &self.0 {
            Kind::Cancelled(cancelled) => Some(cancelled),
            Kind::Other(error) => find_cancelled(&**error),
            _ => None,
        }
    }

    /// The time that was allowed is over (Python: `TimeoutError`).
    pub fn is_timeout(&self) -> bool {
        match &self.0 {
            Kind::TimedOut => true,
            Kind::Other(error) => {
                let io: Option<&io::Error> = error.downcast_ref();
                let call: Option<&futures::Error> = error.downcast_ref();
                io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
                    || call.is_some_and(futures::Error::is_timeout)
            }
            _ => false,
        }
    }

    /// Ctrl-C was pressed while [`run`](super::run) ran (Python: `KeyboardInterrupt`).
    pub fn is_keyboard_interrupt(&self) -> bool {
        matches!(self.0, Kind::KeyboardInterrupt)
    }

    /// The task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked(_))
    }

    /// A call that was wrong in its place, such as closing a loop that runs (Python: `RuntimeError`).
    pub fn is_misuse(&self) -> bool {
        matches!(self.0, Kind::Invalid(_))
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`]; the first to ask gets it.
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        match self.0 {
            Kind::Panicked(panic) => panic
                .payload
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
            _ => None,
        }
    }

    /// The failures of a [`TaskGroup`](super::TaskGroup), in the order in which they came (Python: `ExceptionGroup`); none if this is a
    /// single failure.
    pub fn exceptions(&self) -> &[Error] {
        match &self.0 {
            Kind::Group(errors) => errors,
            _ => &[],
        }
    }

    /// The error that `?` made this from.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &self.0 {
            Kind::Cancelled(cancelled) => (cancelled as &dyn Any).downcast_ref(),
            Kind::Other(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

pub(super) fn find_cancelled<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Cancelled> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cancelled) = error.downcast_ref() {
            return Some(cancelled);
        }
        // The source of an `io::Error` is the source of what it wraps.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        if let Some(cancelled) = any.downcast_ref::<Cancelled>() {
            return Self(Kind::Cancelled(cancelled.clone()));
        }
        let failure = any.downcast_ref().and_then(futures::Error::shared_failure);
        Self(match failure {
            // A coroutine's own error, which was on its way through a future of any unit.
            Some(failure) => match failure.downcast_ref() {
                Some(Dressed(error)) => return error.clone(),
                None => Kind::Other(failure.clone()),
            },
            None => Kind::Other(Arc::new(error)),
        })
    }
}

impl Error {
    pub(super) const TIMED_OUT: Self = Self(Kind::TimedOut);
    pub(super) const KEYBOARD_INTERRUPT: Self = Self(Kind::KeyboardInterrupt);

    pub(super) const fn misuse(why: &'static str) -> Self {
        Self(Kind::Invalid(why))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cancelled(cancelled) => cancelled.fmt(f),
            Kind::TimedOut => f.write_str("timed out"),
            Kind::KeyboardInterrupt => f.write_str("interrupted by Ctrl-C"),
            Kind::Panicked(panic) => match &panic.message {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
            Kind::Group(errors) => {
                let plural = if errors.len() == 1 { "" } else { "s" };
                write!(
                    f,
                    "unhandled errors in a TaskGroup ({} sub-exception{plural})",
                    errors.len()
                )?;
                errors
                    .iter()
                    .enumerate()
                    .try_for_each(|(number, error)| write!(f, "\n  {}. {error}", number + 1))
            }
            Kind::Invalid(why) => f.write_str(why),
            Kind::Other(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Other(error) => error.fmt(f),
            _ => write!(f, "{self}"),
        }
    }
}

/// An [`Error`] in the clothes of the standard library's trait, which it cannot implement itself without giving up
/// the conversion by `?`.
struct Dressed(Error);

impl fmt::Display for Dressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Dressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Dressed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.0 {
            Kind::Cancelled(cancelled) => Some(cancelled),
            Kind::Other(error) => Some(&**error),
            _ => None,
        }
    }
}

/// For a future that threads, processes and coroutines have in common.
impl From<Error> for futures::Error {
    fn from(error: Error) -> Self {
        match error.0 {
            Kind::Panicked(_) => match error.clone().into_panic() {
                Some(payload) => Self::panicked(payload),
                None => Self::failed(Arc::new(Dressed(error))),
            },
            Kind::Other(failure) => Self::failed(failure),
            _ => Self::failed(Arc::new(Dressed(error))),
        }
    }
}

impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        Box::new(Dressed(error))
    }
}

impl From<Error> for Box<dyn StdError> {
    fn from(error: Error) -> Self {
        Box::new(Dressed(error))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.0 {
            Kind::TimedOut => io::ErrorKind::TimedOut,
            Kind::Other(inner) => match inner.downcast_ref::<io::Error>() {
                Some(inner) => inner.kind(),
                None => io::ErrorKind::Other,
            },
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, Dressed(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Mine(Cancelled);

    impl fmt::Display for Mine {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("mine")
        }
    }

    impl StdError for Mine {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn cancelled() -> Cancelled {
        Cancelled::new(Some("why".into()))
    }

    #[test]
    fn a_cancellation_is_found_in_whatever_it_became() {
        let plain = Error::from(cancelled());
        let in_io = Error::from(io::Error::from(cancelled()));
        let in_mine = Error::from(Mine(cancelled()));
        let there_and_back = Error::from(io::Error::from(Error::from(cancelled())));
        for error in [plain, in_io, in_mine, there_and_back] {
            assert_eq!(error.cancelled(), Some(&cancelled()), "{error:?}");
            assert!(!error.is_timeout() && !error.is_panic() && !error.is_misuse());
        }
        assert!(!Error::from(io::Error::other("no")).is_cancelled());
    }

    #[test]
    fn what_it_was_made_from_is_found_again() {
        let error = Error::from(Mine(cancelled()));
        assert!(error.downcast_ref::<Mine>().is_some());
        assert!(error.downcast_ref::<io::Error>().is_none());
        assert!(Error::from(cancelled()).downcast_ref::<Cancelled>().is_some());
    }

    #[test]
    fn a_timeout_is_one_in_io_errors_too() {
        let error = io::Error::from(Error::TIMED_OUT);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Error::from(error).is_timeout());
    }

    #[test]
    fn a_panic_is_carried_once() {
        let error = Error::panicked(Box::new("boom"));
        assert_eq!(error.to_string(), "the task panicked: boom");
        let payload = error.clone().into_panic().expect("the first gets it");
        assert_eq!(payload.downcast_ref(), Some(&"boom"));
        assert!(error.into_panic().is_none());
    }

    #[test]
    fn a_group_tells_all_its_errors() {
        let group = Error::group(vec![Error::TIMED_OUT, Error::misuse("no")]);
        assert_eq!(group.exceptions().len(), 2);
        assert_eq!(
            group.to_string(),
            "unhandled errors in a TaskGroup (2 sub-exceptions)\n  1. timed out\n  2. no"
        );
    }
}
