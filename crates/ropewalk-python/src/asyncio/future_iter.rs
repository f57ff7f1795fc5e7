//! What `await future` iterates: it hands the future to the task once, and then its result to the coroutine.
//!
//! A type of slots, since its two ways in are the hottest there are: `am_send` returns a result without the
//! StopIteration that a `__next__` has to make for it.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::{PyBaseException, PyDeprecationWarning, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTraceback, PyType};

use super::future::{Future, State};
use super::raw::{self, Args, Spec, method};

#[repr(C)]
struct Object {
    head: ffi::PyObject,
    /// An owned reference, or NULL when the iterator is exhausted.
    future: *mut ffi::PyObject,
}

/// Set once, at the module's initialisation; relaxed, because the GIL orders that with everything after.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// An iterator of a future of ours.
#[repr(transparent)]
pub(super) struct FutureIter<'py>(Bound<'py, PyAny>);

/// What an iterator comes to.
pub(super) enum Step {
    /// The future, for the task to wait for.
    Yield(*mut ffi::PyObject),
    /// The result, for the coroutine.
    Return(*mut ffi::PyObject),
}

impl Step {
    /// The step as `__next__` returns it: NULL without an exception means StopIteration without a value.
    pub(super) fn into_next(self, py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
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

impl<'py> FutureIter<'py> {
    /// # Safety
    /// `object` is an instance of the type.
    unsafe fn assume<'a>(object: &'a Bound<'py, PyAny>) -> &'a Self {
        // SAFETY: the wrapper is transparent.
        unsafe { &*std::ptr::from_ref(object).cast() }
    }

    /// Makes an iterator of `future`, which is one of ours.
    pub(super) fn create(py: Python<'py>, future: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the type is ready; its field is written before anything can look at it.
        unsafe {
            let class = TYPE.load(Relaxed);
            let object = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class, 0))?;
            (*object.as_ptr().cast::<Object>()).future = future.into_ptr();
            Ok(object)
        }
    }

    /// Takes the future out, so that the iterator is exhausted.
    fn take(&self) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the field is emptied before the reference is given away.
        unsafe {
            let place = &mut (*self.0.as_ptr().cast::<Object>()).future;
            Bound::from_owned_ptr_or_opt(self.0.py(), std::mem::replace(place, std::ptr::null_mut()))
        }
    }

    fn step(&self) -> PyResult<Step> {
        let py = self.0.py();
        // SAFETY: the field holds a reference or NULL; the object is alive.
        let held = unsafe { (*self.0.as_ptr().cast::<Object>()).future };
        if held.is_null() {
            return Ok(Step::Return(py.None().into_ptr()));
        }
        // SAFETY: as above; `create` is given futures of ours only.
        let future = unsafe { Bound::from_borrowed_ptr(py, held) };
        // SAFETY: as above.
        let this = unsafe { Future::assume(&future) };
        if this.state() == State::Pending {
            if std::mem::replace(&mut this.fields().borrow_mut().blocking, true) {
                return Err(PyRuntimeError::new_err("await wasn't used with future"));
            }
            return Ok(Step::Yield(future.into_ptr()));
        }
        self.take();
        Ok(Step::Return(this.result()?.into_ptr()))
    }

    fn next(&self) -> PyResult<*mut ffi::PyObject> {
        self.step()?.into_next(self.0.py())
    }
}

/// The exception that the arguments of `throw` stand for.
pub(super) fn exception<'py>(
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
            Some(value) => match value.cast::<pyo3::types::PyTuple>() {
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

unsafe extern "C" fn tp_iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of the type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            FutureIter::assume(&this).next()
        })
    }
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: called by the interpreter on an instance of the type, with a place for the result.
    unsafe {
        *result = std::ptr::null_mut();
        raw::slot(ffi::PySendResult::PYGEN_ERROR, |py| {
            let this = Borrowed::from_ptr(py, object);
            let (value, kind) = match FutureIter::assume(&this).step()? {
                Step::Yield(future) => (future, ffi::PySendResult::PYGEN_NEXT),
                Step::Return(value) => (value, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = value;
            Ok(kind)
        })
    }
}

unsafe extern "C" fn tp_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: reads the object's head and field, which are valid while the collector runs.
    unsafe {
        let status = visit(ffi::Py_TYPE(object).cast(), arg);
        let future = (*object.cast::<Object>()).future;
        if status != 0 || future.is_null() {
            status
        } else {
            visit(future, arg)
        }
    }
}

unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the field is emptied before the reference is given up.
    unsafe {
        let place = &mut (*object.cast::<Object>()).future;
        ffi::Py_XDECREF(std::mem::replace(place, std::ptr::null_mut()));
    }
    0
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        tp_clear(object);
        raw::free(object);
    }
}

/// Makes the type.
pub(super) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let spec = Spec {
        name: c"ropewalk.asyncio.FutureIter",
        doc: c"The iterator of a Future.",
        size: size_of::<Object>(),
        subclassable: false,
        slots: vec![
            (ffi::Py_tp_iter, tp_iter as *mut c_void),
            (ffi::Py_tp_iternext, tp_iternext as *mut c_void),
            (ffi::Py_am_send, am_send as *mut c_void),
            (ffi::Py_tp_traverse, tp_traverse as *mut c_void),
            (ffi::Py_tp_clear, tp_clear as *mut c_void),
            (ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
        ],
        methods: vec![
            method!(
                FutureIter,
                "send",
                |this, args| {
                    args.bind(["value"], 1, 1)?;
                    let py = this.0.py();
                    // SAFETY: `next` returns an owned reference, or NULL for the end.
                    let next = unsafe { Bound::from_owned_ptr_or_opt(py, this.next()?) };
                    next.ok_or_else(|| PyStopIteration::new_err(()))
                },
                "Go on, whatever the value."
            ),
            method!(
                FutureIter,
                "throw",
                |this, args| {
                    let thrown = exception(this.0.py(), args.bind(["type", "value", "traceback"], 3, 1)?)?;
                    this.take();
                    Err(PyErr::from_value(thrown))
                },
                "Raise the exception here; the iterator is exhausted."
            ),
            method!(
                FutureIter,
                "close",
                |this, args| {
                    args.bind([], 0, 0)?;
                    this.take();
                    Ok(this.0.py().None().into_bound(this.0.py()))
                },
                "Exhaust the iterator."
            ),
        ],
        attributes: Vec::new(),
    };
    let class = spec.build(py, None)?;
    // A reference of its own: a type may not go while the process makes instances of it.
    TYPE.store(class.clone().into_ptr().cast(), Relaxed);
    Ok(class)
}
