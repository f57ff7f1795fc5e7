//! Signals as callbacks of a loop.
//!
//! The system's handler adds to an eventfd and nothing else; the loop that has a callback for the signal reads it. The eventfds, one
//! for a signal, are never closed: a handler that runs in another thread just now may still write to its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::error::{Error, Result};
use super::event_loop::EventLoop;

pub use libc::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

/// Signals have numbers from 1 to 64.
const COUNT: usize = 65;

/// The eventfd of each signal; -1 until it is first handled.
static BELLS: [AtomicI32; COUNT] = [const { AtomicI32::new(-1) }; COUNT];

/// Whether a loop handles the signal.
static TAKEN: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

extern "C" fn ring(signal: libc::c_int) {
    // Relaxed: the number was stored before this handler was installed, by a system call.
    let bell = BELLS[signal as usize].load(Ordering::Relaxed);
    // SAFETY: only functions that are allowed in a signal handler; the eventfd is never closed; `errno` is this
    // thread's own and is left as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(bell, (&raw const ONE).cast(), size_of::<u64>());
        *errno = before;
    }
}

static ONE: u64 = 1;

fn handler() -> libc::sighandler_t {
    ring as extern "C" fn(libc::c_int) as libc::sighandler_t
}

/// What a signal does: a handler, or `SIG_DFL`, or `SIG_IGN`.
fn action(signal: libc::c_int) -> libc::sighandler_t {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a `sigaction` by default, which is what is left there for what is no signal.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    }
}

/// Whether a signal does what it does in a process that has never heard of it.
pub(super) fn is_default(signal: libc::c_int) -> bool {
    action(signal) == libc::SIG_DFL
}

/// Takes the arrivals of a signal, if there were any.
pub(super) fn take(bell: &OwnedFd) -> bool {
    rustix::io::read(bell, &mut [0; 8]).is_ok()
}

/// The callbacks of one loop, by their signals.
#[derive(Default)]
pub(super) struct Signals(RefCell<HashMap<libc::c_int, Handled>>);

impl Signals {
    pub(super) fn clear(&self) {
        self.0.take();
    }
}

/// A signal that a loop handles, until dropped.
struct Handled {
    signal: libc::c_int,
    before: libc::sigaction,
    bell: OwnedFd,
    /// By `run`, and not by its user.
    implied: bool,
}

impl Handled {
    fn new(signal: libc::c_int, implied: bool) -> Result<Self> {
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
        let index = usize::try_from(signal)
            .ok()
            .filter(|&index| index > 0 && index < COUNT);
        let Some(index) = index.filter(|_| !faults.contains(&signal)) else {
            return Err(Error::misuse(
                "no loop can handle that signal: it is a fault, or no signal",
            ));
        };
        // AcqRel: pairs with the store in `drop`, so that the action that was there before is the one that was put back.
        if TAKEN[index].swap(true, Ordering::AcqRel) {
            return Err(Error::misuse(
                "another event loop handles that signal: remove its handler first",
            ));
        }
        Self::install(signal, index, implied).map_err(|error| {
            TAKEN[index].store(false, Ordering::Release);
            error.into()
        })
    }

    fn install(signal: libc::c_int, index: usize, implied: bool) -> io::Result<Self> {
        // Only who has taken the signal comes here: one thread at a time.
        if BELLS[index].load(Ordering::Relaxed) < 0 {
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            BELLS[index].store(bell.into_raw_fd(), Ordering::Relaxed);
        }
        let number: RawFd = BELLS[index].load(Ordering::Relaxed);
        // SAFETY: never closed.
        let bell = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
        let _stale = take(&bell);
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: all zeros is a `sigaction` without flags or handler; both point to memory of that type, and
        // `sigaction` fills `before` when it succeeds. `ring` may run in any thread at any time.
        unsafe {
            let action = action.assume_init_mut();
            action.sa_sigaction = handler();
            // On the thread's signal stack where it has one: the stack of a coroutine may be too small.
            action.sa_flags =
                libc::SA_RESTART | libc::SA_ONSTACK | if implied { libc::SA_RESETHAND } else { 0 };
            libc::sigemptyset(&raw mut action.sa_mask);
            if libc::sigaction(signal, action, before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                signal,
                before: before.assume_init(),
                bell,
                implied,
            })
        }
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        // Somebody who has installed a handler meanwhile, not by a loop, keeps it.
        if [handler(), libc::SIG_DFL].contains(&action(self.signal)) {
            // SAFETY: puts back what `sigaction` gave.
            unsafe { libc::sigaction(self.signal, &self.before, std::ptr::null_mut()) };
        }
        TAKEN[self.signal as usize].store(false, Ordering::Release);
    }
}

impl EventLoop {
    /// Has `callback` called, as a callback of the loop, after each arrival of a signal, until it is removed or the loop is closed;
    /// replaces one that is there. Arrivals in quick succession may be one.
    ///
    /// What the signal did before (to end the process, say) it does not do meanwhile, and does again afterwards. A handler of
    /// `SIGINT` replaces what [`run`](super::run) does of itself.
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) if another loop handles the signal (as `run` in the main thread does with `SIGINT`), or for what is no signal or means a fault.
    /// The system's for those that nobody can handle: `SIGKILL`, `SIGSTOP`.
    ///
    /// ```
    /// use ropewalk::asyncio::{self, Event, signal};
    /// use std::rc::Rc;
    ///
    /// asyncio::run(async {
    ///     let stop = Rc::new(Event::new());
    ///     let stopper = stop.clone();
    ///     asyncio::get_running_loop()?.add_signal_handler(signal::SIGUSR1, move || stopper.set())?;
    ///     // SAFETY: sends a signal that is handled.
    ///     unsafe { libc::raise(signal::SIGUSR1) };
    ///     stop.wait().await?;
    ///     Ok(())
    /// })
    /// # .unwrap();
    /// ```
    pub fn add_signal_handler(&self, signal: i32, callback: impl FnMut() + 'static) -> Result<()> {
        self.handle_signal(signal, false, callback).map(drop)
    }

    /// Takes the callback of a signal away; says whether there was one.
    ///
    /// # Errors
    /// The system's.
    pub fn remove_signal_handler(&self, signal: i32) -> Result<bool> {
        self.unhandle_signal(signal, false)
    }

    /// Gives the bell of the signal back.
    pub(super) fn handle_signal(
        &self,
        signal: i32,
        implied: bool,
        mut callback: impl FnMut() + 'static,
    ) -> Result<OwnedFd> {
        for implied in [true, false] {
            self.unhandle_signal(signal, implied)?;
        }
        let handled = Handled::new(signal, implied)?;
        let [bell, given] = [handled.bell.try_clone()?, handled.bell.try_clone()?];
        self.add_reader(&handled.bell, move || {
            // Without a number to read, somebody else's turn has had it.
            if take(&bell) {
                callback();
            }
        })?;
        self.0.signals.0.borrow_mut().insert(signal, handled);
        Ok(given)
    }

    pub(super) fn unhandle_signal(&self, signal: i32, implied: bool) -> Result<bool> {
        let handled = match self.0.signals.0.borrow_mut().entry(signal) {
            Entry::Occupied(entry) if entry.get().implied == implied => entry.remove(),
            _ => return Ok(false),
        };
        self.remove_reader(&handled.bell)
    }
}
