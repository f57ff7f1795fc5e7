//! The event loop for Python, on the engine of `ropewalk::asyncio::engine`.

mod awaitable;
mod call;
mod context;
mod event_loop;
mod future;
mod gathering;
mod gil;
mod handle;
mod names;
mod queue;
mod raw;
mod stream;
mod stream_reader;
mod task;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyType};

pub(crate) use event_loop::Loop;
pub(crate) use gathering::gather;
pub(crate) use queue::Queue;
pub(crate) use stream::Stream;
pub(crate) use stream_reader::{StreamReader, drained};

static TYPES: PyOnceLock<(Py<PyType>, Py<PyType>)> = PyOnceLock::new();

/// Make the classes Future and Task, once. They are no part of the module itself, because they need asyncio, which
/// whoever uses only pools does without.
#[pyfunction]
pub(crate) fn loop_types(py: Python<'_>) -> PyResult<(Py<PyType>, Py<PyType>)> {
    let (future, task) = TYPES.get_or_try_init(py, || {
        let future = future::build(py)?.unbind();
        stream_reader::build(py)?;
        handle::build(py)?;
        queue::build(py)?;
        PyResult::Ok((future, task::build(py)?.unbind()))
    })?;
    Ok((future.clone_ref(py), task.clone_ref(py)))
}

/// Adds to the classes that PyO3 makes the methods that are too hot for it.
pub(crate) fn add_hot_methods(py: Python<'_>) -> PyResult<()> {
    event_loop::add_hot_methods(py)?;
    queue::add_hot_methods(py)
}

/// The tasks of ropewalk that are not done, of all loops.
#[pyfunction]
pub(crate) fn all_tasks(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, task::Task::all(py))
}

/// Append to `halted` and keep this thread for ever, without the GIL: how the loop of a daemon thread ends.
#[pyfunction]
pub(crate) fn halt(py: Python<'_>, halted: &Bound<'_, PyList>) -> PyResult<()> {
    halted.append(py.None())?;
    // No Python code runs between the two: whoever sees the entry knows that this thread runs none any more.
    py.detach(|| {
        loop {
            std::thread::park();
        }
    })
}
