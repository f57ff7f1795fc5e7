//! Values and exceptions on their way between a body and Python.

use std::any::TypeId;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{
    PyAttributeError, PyBaseException, PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError,
    PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::Error;

/// As `IntoPyObject` does it, but for `()`, which in a return position means `None` and not an empty tuple.
pub(crate) fn to_python<T>(py: Python<'_>, value: T) -> PyResult<Py<PyAny>>
where
    T: for<'py> IntoPyObject<'py> + 'static,
{
    if TypeId::of::<T>() == TypeId::of::<()>() {
        return Ok(py.None());
    }
    value.into_py_any(py)
}

/// The exception for Python, in the words of CPython's generators.
pub(crate) fn to_exception(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Raised(raised) if raised.is_instance_of::<PyStopIteration>(py) => {
            let error = to_exception(py, Error::RaisedStopIteration);
            error.set_cause(py, Some(raised));
            error
        }
        Error::Raised(raised) => raised,
        Error::GeneratorExit => PyGeneratorExit::new_err(()),
        Error::Finished => PyStopIteration::new_err(()),
        Error::NotStarted => PyTypeError::new_err("can't send non-None value to a just-started generator"),
        Error::AlreadyExecuting => PyValueError::new_err("generator already executing"),
        Error::IgnoredGeneratorExit => PyRuntimeError::new_err("generator ignored GeneratorExit"),
        Error::RaisedStopIteration => PyRuntimeError::new_err("generator raised StopIteration"),
        Error::NoSend => PyAttributeError::new_err("an iterator has no attribute 'send'"),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// The exception for the body; those that steer a coroutine are its own variants.
pub(crate) fn from_exception(py: Python<'_>, exception: &PyErr) -> Error {
    if exception.is_instance_of::<PyGeneratorExit>(py) {
        Error::GeneratorExit
    } else if exception.is_instance_of::<PyStopIteration>(py) {
        Error::Finished
    } else {
        Error::Raised(exception.clone_ref(py))
    }
}

/// The exception that `throw(type, value, traceback)` means, all of its forms.
pub(crate) fn thrown<'py>(
    kind: &Bound<'py, PyAny>,
    value: Option<&Bound<'py, PyAny>>,
    traceback: Option<&Bound<'py, PyAny>>,
) -> PyResult<PyErr> {
    let exception = if kind.is_instance_of::<PyBaseException>() {
        if value.is_some() {
            return Err(PyTypeError::new_err(
                "instance exception may not have a separate value",
            ));
        }
        kind.clone()
    } else if let Ok(class) = kind.cast::<PyType>()
        && class.is_subclass_of::<PyBaseException>()?
    {
        match value {
            None => class.call0()?,
            Some(value) if value.is_instance(class)? => value.clone(),
            Some(value) => match value.cast::<PyTuple>() {
                Ok(arguments) => class.call1(arguments)?,
                Err(_) => class.call1((value,))?,
            },
        }
    } else {
        return Err(PyTypeError::new_err(format!(
            "exceptions must be classes or instances deriving from BaseException, not {}",
            kind.get_type().name()?
        )));
    };
    if let Some(traceback) = traceback {
        exception.setattr("__traceback__", traceback)?;
    }
    Ok(PyErr::from_value(exception))
}
