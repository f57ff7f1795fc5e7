//! What becomes of a call in a pool. It is told without the GIL, and made a Python object by whoever asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::import_exception;
use pyo3::prelude::*;
use ropewalk::futures::State;
use ropewalk::futures::process_pool::{Cause, Death, Job, Message, Outcome, Pool, Receiver};
use ropewalk::futures::state::{StateMachine, Watcher};
use ropewalk::park::Wake;

use super::super::future::{self, Future};
use super::notifier::Notifier;
use super::pickling;

import_exception!(concurrent.futures, TimeoutError);
import_exception!(concurrent.futures.process, BrokenProcessPool);
import_exception!(ropewalk.futures.process, WorkerDied);

/// What kind of answer a worker gives; the status of the message.
pub(super) mod status {
    pub(crate) const RETURNED: u8 = 0;
    /// The second part is the traceback as text.
    pub(crate) const RAISED: u8 = 1;
}

/// A call's state and outcome.
#[derive(Default)]
pub(crate) struct Call {
    machine: StateMachine,
    /// Written before the state says FINISHED; taken when it has become a Python object.
    landed: Mutex<Option<Landed>>,
}

#[derive(Clone)]
enum Landed {
    Answer { status: u8, message: Arc<Message> },
    Died(Death),
    TimedOut,
    Broken(Arc<str>),
}

impl Receiver for Call {
    fn receive(&self, outcome: Outcome) {
        let landed = match outcome {
            Outcome::Returned { status, message } => Landed::Answer {
                status,
                message: Arc::new(message),
            },
            Outcome::Died(death) => Landed::Died(death),
            Outcome::TimedOut => Landed::TimedOut,
            Outcome::Broken(why) => Landed::Broken(why),
            Outcome::Cancelled => {
                if let Ok(owed) = self.machine.cancel() {
                    // The pool knows: the second step follows at once.
                    let _ = self.machine.start();
                    owed.pay();
                }
                return;
            }
        };
        *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = Some(landed);
        if matches!(self.machine.start(), Ok(true) | Err(State::Running)) {
            self.machine.finish().pay();
        }
    }
}

/// The pool's side of a future.
pub(crate) struct InPool {
    pub(super) pool: Arc<Pool>,
    pub(super) job: Arc<Job<Call>>,
    pub(super) notifier: Arc<Notifier>,
}

impl InPool {
    pub(crate) fn machine(&self) -> &StateMachine {
        &self.job.receiver.machine
    }

    fn job(&self) -> Arc<Job> {
        self.job.clone()
    }

    pub(crate) fn cancel(&self, running: bool) -> bool {
        if running {
            self.pool.cancel_running(&self.job())
        } else {
            self.pool.cancel(&self.job())
        }
    }

    /// The state, where a call that a worker has begun is running.
    pub(crate) fn state(&self) -> State {
        match self.machine().state() {
            State::Pending if self.pool.is_running(&self.job()) => State::Running,
            state => state,
        }
    }

    /// Waits until the call is done, and receives results meanwhile if no other thread does.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Wake {
        match self.pool.receive_until(|| self.machine().is_done(), deadline) {
            Some(wake) => wake,
            None => self.machine().wait(deadline),
        }
    }

    /// Hands the future to the notifier when it is done; false if it is.
    pub(crate) fn tell_when_done(&self, future: &Bound<'_, Future>) -> PyResult<bool> {
        self.notifier.expect(future.py())?;
        let (notifier, handle) = (self.notifier.clone(), future.clone().unbind());
        let late = self
            .machine()
            .watch(Watcher::Call(Box::new(move || notifier.push(handle))));
        if late.is_some() {
            self.notifier.never_mind();
        }
        Ok(late.is_none())
    }

    fn landed(&self) -> Option<Landed> {
        self.job
            .receiver
            .landed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the call failed, if its outcome is not a Python object yet.
    pub(crate) fn failed(&self) -> Option<bool> {
        Some(!matches!(
            self.landed()?,
            Landed::Answer {
                status: status::RETURNED,
                ..
            }
        ))
    }

    /// Makes a Python object of the outcome; None if that has been done.
    pub(crate) fn decode(&self, py: Python<'_>) -> Option<future::Outcome> {
        Some(match self.landed()? {
            Landed::Answer {
                status: status::RETURNED,
                message,
            } => match pickling::load(py, &message, 1) {
                Ok(value) => future::Outcome::Result(value.unbind()),
                Err(error) => future::Outcome::Exception(error.into_value(py).into_any()),
            },
            Landed::Answer { message, .. } => future::Outcome::Exception(raised(py, &message)),
            Landed::Died(death) => future::Outcome::Exception(died(py, death).into_value(py).into_any()),
            Landed::TimedOut => {
                let error =
                    TimeoutError::new_err("the call ran for longer than it may, and its worker was ended");
                future::Outcome::Exception(error.into_value(py).into_any())
            }
            Landed::Broken(why) => {
                let error = BrokenProcessPool::new_err(why.to_string());
                future::Outcome::Exception(error.into_value(py).into_any())
            }
        })
    }

    /// Lets the bytes go that have become a Python object.
    pub(crate) fn decoded(&self) {
        drop(
            self.job
                .receiver
                .landed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// The exception of a worker, with its traceback there as the cause; if it cannot be had, what kept it.
fn raised(py: Python<'_>, message: &Arc<Message>) -> Py<PyAny> {
    let exception = match pickling::load(py, message, 2) {
        Ok(exception) => exception,
        Err(error) => error.into_value(py).into_bound(py).into_any(),
    };
    let text = String::from_utf8_lossy(message.parts().nth(1).unwrap_or_default()).into_owned();
    let cause = || -> PyResult<()> {
        let class = py
            .import("concurrent.futures.process")?
            .getattr("_RemoteTraceback")?;
        exception.setattr("__cause__", class.call1((format!("\n\"\"\"\n{text}\"\"\""),))?)
    };
    match cause() {
        Ok(()) => exception.unbind(),
        // Not an exception at all, or one that bears no cause.
        Err(error) => error.into_value(py).into_any(),
    }
}

fn died(_py: Python<'_>, death: Death) -> PyErr {
    let (signal, exitcode) = match death.cause {
        Cause::Signal(signal) => (Some(signal), Some(-signal)),
        Cause::Exit(code) => (None, Some(code)),
        Cause::Unknown => (None, None),
    };
    WorkerDied::new_err((format!("{death} during the call"), death.pid, signal, exitcode))
}
