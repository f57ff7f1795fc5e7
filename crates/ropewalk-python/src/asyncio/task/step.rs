//! The step of a task: what makes it ready, runs its coroutine, and waits for what that yields.

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};

use super::Task;
use crate::asyncio::event_loop::{self, Entry};
use crate::asyncio::future::{Callback, Future, State};
use crate::asyncio::names::{Names, error, is_fatal};
use crate::asyncio::raw::{self, Ref};

impl<'py> Task<'py> {
    /// Makes a step of the task ready, on whatever loop.
    pub(super) fn push(&self, entry: fn(Ref) -> Entry) -> PyResult<()> {
        if let Some(event_loop) = self.future().own_loop() {
            return event_loop.get().push(&event_loop, entry(Ref::from(&self.0)));
        }
        let (event_loop, _) = self.future().event_loop()?;
        let step = self.callable(&STEP)?;
        event_loop::call_soon_foreign(&event_loop, &step, None, &self.context()?)
    }

    /// Makes the task ready because `future`, which it awaits, is done.
    pub(crate) fn wake(&self, future: &Bound<'py, PyAny>) -> PyResult<()> {
        if let Some(event_loop) = self.future().own_loop() {
            let entry = Entry::Wakeup(Ref::from(&self.0));
            return event_loop.get().push(&event_loop, entry);
        }
        let (event_loop, _) = self.future().event_loop()?;
        let wakeup = self.wakeup_callable()?;
        event_loop::call_soon_foreign(&event_loop, &wakeup, Some(future), &self.context()?)
    }

    fn callable(&self, definition: &'static Definition) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the definition is static and the interpreter does not write to it.
        unsafe {
            let definition = std::ptr::from_ref(&definition.0).cast_mut();
            Bound::from_owned_ptr_or_err(self.py(), ffi::PyCFunction_New(definition, self.0.as_ptr()))
        }
    }

    /// What a foreign future is given as a callback.
    pub(crate) fn wakeup_callable(&self) -> PyResult<Bound<'py, PyAny>> {
        self.callable(&WAKEUP)
    }

    /// Runs a step from the ready ring; the context has been entered and the task is the current one.
    pub(crate) fn run_step(&self) -> PyResult<()> {
        let thrown = self.fields().borrow_mut().throw.take();
        self.step(thrown.map(|exception| exception.into_bound(self.py())))
    }

    /// The same, when what the task waits for is done.
    pub(crate) fn run_wakeup(&self) -> PyResult<()> {
        let waiter = self
            .fields()
            .borrow()
            .waiter
            .as_ref()
            .map(|waiter| waiter.bind(self.py()).clone());
        match waiter {
            Some(waiter) => self.wakeup(&waiter),
            None => self.step(None),
        }
    }

    fn wakeup(&self, done: &Bound<'py, PyAny>) -> PyResult<()> {
        let raised = match Future::exact(done) {
            Some(future) => future.raised(),
            None => done.call_method0(intern!(self.py(), "result")).err(),
        };
        self.step(raised.map(|error| error.into_value(self.py()).into_bound(self.py())))
    }

    pub(super) fn step(&self, mut exception: Option<Bound<'py, PyBaseException>>) -> PyResult<()> {
        let py = self.py();
        if self.future().state() != State::Pending {
            let thrown = exception.map_or_else(|| "None".into(), |exception| exception.to_string());
            let message = format!("__step(): already done: {} {thrown}", self.0.repr()?);
            return Err(error(py, &Names::get(py)?.invalid_state_error, message));
        }
        let mut fields = self.fields().borrow_mut();
        let cancelled = std::mem::replace(&mut fields.must_cancel, false);
        let waiter = fields.waiter.take();
        let coro = fields.coro.as_ref().map(|coro| coro.bind(py).clone());
        drop(fields);
        drop(waiter);
        let Some(coro) = coro else {
            return Err(PyRuntimeError::new_err("uninitialized Task object"));
        };
        if cancelled {
            let cancelled_error = Names::get(py)?.cancelled_error.bind(py);
            let thrown = exception.as_ref();
            if !thrown.is_some_and(|thrown| thrown.is_instance(cancelled_error).unwrap_or(false)) {
                exception = Some(self.future().make_cancelled_error()?);
            }
        }
        let sent = match exception {
            None => send(&coro),
            Some(exception) => throw(&coro, &exception),
        };
        match sent {
            Ok(Sent::Yield(awaited)) => self.wait_for(awaited),
            Ok(Sent::Return(value)) => {
                self.unlink();
                let mut fields = self.fields().borrow_mut();
                if std::mem::replace(&mut fields.must_cancel, false) {
                    drop(fields);
                    let message = self
                        .future()
                        .fields()
                        .borrow()
                        .cancel_message
                        .as_ref()
                        .map(|m| m.bind(py).clone());
                    self.future().cancel(message)?;
                    return Ok(());
                }
                drop(fields);
                self.future().set_result(value)
            }
            Err(raised) => {
                self.unlink();
                let raised = raised.into_value(py).into_bound(py);
                if raised.is_instance(Names::get(py)?.cancelled_error.bind(py))? {
                    let old = self
                        .future()
                        .fields()
                        .borrow_mut()
                        .cancelled_exc
                        .replace(raised.into());
                    drop(old);
                    self.future().cancel(None)?;
                    return Ok(());
                }
                self.future().set_error(raised.clone())?;
                if is_fatal(&raised) {
                    Err(PyErr::from_value(raised.into_any()))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Waits for what the coroutine has yielded.
    fn wait_for(&self, awaited: Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if let Some(future) = Future::exact(&awaited) {
            let blocking = std::mem::replace(&mut future.fields().borrow_mut().blocking, false);
            return if !future.has_loop_of(self.future()) {
                self.fail_foreign(&awaited)
            } else if !blocking {
                self.fail_yield(&awaited)
            } else if awaited.is(&self.0) {
                self.fail(format!("Task cannot await on itself: {}", self.0.repr()?))
            } else {
                future.add_callback(Callback::Wakeup(Ref::from(&self.0)))?;
                let old = self.fields().borrow_mut().waiter.replace(Ref::from(&awaited));
                drop(old);
                self.cancel_waiter(&awaited)
            };
        }
        if awaited.is_none() {
            return self.push(Entry::Step);
        }
        let blocking = awaited.getattr_opt(intern!(py, "_asyncio_future_blocking"))?;
        if let Some(blocking) = blocking.filter(|blocking| !blocking.is_none()) {
            let its_loop = future_loop(&awaited)?;
            if !its_loop.is(&self.future().event_loop()?.0) {
                return self.fail_foreign(&awaited);
            }
            if !blocking.is_truthy()? {
                return self.fail_yield(&awaited);
            }
            if awaited.is(&self.0) {
                return self.fail(format!("Task cannot await on itself: {}", self.0.repr()?));
            }
            awaited.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
            let context = PyDict::new(py);
            context.set_item("context", self.context()?)?;
            let wakeup = self.wakeup_callable()?;
            awaited.call_method(intern!(py, "add_done_callback"), (wakeup,), Some(&context))?;
            let old = self.fields().borrow_mut().waiter.replace(Ref::from(&awaited));
            drop(old);
            return self.cancel_waiter(&awaited);
        }
        // SAFETY: compares a type.
        if unsafe { ffi::PyGen_CheckExact(awaited.as_ptr()) } != 0 {
            let message = "yield was used instead of yield from for generator in task";
            return self.fail(format!("{message} {} with {}", self.0.repr()?, awaited.repr()?));
        }
        self.fail(format!("Task got bad yield: {}", awaited.repr()?))
    }

    fn fail_foreign(&self, awaited: &Bound<'py, PyAny>) -> PyResult<()> {
        let (task, future) = (self.0.repr()?, awaited.repr()?);
        self.fail(format!(
            "Task {task} got Future {future} attached to a different loop"
        ))
    }

    fn fail_yield(&self, awaited: &Bound<'py, PyAny>) -> PyResult<()> {
        let message = "yield was used instead of yield from in task";
        self.fail(format!("{message} {} with {}", self.0.repr()?, awaited.repr()?))
    }

    /// Throws a RuntimeError into the coroutine at the next step.
    fn fail(&self, message: String) -> PyResult<()> {
        let exception = PyRuntimeError::new_err(message).into_value(self.py());
        let old = self.fields().borrow_mut().throw.replace(exception.into());
        drop(old);
        self.push(Entry::Step)
    }
}

/// The loop of any future-like object.
fn future_loop<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match future.getattr_opt(intern!(future.py(), "get_loop"))? {
        Some(get_loop) => get_loop.call0(),
        None => future.getattr(intern!(future.py(), "_loop")),
    }
}

enum Sent<'py> {
    Yield(Bound<'py, PyAny>),
    Return(Bound<'py, PyAny>),
}

fn send<'py>(coro: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = coro.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: the coroutine is alive; the result is an owned reference unless an exception is set.
    unsafe {
        match ffi::PyIter_Send(coro.as_ptr(), ffi::Py_None(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yield(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Return(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

fn throw<'py>(coro: &Bound<'py, PyAny>, exception: &Bound<'py, PyBaseException>) -> PyResult<Sent<'py>> {
    let py = coro.py();
    match coro.call_method1(intern!(py, "throw"), (exception,)) {
        Ok(awaited) => Ok(Sent::Yield(awaited)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Ok(Sent::Return(error.value(py).getattr(intern!(py, "value"))?))
        }
        Err(error) => Err(error),
    }
}

/// A method definition that callables of tasks point to.
struct Definition(ffi::PyMethodDef);
// SAFETY: never written to.
unsafe impl Sync for Definition {}

/// The step of a task on a foreign loop, called in the task's context.
static STEP: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"task_step".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunction: task_step,
    },
    ml_flags: ffi::METH_NOARGS,
    ml_doc: std::ptr::null(),
});

/// The wake-up of a task by a foreign future, called in the task's context.
static WAKEUP: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"task_wakeup".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunction: task_wakeup,
    },
    ml_flags: ffi::METH_O,
    ml_doc: std::ptr::null(),
});

unsafe extern "C" fn task_step(task: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the callable was made with a task of ours.
    unsafe { as_current(task, |task| task.run_step()) }
}

unsafe extern "C" fn task_wakeup(task: *mut ffi::PyObject, future: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the callable was made with a task of ours; the argument is alive.
    unsafe {
        as_current(task, |task| {
            let future = Bound::from_borrowed_ptr(task.py(), future);
            task.wakeup(&future)
        })
    }
}

/// Runs a step as the loop's current task.
///
/// # Safety
/// `task` is one of ours, and the interpreter calls.
unsafe fn as_current(
    task: *mut ffi::PyObject,
    step: impl for<'py> FnOnce(&Task<'py>) -> PyResult<()>,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller says.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let task = Borrowed::from_ptr(py, task);
            let task = Task::assume(&task);
            let event_loop = task.future().event_loop()?.0;
            let tasks = Names::get(py)?.tasks.bind(py);
            tasks.call_method1(intern!(py, "_enter_task"), (&event_loop, &task.0))?;
            let result = step(task);
            let left = tasks.call_method1(intern!(py, "_leave_task"), (&event_loop, &task.0));
            result?;
            left?;
            Ok(py.None().into_ptr())
        })
    }
}
