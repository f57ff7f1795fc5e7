//! Ctrl-C while a [`Runner`](super::Runner) runs.
//!
//! As in Python 3.11 and later: the first SIGINT cancels the main task, which may clean up, and the run then fails with what is
//! Python's `KeyboardInterrupt`. The second acts at once, which in Rust means: the process ends by it. It needs nobody's
//! help, since the system puts the default action back as it delivers the first one (`SA_RESETHAND`): a loop that is held
//! up can be ended, too.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::error::{Error, Result};
use super::event_loop::EventLoop;
use super::signal::{self, SIGINT};
use super::task::AnyTask;

/// Has Ctrl-C cancel a task, until dropped or [ended](Interrupt::end).
pub(super) struct Interrupt {
    event_loop: EventLoop,
    main: AnyTask,
    bell: OwnedFd,
    pressed: Rc<Cell<Pressed>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Pressed {
    #[default]
    Never,
    InTime,
    /// The task was done.
    Late,
}

impl Interrupt {
    /// None if Ctrl-C is somebody else's business: outside the process's main thread, or where SIGINT is handled or ignored.
    pub(super) fn new(event_loop: &EventLoop, main: &AnyTask) -> Result<Option<Self>> {
        let main_thread = rustix::process::getpid() == rustix::thread::gettid();
        if !main_thread || !signal::is_default(SIGINT) {
            return Ok(None);
        }
        let pressed = Rc::<Cell<Pressed>>::default();
        let callback = {
            let (main, pressed) = (main.clone(), pressed.clone());
            move || {
                pressed.set(match main.cancel() {
                    true => Pressed::InTime,
                    false => Pressed::Late,
                })
            }
        };
        let bell = match event_loop.handle_signal(SIGINT, true, callback) {
            // Another loop has taken it since we looked.
            Err(error) if error.is_misuse() => return Ok(None),
            outcome => outcome?,
        };
        Ok(Some(Self {
            event_loop: event_loop.clone(),
            main: main.clone(),
            bell,
            pressed,
        }))
    }

    /// What has become of the run, given the outcome of the task.
    pub(super) fn end<T>(self, outcome: Result<T>) -> Result<T> {
        if self.event_loop.unhandle_signal(SIGINT, true)? && signal::take(&self.bell) {
            self.pressed.set(Pressed::Late);
        }
        let interrupted = match self.pressed.get() {
            Pressed::Never => false,
            // A request of somebody else's is not ours to take back, and comes out as what it is.
            Pressed::InTime => outcome.as_ref().is_err_and(Error::is_cancelled) && self.main.uncancel() == 0,
            // It would be told to nobody.
            Pressed::Late => true,
        };
        if interrupted {
            Err(Error::KEYBOARD_INTERRUPT)
        } else {
            outcome
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _ = self.event_loop.unhandle_signal(SIGINT, true);
    }
}
