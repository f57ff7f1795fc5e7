//! Contexts of `contextvars`, by the interpreter's own functions.

use pyo3::ffi;
use pyo3::prelude::*;

pub(super) fn copy(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: returns an owned reference or sets an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

pub(super) fn enter(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: refuses what is not a context.
    match unsafe { ffi::PyContext_Enter(context.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(context.py())),
    }
}

pub(super) fn exit(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // The exception that may be under way has been fetched by now.
    // SAFETY: refuses a context that is not the current one.
    match unsafe { ffi::PyContext_Exit(context.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(context.py())),
    }
}
