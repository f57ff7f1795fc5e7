//! Functions that worker processes of a Rust program run: how they are named, sent and called.
//!
//! The worker is the program itself, started again. A remote function is a static, so that its place in the
//! executable says which one it is: there is no table of names and nothing to register. Both sides check that the
//! place lies in the executable and that what stands there is a remote function.

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::task::Poll;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::Message;
use super::worker::{Request, WorkerLink};

/// A function that worker processes can run: what [`#[ropewalk::remote]`](macro@crate::remote) makes of one.
///
/// It can still be called as the function that it was.
#[repr(C)]
pub struct Remote<F> {
    magic: u64,
    run: fn(&[u8]) -> Answer,
    function: F,
}

/// Stands at the start of each [`Remote`].
const MAGIC: u64 = u64::from_le_bytes(*b"ropewalk");

impl<F> Remote<F> {
    #[doc(hidden)]
    pub const fn new(function: F, run: fn(&[u8]) -> Answer) -> Self {
        Self {
            magic: MAGIC,
            run,
            function,
        }
    }

    /// Where it stands in the executable; `None` if it is in a library, which a worker may have elsewhere.
    pub(super) fn place(&'static self) -> Option<u64> {
        let (start, end) = executable();
        let address = std::ptr::from_ref(self) as usize;
        (start..end).contains(&address).then(|| (address - start) as u64)
    }
}

impl<F> Deref for Remote<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.function
    }
}

/// The signature of a remote function: `fn(A, B, ...) -> T` of up to eight arguments, all of them owned.
pub trait Signature: Copy + Send + Sync + 'static {
    /// The arguments, as a tuple.
    type Arguments: Serialize + DeserializeOwned;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! signatures {
    ($($argument:ident)*) => {
        impl<$($argument,)* T> Signature for fn($($argument),*) -> T
        where
            $($argument: Serialize + DeserializeOwned + 'static,)*
            T: Serialize + DeserializeOwned + Send + 'static,
        {
            type Arguments = ($($argument,)*);
            type Output = T;
        }
    };
}

signatures!();
signatures!(A);
signatures!(A B);
signatures!(A B C);
signatures!(A B C D);
signatures!(A B C D E);
signatures!(A B C D E G);
signatures!(A B C D E G H);
signatures!(A B C D E G H I);

/// What kind of answer a worker gives; the status of the message.
pub(super) mod status {
    pub(crate) const RETURNED: u8 = 0;
    pub(crate) const PANICKED: u8 = 1;
    pub(crate) const UNREADABLE: u8 = 2;
}

/// A worker's answer to a call.
#[doc(hidden)]
pub struct Answer {
    status: u8,
    bytes: Vec<u8>,
}

impl Answer {
    /// Reads the arguments, makes the call and writes down what came of it.
    #[doc(hidden)]
    pub fn of<A: DeserializeOwned, T: Serialize>(arguments: &[u8], call: impl FnOnce(A) -> T) -> Self {
        let unreadable = |error: postcard::Error| Self {
            status: status::UNREADABLE,
            bytes: error.to_string().into_bytes(),
        };
        let arguments = match postcard::from_bytes(arguments) {
            Ok(arguments) => arguments,
            Err(error) => return unreadable(error),
        };
        let answer = panic::catch_unwind(AssertUnwindSafe(|| postcard::to_allocvec(&call(arguments))));
        match answer {
            Ok(Ok(bytes)) => Self {
                status: status::RETURNED,
                bytes,
            },
            Ok(Err(error)) => unreadable(error),
            Err(payload) => Self {
                status: status::PANICKED,
                bytes: panic_message(&*payload).into(),
            },
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// A call as a message.
pub(super) fn call<F: Signature>(
    function: &'static Remote<F>,
    arguments: &F::Arguments,
) -> Result<Message, String> {
    let place = function
        .place()
        .ok_or("a remote function must be in the executable and not in a library")?;
    let bytes = postcard::to_allocvec(arguments).map_err(|error| error.to_string())?;
    Message::new(&[&place.to_le_bytes(), &bytes]).map_err(|error| error.to_string())
}

/// Where the executable lies in memory.
fn executable() -> (usize, usize) {
    unsafe extern "C" {
        static __executable_start: u8;
        static _end: u8;
    }
    // The linker defines both; only their addresses are taken.
    (&raw const __executable_start as usize, &raw const _end as usize)
}

fn run(message: &Message) -> Answer {
    let mut parts = message.parts();
    let (place, arguments) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(remote) = <[u8; 8]>::try_from(place)
        .ok()
        .and_then(|place| find(u64::from_le_bytes(place)))
    else {
        return Answer {
            status: status::UNREADABLE,
            bytes: b"no remote function is there in the worker's executable".to_vec(),
        };
    };
    (remote.run)(arguments)
}

fn find(place: u64) -> Option<&'static Remote<()>> {
    let (start, end) = executable();
    let address = start.checked_add(usize::try_from(place).ok()?)?;
    let room = end.checked_sub(address)?;
    let remote = address as *const Remote<()>;
    if room < size_of::<Remote<()>>() || !remote.is_aligned() {
        return None;
    }
    // SAFETY: in the executable, which is mapped from start to end, and aligned; any bytes make an integer.
    let magic = unsafe { (&raw const (*remote).magic).read() };
    if magic != MAGIC {
        return None;
    }
    // SAFETY: the pool is this very executable and sent the place of one of its statics; the magic number agrees.
    // `repr(C)` puts the fields that are read at the same place whatever the function's type.
    Some(unsafe { &*remote })
}

/// In the environment of a process: it is a worker.
const WORKER: &str = "ROPEWALK_WORKER";

/// The command that starts this program again, as a worker.
pub(super) fn command() -> Command {
    // The link that the kernel keeps leads to the very file that runs, even when its name no longer does.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.env(WORKER, "1");
    command
}

/// Runs before `main`, in every program that has this crate in it.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    if std::env::var_os(WORKER).is_none() {
        return;
    }
    // SAFETY: no other thread is there yet. What this process starts is no worker.
    unsafe { std::env::remove_var(WORKER) };
    // SAFETY: as the runtime does before `main`: a closed pipe is an error and not the end.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    std::process::exit(match work() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ropewalk worker: {error}");
            1
        }
    });
}

fn work() -> io::Result<()> {
    let mut link = WorkerLink::from_stdin()?;
    loop {
        match link.poll()? {
            Poll::Pending => link.wait(),
            Poll::Ready(None) => return Ok(()),
            Poll::Ready(Some(Request::Setup(message))) => {
                if message.count() > 0 {
                    let answer = run(&message);
                    if answer.status != status::RETURNED {
                        let why = String::from_utf8_lossy(&answer.bytes);
                        return link.not_ready(&format!("the initializer failed: {why}"));
                    }
                }
                link.ready()?;
            }
            // Functions are places here: there is nothing to define.
            Poll::Ready(Some(Request::Define(..))) => {}
            Poll::Ready(Some(Request::Task { message, .. })) => {
                let answer = run(&message);
                drop(message);
                link.reply(answer.status, Message::new(&[&answer.bytes])?)?;
            }
        }
    }
}
