//! What `FutureIter` and `QueueCall` share: they are awaited without a frame.
//!
//! `am_send`, the hottest way in, returns a result without the StopIteration that a `__next__` has to make for it.

use std::ffi::{CStr, c_void};

use pyo3::exceptions::{PyBaseException, PyDeprecationWarning, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTraceback, PyTuple, PyType};

use super::raw::{self, Args, Part, Spec, method, wrapper};

/// An instance that is awaited.
pub(super) trait Steps: Part {
    /// Whether it is a coroutine that has not begun, and so takes nothing that is sent.
    fn is_fresh(&self) -> bool {
        false
    }

    /// Goes on, whatever was sent.
    fn go_on(&self, py: Python<'_>) -> PyResult<Step>;

    /// Gives up, since it was thrown out or closed.
    fn end(&self, py: Python<'_>) -> PyResult<()>;
}

/// What it comes to.
pub(super) enum Step {
    /// The future, for the task to wait for.
    Yield(*mut ffi::PyObject),
    /// The result, for the coroutine.
    Return(*mut ffi::PyObject),
}

impl Step {
    /// The step as `__next__` returns it: NULL without an exception means StopIteration without a value.
    fn into_next(self, py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
        match self {
            Self::Yield(future) => Ok(future),
            Self::Return(result) => {
                // SAFETY: an owned reference.
                let result = unsafe { Bound::from_owned_ptr(py, result) };
                if result.is_none() {
                    return Ok(std::ptr::null_mut());
                }
                // By a call, since a tuple or an exception would be taken for the arguments or the instance.
                Err(PyErr::from_value(
                    py.get_type::<PyStopIteration>().call1((result,))?,
                ))
            }
        }
    }
}

/// The exception that the arguments of `throw` stand for.
fn exception<'py>(
    py: Python<'py>,
    [kind, value, traceback]: [Option<Bound<'py, PyAny>>; 3],
) -> PyResult<Bound<'py, PyAny>> {
    if cfg!(Py_3_12) && value.is_some() {
        let message =
            c"the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
    }
    let value = value.filter(|value| !value.is_none());
    let traceback = traceback.filter(|traceback| !traceback.is_none());
    if traceback
        .as_ref()
        .is_some_and(|traceback| !traceback.is_instance_of::<PyTraceback>())
    {
        return Err(PyTypeError::new_err("throw() third argument must be a traceback"));
    }
    let kind = kind.unwrap_or_else(|| py.None().into_bound(py));
    let exception = if let Ok(class) = kind.cast::<PyType>()
        && class.is_subclass_of::<PyBaseException>()?
    {
        match value {
            None => class.call0()?,
            Some(value) if value.is_instance(class)? => value,
            Some(value) => match value.cast::<PyTuple>() {
                Ok(args) => class.call1(args)?,
                Err(_) => class.call1((value,))?,
            },
        }
    } else if kind.is_instance_of::<PyBaseException>() {
        if value.is_some() {
            return Err(PyTypeError::new_err(
                "instance exception may not have a separate value",
            ));
        }
        kind
    } else {
        let message = "exceptions must be classes deriving BaseException or instances of such a class";
        return Err(PyTypeError::new_err(message));
    };
    if let Some(traceback) = traceback {
        exception.setattr("__traceback__", traceback)?;
    }
    Ok(exception)
}

unsafe extern "C" fn tp_iternext<T: Steps>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of the type.
    unsafe { raw::slot(std::ptr::null_mut(), |py| T::of(object).go_on(py)?.into_next(py)) }
}

unsafe extern "C" fn am_send<T: Steps>(
    object: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: called by the interpreter on an instance of the type, with a place for the result.
    unsafe {
        *result = std::ptr::null_mut();
        let go_on = |py: Python<'_>| {
            let (value, kind) = match T::of(object).go_on(py)? {
                Step::Yield(future) => (future, ffi::PySendResult::PYGEN_NEXT),
                Step::Return(value) => (value, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = value;
            Ok(kind)
        };
        let failed = ffi::PySendResult::PYGEN_ERROR;
        if T::HOT {
            raw::hot_slot(failed, go_on)
        } else {
            raw::slot(failed, go_on)
        }
    }
}

wrapper!(
    /// An instance that holds some `Steps`.
    Awaitable
);

impl Awaitable<'_> {
    fn steps<T: Steps>(&self) -> &T {
        // SAFETY: the methods below are those of types that hold a `T`.
        unsafe { T::of(self.0.as_ptr()) }
    }
}

/// What a type is made of whose instances hold a `T`.
pub(super) fn spec<T: Steps>(name: &'static CStr, doc: &'static CStr) -> Spec {
    Spec {
        name,
        doc,
        size: T::offset() + size_of::<T>(),
        open: false,
        weak_references: None,
        slots: vec![
            (ffi::Py_tp_iter, raw::tp_iter as *mut c_void),
            (ffi::Py_am_await, raw::tp_iter as *mut c_void),
            (ffi::Py_tp_iternext, tp_iternext::<T> as *mut c_void),
            (ffi::Py_am_send, am_send::<T> as *mut c_void),
            (ffi::Py_tp_traverse, raw::tp_traverse::<T> as *mut c_void),
            (ffi::Py_tp_clear, raw::tp_clear::<T> as *mut c_void),
            (ffi::Py_tp_dealloc, raw::tp_dealloc::<T> as *mut c_void),
        ],
        methods: vec![
            method!(
                Awaitable<T: Steps>,
                "send",
                |this, args| {
                    let [value] = args.bind(["value"], 1, 1)?;
                    let py = this.py();
                    if this.steps::<T>().is_fresh() && value.is_some_and(|value| !value.is_none()) {
                        let message = "can't send non-None value to a just-started coroutine";
                        return Err(PyTypeError::new_err(message));
                    }
                    let next = this.steps::<T>().go_on(py)?.into_next(py)?;
                    // SAFETY: an owned reference, or NULL for the end without a value.
                    let next = unsafe { Bound::from_owned_ptr_or_opt(py, next) };
                    next.ok_or_else(|| PyStopIteration::new_err(()))
                },
                "Go on; the value is None at first, and may be any then."
            ),
            method!(
                Awaitable<T: Steps>,
                "throw",
                |this, args| {
                    let thrown = exception(this.py(), args.bind(["type", "value", "traceback"], 3, 1)?)?;
                    this.steps::<T>().end(this.py())?;
                    Err(PyErr::from_value(thrown))
                },
                "Give up and raise the exception."
            ),
            method!(
                Awaitable<T: Steps>,
                "close",
                |this, args| {
                    args.bind([], 0, 0)?;
                    this.steps::<T>().end(this.py())?;
                    Ok(this.py().None().into_bound(this.py()))
                },
                "Give up."
            ),
        ],
        attributes: Vec::new(),
    }
}
