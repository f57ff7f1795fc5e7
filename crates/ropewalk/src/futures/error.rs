use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(all(target_os = "linux", not(loom)))]
use super::process_pool::Death;

/// Why a call has no result.
///
/// Opaque, with a predicate for each case that a caller can act on.
///
/// ```
/// use ropewalk::futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new();
/// let error = pool.submit(|| -> i32 { panic!("no flag for {}", "Atlantis") })?.result().unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.to_string(), "the call panicked: no flag for Atlantis");
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Kind);

/// The cases.
#[derive(Clone)]
pub(crate) enum Kind {
    Cancelled,
    TimedOut {
        unfinished: Option<(usize, usize)>,
    },
    Panicked(Arc<Panic>),
    #[cfg(all(target_os = "linux", not(loom)))]
    Failed(Failure),
    Taken,
    Full,
    Shutdown,
    Broken(Arc<str>),
    #[cfg(all(target_os = "linux", not(loom)))]
    Died(Death),
    #[cfg(all(target_os = "linux", not(loom)))]
    Unsendable(Arc<str>),
    Invalid(&'static str),
}

/// A failure that is no panic.
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) type Failure = Arc<dyn std::error::Error + Send + Sync>;

/// A panic on its way to whoever asks for the result.
pub(crate) struct Panic {
    message: Option<String>,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Error {
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Kind::Panicked(Arc::new(Panic {
            message,
            payload: Mutex::new(Some(payload)),
        }))
        .into()
    }

    /// The call was cancelled before it began.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Kind::Cancelled)
    }

    /// The time that the caller allowed is over; the call itself goes on.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::TimedOut { .. })
    }

    /// The call panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked(_))
    }

    /// What the call failed with, if that is a coroutine: one that returned an error. Calls in threads and processes return errors as their
    /// results.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub fn failure(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match &self.0 {
            Kind::Failed(failure) => Some(&**failure),
            _ => None,
        }
    }

    /// The result has been taken before, by another caller of `result`.
    pub fn is_taken(&self) -> bool {
        matches!(self.0, Kind::Taken)
    }

    /// The executor's queue is full, and waiting for room would wait for the caller itself.
    pub fn is_full(&self) -> bool {
        matches!(self.0, Kind::Full)
    }

    /// The executor takes no more calls because it was shut down.
    pub fn is_shutdown(&self) -> bool {
        matches!(self.0, Kind::Shutdown)
    }

    /// The executor cannot run anything any more (Python: `BrokenExecutor`).
    pub fn is_broken(&self) -> bool {
        matches!(self.0, Kind::Broken(_))
    }

    /// How the worker process ended that died under the call (Python: `WorkerDied`).
    #[cfg(all(target_os = "linux", not(loom)))]
    pub fn death(&self) -> Option<Death> {
        match self.0 {
            Kind::Died(death) => Some(death),
            _ => None,
        }
    }

    /// Arguments or a result could not be serialised, or not be read at the other end.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub fn is_unsendable(&self) -> bool {
        matches!(self.0, Kind::Unsendable(_))
    }

    /// What the call panicked with, for `std::panic::resume_unwind`; the first to ask gets it.
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
}

#[cfg(all(target_os = "linux", not(loom)))]
impl Error {
    pub(crate) fn failed(failure: Failure) -> Self {
        Kind::Failed(failure).into()
    }

    pub(crate) fn shared_failure(&self) -> Option<&Failure> {
        match &self.0 {
            Kind::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cancelled => f.write_str("the call was cancelled"),
            Kind::TimedOut { unfinished: None } => f.write_str("the call was not done in time"),
            Kind::TimedOut {
                unfinished: Some((left, all)),
            } => write!(f, "{left} (of {all}) futures unfinished"),
            Kind::Panicked(panic) => match &panic.message {
                Some(message) => write!(f, "the call panicked: {message}"),
                None => f.write_str("the call panicked"),
            },
            #[cfg(all(target_os = "linux", not(loom)))]
            Kind::Failed(failure) => failure.fmt(f),
            Kind::Taken => f.write_str("the result has already been taken"),
            Kind::Full => f.write_str("the queue of this thread's own executor is full"),
            Kind::Shutdown => f.write_str("cannot schedule new futures after shutdown"),
            Kind::Broken(why) => f.write_str(why),
            #[cfg(all(target_os = "linux", not(loom)))]
            Kind::Died(death) => write!(f, "{death} during the call"),
            #[cfg(all(target_os = "linux", not(loom)))]
            Kind::Unsendable(why) => write!(f, "arguments or result cannot be sent: {why}"),
            Kind::Invalid(why) => f.write_str(why),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    #[cfg(all(target_os = "linux", not(loom)))]
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure()?.source()
    }
}
