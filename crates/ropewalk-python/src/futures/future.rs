//! `_native.Future`: the base of `ropewalk.futures.Future`.
//!
//! # Access rules
//! Every change happens in a thread that holds the GIL, and no step between a test and the change that follows from it
//! calls into Python; so the steps of two threads do not mix. Threads without the GIL only wait on the state machine.
//! The mutex around the parts is what makes them shareable; it is never held across a call into Python, dropping an
//! object included.
//!
//! A future of a process pool is the exception: its machine is the pool's ([`InPool`]) and changes without the GIL, and
//! its outcome becomes a Python object when somebody asks. What is due to Python code then (callbacks, waiters of the
//! standard library) is done by [`Future::settle_from_pool`], once, in whichever thread comes first: one that cancels
//! or adds a callback, or the pool's notifier. Until then `_state` does not say that it is done if there is a
//! `_condition`.
//!
//! The standard library's `wait` and `as_completed` hold a future's `_condition` while they look at `_state` and leave
//! a waiter in `_waiters`. Once somebody has asked for `_condition`, every change of state happens under it too.

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyString, PyType};
use ropewalk::futures::State;
use ropewalk::futures::state::{Owed, StateMachine};
use std::mem;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::process_pool::InPool;
use crate::waits;

import_exception!(concurrent.futures, CancelledError);
import_exception!(concurrent.futures, TimeoutError);
import_exception!(concurrent.futures, InvalidStateError);

/// `ropewalk.futures.Future`, the class of the futures that executors make.
static FUTURE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Makes `future_type` the class of the futures that executors make.
#[pyfunction]
pub(crate) fn register(py: Python<'_>, future_type: Bound<'_, PyType>) {
    // Only the first import of `ropewalk.futures` counts.
    let _ = FUTURE.set(py, future_type.unbind());
}

/// How a call ended.
pub(crate) enum Outcome {
    Result(Py<PyAny>),
    Exception(Py<PyAny>),
}

#[derive(Default)]
struct Parts {
    outcome: Option<Outcome>,
    callbacks: Vec<Py<PyAny>>,
    condition: Option<Py<PyAny>>,
    waiters: Option<Py<PyList>>,
    /// Of a future in a process pool: Python code waits to be told.
    watched: bool,
    /// Of a future in a process pool: Python code was told.
    settled: bool,
}

/// A call under way: the native part of `ropewalk.futures.Future`.
#[pyclass(module = "ropewalk._native", subclass, frozen)]
pub(crate) struct Future {
    machine: StateMachine,
    /// Set before anybody else sees the future, if a process pool runs the call.
    in_pool: OnceLock<InPool>,
    parts: Mutex<Parts>,
}

impl Future {
    /// A pending future of the class that users see.
    pub(crate) fn create(py: Python<'_>) -> PyResult<Bound<'_, Future>> {
        let class = FUTURE
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("ropewalk.futures is not imported"))?;
        Ok(class.bind(py).call0()?.cast_into()?)
    }

    pub(crate) fn machine(&self) -> &StateMachine {
        match self.in_pool.get() {
            Some(in_pool) => in_pool.machine(),
            None => &self.machine,
        }
    }

    /// Makes this the future of a call in a process pool.
    #[cfg(target_os = "linux")]
    pub(crate) fn put_in_pool(&self, in_pool: InPool) {
        // Called once, for a fresh future.
        let _ = self.in_pool.set(in_pool);
    }

    /// The state as others may see it.
    fn state(&self) -> State {
        let Some(in_pool) = self.in_pool.get() else {
            return self.machine.state();
        };
        let state = in_pool.state();
        let parts = self.parts();
        // Whoever looks under the condition learns it under the condition.
        if state.is_done() && parts.condition.is_some() && !parts.settled {
            State::Running
        } else {
            state
        }
    }

    /// Tells Python code that a call in a process pool is done: waiters of the standard library, then callbacks.
    pub(crate) fn settle_from_pool(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let method = match this.machine().state() {
            State::Cancelled | State::CancelledAndNotified => "add_cancelled",
            _ if this.failed() => "add_exception",
            _ => "add_result",
        };
        let told = Self::change(slf, |this| {
            if !mem::replace(&mut this.parts().settled, true) {
                Self::tell_waiters(slf, method)?;
            }
            Ok(())
        });
        told.and(Self::run_callbacks(slf))
    }

    /// Has Python code told when a call in a process pool is done; if it is, tells it now.
    fn watch_pool(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let Some(in_pool) = this.in_pool.get() else {
            return Ok(());
        };
        if !mem::replace(&mut this.parts().watched, true) && !in_pool.tell_when_done(slf)? {
            Self::settle_from_pool(slf)?;
        }
        Ok(())
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state under `_condition`, if anybody has asked for one.
    fn change<'a, R>(slf: &'a Bound<'_, Self>, change: impl FnOnce(&'a Self) -> PyResult<R>) -> PyResult<R> {
        let py = slf.py();
        let this = slf.get();
        let condition = this
            .parts()
            .condition
            .as_ref()
            .map(|condition| condition.clone_ref(py));
        let Some(condition) = condition else {
            return change(this);
        };
        condition.call_method0(py, "acquire")?;
        let outcome = change(this);
        let notified = condition.call_method0(py, "notify_all");
        condition.call_method0(py, "release")?;
        let changed = outcome?;
        notified?;
        Ok(changed)
    }

    /// Tells the standard library's waiters, all of them even if one raises; the caller is inside `change`.
    fn tell_waiters(slf: &Bound<'_, Self>, method: &str) -> PyResult<()> {
        let py = slf.py();
        let waiters = slf
            .get()
            .parts()
            .waiters
            .as_ref()
            .map(|waiters| waiters.clone_ref(py));
        let mut told = Ok(());
        if let Some(waiters) = waiters {
            for waiter in waiters.bind(py).iter() {
                told = told.and(waiter.call_method1(method, (slf,)).map(drop));
            }
        }
        told
    }

    /// Runs all callbacks; then raises what is no `Exception` but is to end the program, such as KeyboardInterrupt.
    fn run_callbacks(slf: &Bound<'_, Self>) -> PyResult<()> {
        let callbacks = mem::take(&mut slf.get().parts().callbacks);
        let mut ran = Ok(());
        for callback in callbacks {
            ran = ran.and(Self::run_callback(slf, callback.bind(slf.py())));
        }
        ran
    }

    fn run_callback(slf: &Bound<'_, Self>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        match callback.call1((slf,)) {
            Err(error) if error.is_instance_of::<PyException>(slf.py()) => {
                log_exception(slf.py(), "exception calling callback for %r", slf, error);
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    /// Begins the call: false if it was cancelled.
    pub(crate) fn start(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::change(slf, |this| match this.machine.start() {
            Ok(true) => Ok(true),
            Ok(false) => {
                Self::tell_waiters(slf, "add_cancelled")?;
                Ok(false)
            }
            Err(state) => {
                let py = slf.py();
                let logger = py.import("concurrent.futures._base")?.getattr("LOGGER")?;
                let text = "Future %s in unexpected state: %s";
                logger.call_method1("critical", (text, slf.as_ptr() as usize, name(state)))?;
                Err(PyRuntimeError::new_err("Future in unexpected state"))
            }
        })
    }

    /// Ends the call. As in the standard library a pending one may be ended as well.
    pub(crate) fn finish(slf: &Bound<'_, Self>, outcome: Outcome) -> PyResult<()> {
        let method = match outcome {
            Outcome::Result(_) => "add_result",
            Outcome::Exception(_) => "add_exception",
        };
        let mut finished = false;
        let told = Self::change(slf, |this| {
            if !matches!(this.machine.start(), Ok(true) | Err(State::Running)) {
                let text = format!("{}: {}", name(this.machine.state()), slf.repr()?);
                return Err(InvalidStateError::new_err(text));
            }
            this.parts().outcome = Some(outcome);
            this.machine.finish().pay();
            finished = true;
            Self::tell_waiters(slf, method)
        });
        if finished {
            told.and(Self::run_callbacks(slf))
        } else {
            told
        }
    }

    /// Cancels the call in the child of a fork, where nothing will run it. Tells nobody: callbacks belong to the
    /// parent, and threads that do not exist here may have held the locks of the condition and of those who wait.
    pub(crate) fn cancel_in_child(slf: &Bound<'_, Self>) {
        let this = slf.get();
        if this.machine.cancel().is_ok() {
            let _ = this.machine.start();
            let parents = mem::take(&mut *this.parts());
            drop(parents);
        }
    }

    fn outcome(&self, py: Python<'_>) -> Option<Outcome> {
        if let Some(in_pool) = self.in_pool.get()
            && self.parts().outcome.is_none()
            && let Some(decoded) = in_pool.decode(py)
        {
            // Decoding calls into Python: another thread may have been faster, and then its object counts.
            let mut parts = self.parts();
            let spare = if parts.outcome.is_none() {
                parts.outcome.replace(decoded)
            } else {
                Some(decoded)
            };
            drop(parts);
            drop(spare);
            in_pool.decoded();
        }
        self.parts().outcome.as_ref().map(|outcome| match outcome {
            Outcome::Result(value) => Outcome::Result(value.clone_ref(py)),
            Outcome::Exception(error) => Outcome::Exception(error.clone_ref(py)),
        })
    }

    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Outcome> {
        if !self.machine().is_done() {
            let deadline = waits::deadline(timeout)?;
            let in_time = match self.in_pool.get() {
                Some(in_pool) => waits::wait(py, deadline, |until| in_pool.wait(until))?,
                None => waits::wait(py, deadline, |until| self.machine.wait(until))?,
            };
            if !in_time {
                return Err(TimeoutError::new_err(()));
            }
        }
        match self.machine().state() {
            State::Finished => self.outcome(py).ok_or_else(|| TimeoutError::new_err(())),
            _ => Err(CancelledError::new_err(())),
        }
    }

    /// Whether the call failed; not so for a cancelled one.
    pub(crate) fn failed(&self) -> bool {
        if self.machine().state() != State::Finished {
            return false;
        }
        match (&self.parts().outcome, self.in_pool.get()) {
            (None, Some(in_pool)) => in_pool.failed().unwrap_or(false),
            (outcome, _) => matches!(outcome, Some(Outcome::Exception(_))),
        }
    }
}

/// The standard library's name of a state.
fn name(state: State) -> &'static str {
    match state {
        State::Pending => "PENDING",
        State::Running => "RUNNING",
        State::Cancelled => "CANCELLED",
        State::CancelledAndNotified => "CANCELLED_AND_NOTIFIED",
        State::Finished => "FINISHED",
    }
}

/// Reports an exception where the standard library's futures do, with the object that `text` names by `%r`.
pub(crate) fn log_exception(py: Python<'_>, text: &str, object: &Bound<'_, PyAny>, error: PyErr) {
    let log = || -> PyResult<()> {
        let logger = py.import("concurrent.futures._base")?.getattr("LOGGER")?;
        let kwargs = pyo3::types::PyDict::new(py);
        kwargs.set_item("exc_info", error.value(py))?;
        logger.call_method("error", (text, object), Some(&kwargs))?;
        Ok(())
    };
    if let Err(failure) = log() {
        failure.write_unraisable(py, Some(object));
    }
}

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        Self {
            machine: StateMachine::new(),
            in_pool: OnceLock::new(),
            parts: Mutex::default(),
        }
    }

    /// Cancel the call if it has not begun; return whether it is cancelled.
    ///
    /// With `running`, a call that a worker process is making is cancelled too: the process is ended, and replaced.
    #[pyo3(signature = (*, running = false))]
    fn cancel(slf: &Bound<'_, Self>, running: bool) -> PyResult<bool> {
        let this = slf.get();
        if let Some(in_pool) = this.in_pool.get() {
            if in_pool.cancel(running) {
                Self::settle_from_pool(slf)?;
            }
            return Ok(this.cancelled());
        }
        let mut cancelled = false;
        let told = Self::change(slf, |this| {
            cancelled = this.machine.cancel().map(Owed::pay).is_ok();
            Ok(())
        });
        if cancelled {
            told.and(Self::run_callbacks(slf))?;
        } else {
            told?;
        }
        Ok(cancelled)
    }

    /// Return whether the call was cancelled.
    fn cancelled(&self) -> bool {
        matches!(
            self.machine().state(),
            State::Cancelled | State::CancelledAndNotified
        )
    }

    /// Return whether the call is being made.
    fn running(&self) -> bool {
        match self.in_pool.get() {
            Some(in_pool) => in_pool.state() == State::Running,
            None => self.machine.state() == State::Running,
        }
    }

    /// Return whether the call is finished or cancelled.
    fn done(&self) -> bool {
        self.machine().is_done()
    }

    /// Wait for at most `timeout` seconds for the call and return what it returned, or raise what it raised.
    #[pyo3(signature = (timeout = None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        match self.wait(py, timeout)? {
            Outcome::Result(value) => Ok(value),
            Outcome::Exception(error) => Err(PyErr::from_value(error.into_bound(py))),
        }
    }

    /// Wait for at most `timeout` seconds for the call and return what it raised, or None.
    #[pyo3(signature = (timeout = None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        match self.wait(py, timeout)? {
            Outcome::Result(_) => Ok(None),
            Outcome::Exception(error) => Ok(Some(error)),
        }
    }

    /// Call `fn` with this future when it is done, at once if it is.
    #[pyo3(signature = (r#fn))]
    fn add_done_callback(slf: &Bound<'_, Self>, r#fn: Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        if this.machine().is_done() {
            if this.in_pool.get().is_some() {
                // Those that were added before are called before.
                Self::settle_from_pool(slf)?;
            }
            return Self::run_callback(slf, &r#fn);
        }
        this.parts().callbacks.push(r#fn.unbind());
        Self::watch_pool(slf)
    }

    /// Begin the call: return False if it was cancelled. For executors and tests.
    fn set_running_or_notify_cancel(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::start(slf)
    }

    /// End the call with what it returned. For executors and tests.
    fn set_result(slf: &Bound<'_, Self>, result: Py<PyAny>) -> PyResult<()> {
        Self::finish(slf, Outcome::Result(result))
    }

    /// End the call with what it raised. For executors and tests.
    fn set_exception(slf: &Bound<'_, Self>, exception: Bound<'_, PyAny>) -> PyResult<()> {
        // The standard library stores whatever it is given; None there makes a result of None.
        if exception.is_none() {
            return Self::finish(slf, Outcome::Result(exception.unbind()));
        }
        // A class stands for an instance of it, as in a raise statement.
        let exception = match exception.cast::<PyType>() {
            Ok(class) => class.call0()?,
            Err(_) => exception,
        };
        Self::finish(slf, Outcome::Exception(exception.unbind()))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().name()?;
        let at = slf.as_ptr() as usize;
        let this = slf.get();
        let state = match this.state() {
            State::Pending => "pending",
            State::Running => "running",
            State::Cancelled | State::CancelledAndNotified => "cancelled",
            State::Finished => {
                return Ok(match this.outcome(slf.py()) {
                    Some(Outcome::Exception(error)) => {
                        let kind = error.bind(slf.py()).get_type().name()?;
                        format!("<{class} at {at:#x} state=finished raised {kind}>")
                    }
                    Some(Outcome::Result(value)) => {
                        let kind = value.bind(slf.py()).get_type().name()?;
                        format!("<{class} at {at:#x} state=finished returned {kind}>")
                    }
                    None => format!("<{class} at {at:#x} state=finished>"),
                });
            }
        };
        Ok(format!("<{class} at {at:#x} state={state}>"))
    }

    /// The state by the standard library's name, for its own `wait` and `as_completed`.
    #[getter]
    fn _state<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, name(self.state()))
    }

    /// The lock under which the standard library's `wait` and `as_completed` look at the future.
    #[getter]
    fn _condition(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(condition) = &this.parts().condition {
            return Ok(condition.clone_ref(py));
        }
        let made = py.import("threading")?.call_method0("Condition")?.unbind();
        // Making one calls into Python: another thread may have been faster, and then its condition counts.
        let condition = this.parts().condition.get_or_insert(made).clone_ref(py);
        Self::watch_pool(slf)?;
        Ok(condition)
    }

    /// The standard library's `wait` and `as_completed` leave their waiters here.
    #[getter]
    fn _waiters(&self, py: Python<'_>) -> Py<PyList> {
        let made = PyList::empty(py).unbind();
        self.parts().waiters.get_or_insert(made).clone_ref(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Nobody holds the lock while the collector runs: it is never held across a call into Python.
        let Ok(parts) = self.parts.try_lock() else {
            return Ok(());
        };
        match &parts.outcome {
            Some(Outcome::Result(value) | Outcome::Exception(value)) => visit.call(value)?,
            None => {}
        }
        for callback in &parts.callbacks {
            visit.call(callback)?;
        }
        visit.call(&parts.condition)?;
        visit.call(&parts.waiters)
    }

    fn __clear__(&self) {
        let parts = mem::take(&mut *self.parts());
        drop(parts);
    }
}
