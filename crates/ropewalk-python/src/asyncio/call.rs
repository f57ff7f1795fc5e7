//! `Call`: what a native method returns that asyncio declares `async`: awaited like a coroutine, but without a frame.
//!
//! What need not wait makes no future either.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{ffi, intern};

use super::awaitable::{self, Step, Steps};
use super::future::Future;
use super::raw::{Class, Part, Ref, Visit, Visited, attribute, wrapper};

/// What a call does.
pub(super) trait Operation: Sized {
    /// Whether it holds no `Py`, nor drops any.
    const HOT: bool = false;

    /// The type whose instances are calls of this kind.
    fn class() -> &'static Class;

    /// The method, as messages call it: `StreamReader.read`.
    fn name(&self) -> &'static str;

    /// Does it, or says what to wait for before the next attempt.
    fn attempt(&mut self, py: Python<'_>) -> PyResult<Attempt>;

    /// Told that the wait for a future is over: woken up, or by an exception.
    fn waited(&mut self, waiter: &Bound<'_, PyAny>, woken: bool) -> PyResult<()>;

    /// Objects that the collector has to know.
    fn held(&self) -> [Option<*mut ffi::PyObject>; 2];
}

/// What an attempt comes to.
pub(super) enum Attempt {
    Done(Py<PyAny>),
    /// A future to wait for.
    Wait(Py<PyAny>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fresh,
    Waiting,
    Running,
    Done,
}

/// The operation, and what it waits for.
type Parts<T> = (T, Option<Wait>);

/// A future that is waited for, and its iterator unless it is one of ours.
type Wait = (Ref, Option<Ref>);

pub(super) struct Call<T> {
    name: &'static str,
    phase: Cell<Phase>,
    /// Borrowed throughout the phase `Running`, in which Python code may run: whoever comes then looks at the phase
    /// first and leaves them alone. None when the call is done.
    parts: RefCell<Option<Parts<T>>>,
}

/// Makes a call, which is not begun before it is awaited.
pub(super) fn create<T: Operation>(py: Python<'_>, operation: T) -> PyResult<Bound<'_, PyAny>> {
    if T::class().get().is_null() {
        super::loop_types(py)?;
    }
    let call = Call {
        name: operation.name(),
        phase: Cell::new(Phase::Fresh),
        parts: RefCell::new(Some((operation, None))),
    };
    // SAFETY: the type is made, and holds calls.
    unsafe { T::class().instance(py, call) }
}

// SAFETY: `Class::instance` writes it.
unsafe impl<T: Operation> Part for Call<T> {
    const HOT: bool = T::HOT;

    fn is_plain(&self) -> bool {
        self.phase.get() == Phase::Done
    }

    fn class() -> &'static Class {
        T::class()
    }

    fn traverse(&self, visit: Visit) -> Visited {
        let Ok(parts) = self.parts.try_borrow() else {
            return Visited::Continue(());
        };
        let Some((operation, waiting)) = &*parts else {
            return Visited::Continue(());
        };
        let waiting = waiting
            .iter()
            .flat_map(|(waiter, iterator)| [Some(waiter), iterator.as_ref()]);
        let waiting = waiting.map(|object| object.map(|object| object.as_ptr()));
        visit.all(operation.held().into_iter().chain(waiting).flatten())
    }

    fn clear(&self, py: Python<'_>) {
        match self.phase.get() {
            Phase::Fresh => unraisable(py, || {
                let result = warn(py, self.name);
                self.finish();
                result
            }),
            // Closed, as a coroutine is that nobody has any more: whom it waits for is not to count on it.
            Phase::Waiting => unraisable(py, || self.end(py)),
            Phase::Running | Phase::Done => {}
        }
    }
}

impl<T> Call<T> {
    fn finish(&self) -> Option<Parts<T>> {
        self.phase.set(Phase::Done);
        self.parts.take()
    }
}

/// Warns of a call that nobody has awaited, as of a coroutine.
fn warn(py: Python<'_>, name: &str) -> PyResult<()> {
    let message = CString::new(format!("coroutine '{name}' was never awaited")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
}

/// Does what a destructor has to, in which nothing can be raised; keeps the exception that may be on its way.
#[cold]
fn unraisable(py: Python<'_>, body: impl FnOnce() -> PyResult<()>) {
    let under_way = PyErr::take(py);
    if let Err(error) = body() {
        error.write_unraisable(py, None);
    }
    if let Some(error) = under_way {
        error.restore(py);
    }
}

impl<T: Operation> Steps for Call<T> {
    fn is_fresh(&self) -> bool {
        self.phase.get() == Phase::Fresh
    }

    fn go_on(&self, py: Python<'_>) -> PyResult<Step> {
        let phase = self.phase.get();
        if phase == Phase::Running {
            return Err(running());
        }
        let mut parts = self.parts.borrow_mut();
        let Some((operation, waiting)) = &mut *parts else {
            let message = "cannot reuse already awaited coroutine";
            return Err(PyRuntimeError::new_err(message));
        };
        self.phase.set(Phase::Running);
        let step = run(py, operation, waiting);
        drop(parts);
        if matches!(step, Ok(Step::Yield(_))) {
            self.phase.set(Phase::Waiting);
        } else {
            self.finish();
        }
        step
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        if self.phase.get() == Phase::Running {
            return Err(running());
        }
        let Some((mut operation, Some((waiter, iterator)))) = self.finish() else {
            return Ok(());
        };
        if let Some(iterator) = iterator {
            iterator.call_method0(py, intern!(py, "close"))?;
        }
        operation.waited(waiter.bind(py), false)
    }
}

fn running() -> PyErr {
    PyValueError::new_err("coroutine already executing")
}

fn run<T: Operation>(py: Python<'_>, operation: &mut T, waiting: &mut Option<Wait>) -> PyResult<Step> {
    loop {
        if let Some((waiter, iterator)) = waiting {
            let waiter = waiter.bind(py);
            let step = match iterator {
                // SAFETY: the wait was made so.
                None => unsafe { Future::assume(waiter) }.await_step(),
                Some(iterator) => send(py, iterator),
            };
            match step {
                Ok(Step::Yield(future)) => return Ok(Step::Yield(future)),
                Ok(Step::Return(result)) => {
                    // SAFETY: an owned reference.
                    drop(unsafe { Bound::from_owned_ptr(py, result) });
                    operation.waited(waiter, true)?;
                    *waiting = None;
                }
                Err(error) => {
                    operation.waited(waiter, false)?;
                    return Err(error);
                }
            }
        }
        match operation.attempt(py)? {
            Attempt::Done(value) => return Ok(Step::Return(value.into_ptr())),
            Attempt::Wait(waiter) => {
                let iterator = match Future::exact(waiter.bind(py)) {
                    Some(_) => None,
                    None => Some(waiter.call_method0(py, intern!(py, "__await__"))?),
                };
                *waiting = Some((waiter.into(), iterator.map(Ref::from)));
            }
        }
    }
}

fn send(py: Python<'_>, iterator: &Py<PyAny>) -> PyResult<Step> {
    let mut result = std::ptr::null_mut();
    // SAFETY: the iterator is alive; the result is an owned reference unless an exception is set.
    match unsafe { ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &mut result) } {
        ffi::PySendResult::PYGEN_NEXT => Ok(Step::Yield(result)),
        ffi::PySendResult::PYGEN_RETURN => Ok(Step::Return(result)),
        ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
    }
}

wrapper!(
    /// An instance that holds a call of some kind.
    Instance
);

impl<'py> Instance<'py> {
    fn name<T: Operation>(&self) -> Bound<'py, PyAny> {
        // SAFETY: the attributes below are those of types that hold a `Call<T>`.
        let call = unsafe { Call::<T>::of(self.0.as_ptr()) };
        PyString::new(self.py(), call.name).into_any()
    }
}

/// Makes the type of calls of a kind.
pub(super) fn build<T: Operation>(py: Python<'_>, name: &'static CStr, doc: &'static CStr) -> PyResult<()> {
    let mut spec = awaitable::spec::<Call<T>>(name, doc);
    spec.attributes = vec![
        attribute!(Instance<T: Operation>, "__name__", |this| Ok(this.name::<T>())),
        attribute!(Instance<T: Operation>, "__qualname__", |this| Ok(this.name::<T>())),
    ];
    T::class().make(py, spec, None).map(drop)
}
