//! A call on its way through the pool, and what becomes of it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::message::Message;
use crate::sync::lock;

/// What a worker needs once before it can run tasks that refer to it: a function, by whatever means a face sends
/// functions.
#[derive(Debug)]
pub struct Definition {
    /// What tasks call it. Not zero, and never used again for anything else in the same pool.
    pub(super) number: u64,
    pub(super) message: Mutex<Message>,
}

impl Definition {
    /// Gives `message` a number that is its own in this process.
    pub fn new(message: Message) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            // Relaxed: numbers need only differ.
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            message: Mutex::new(message),
        })
    }
}

/// How a worker's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The process.
    pub pid: u32,
    /// How it ended.
    pub cause: Cause,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal ended it.
    Signal(i32),
    /// It exited with this code.
    Exit(i32),
    /// Something else in this program waited for it first.
    Unknown,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = self.pid;
        match self.cause {
            Cause::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "worker process {pid} was ended by signal {signal} ({name})"),
                None => write!(f, "worker process {pid} was ended by signal {signal}"),
            },
            Cause::Exit(code) => write!(f, "worker process {pid} exited with code {code}"),
            Cause::Unknown => write!(f, "worker process {pid} ended"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// What became of a task.
#[derive(Debug)]
pub enum Outcome {
    /// The worker answered.
    Returned {
        /// The face's own word for what kind of answer it is.
        status: u8,
        /// The answer.
        message: Message,
    },
    /// It was cancelled before it began, or while it ran.
    Cancelled,
    /// Its worker died, and it had no retries left.
    Died(Death),
    /// It ran longer than it may. Its worker was ended.
    TimedOut,
    /// The pool cannot run tasks any more: why.
    Broken(Arc<str>),
}

/// Who is told the outcome of a task.
pub trait Receiver: Send + Sync + 'static {
    /// Takes the outcome. Called once, by any thread, under no lock; should be quick, and must not panic.
    fn receive(&self, outcome: Outcome);
}

/// What a face says of a task.
#[derive(Debug, Default)]
pub struct Limits {
    /// The longest that it may run, counted from when a worker begins it.
    pub timeout: Option<Duration>,
    /// How often it is run again if its worker dies under it.
    pub retries: u32,
}

/// A call in the pool.
pub struct Job<R: ?Sized = dyn Receiver> {
    /// What to send. Gone when the task is over.
    pub(super) message: Mutex<Option<Message>>,
    pub(super) definition: Option<Arc<Definition>>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: AtomicU32,
    /// Where the task is: see [`Place`]. Written under the pool's lock.
    place: AtomicU64,
    /// Who is told.
    pub receiver: R,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no queue: not yet submitted, or over.
    Nowhere,
    /// In the pool's queue.
    Queued,
    /// Sent to the worker of this number.
    Sent(u32),
}

const NOWHERE: u64 = u64::MAX;
const QUEUED: u64 = u64::MAX - 1;

impl<R: Receiver> Job<R> {
    /// A task that sends `message`, after `definition` if the worker does not have that yet.
    pub fn new(
        message: Message,
        definition: Option<Arc<Definition>>,
        limits: Limits,
        receiver: R,
    ) -> Arc<Self> {
        Arc::new(Self {
            message: Mutex::new(Some(message)),
            definition,
            timeout: limits.timeout,
            retries: AtomicU32::new(limits.retries),
            place: AtomicU64::new(NOWHERE),
            receiver,
        })
    }
}

impl<R: ?Sized> Job<R> {
    pub(super) fn place(&self) -> Place {
        // Relaxed: read and written under the pool's lock.
        match self.place.load(Ordering::Relaxed) {
            NOWHERE => Place::Nowhere,
            QUEUED => Place::Queued,
            worker => Place::Sent(worker as u32),
        }
    }

    pub(super) fn set_place(&self, place: Place) {
        let place = match place {
            Place::Nowhere => NOWHERE,
            Place::Queued => QUEUED,
            Place::Sent(worker) => worker.into(),
        };
        self.place.store(place, Ordering::Relaxed);
    }
}

impl Job {
    /// Ends the task. Under no lock.
    pub(super) fn finish(&self, outcome: Outcome) {
        drop(lock(&self.message).take());
        self.receiver.receive(outcome);
    }
}
