//! A `put`, `get` or `join` that is or will be awaited.

use std::cell::RefCell;
use std::ffi::c_int;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{ffi, intern};

use super::{Queue, Refusal, Side};
use crate::asyncio::awaitable::{self, Step, Steps};
use crate::asyncio::raw::{Class, Part, Visit};

static CLASS: Class = Class::new();

/// How far a call has come.
enum Progress {
    /// Nothing is waited for: not begun, or woken up.
    Ready,
    /// The future that it waits for, and the iterator of that.
    Waiting(Py<PyAny>, Py<PyAny>),
    Done,
}

struct Fields {
    queue: Option<Py<Queue>>,
    side: Side,
    item: Option<Py<PyAny>>,
    progress: Progress,
}

struct QueueCall(RefCell<Fields>);

// SAFETY: `Class::instance` writes it.
unsafe impl Part for QueueCall {
    fn traverse(&self, visit: Visit) -> c_int {
        // None is borrowed while the collector runs: no borrow lasts across an allocation of Python's.
        let Ok(fields) = self.0.try_borrow() else { return 0 };
        let waiting = match &fields.progress {
            Progress::Waiting(waiter, iterator) => [Some(waiter.as_ptr()), Some(iterator.as_ptr())],
            _ => [None, None],
        };
        let own = [
            fields.queue.as_ref().map(Py::as_ptr),
            fields.item.as_ref().map(Py::as_ptr),
        ];
        visit.all(own.into_iter().chain(waiting).flatten())
    }

    fn clear(&self, _: Python<'_>) {
        let empty = Fields {
            queue: None,
            side: Side::Get,
            item: None,
            progress: Progress::Done,
        };
        drop(self.0.replace(empty));
    }
}

pub(super) fn create<'py>(
    queue: &Bound<'py, Queue>,
    side: Side,
    item: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = queue.py();
    if CLASS.get().is_null() {
        crate::asyncio::loop_types(py)?;
    }
    let fields = Fields {
        queue: Some(queue.clone().unbind()),
        side,
        item,
        progress: Progress::Ready,
    };
    // SAFETY: the type is made, and holds calls.
    unsafe { CLASS.instance(py, QueueCall(RefCell::new(fields))) }
}

impl Steps for QueueCall {
    fn go_on(&self, py: Python<'_>) -> PyResult<Step> {
        loop {
            let mut fields = self.0.borrow_mut();
            let progress = std::mem::replace(&mut fields.progress, Progress::Done);
            let (side, queue) = (
                fields.side,
                fields.queue.as_ref().map(|queue| queue.bind(py).clone()),
            );
            let item = fields.item.as_ref().map(|item| item.clone_ref(py));
            drop(fields);
            let Some(queue) = queue else { return Err(reused()) };
            match progress {
                Progress::Done => return Err(reused()),
                Progress::Ready => {
                    let tried = match side {
                        Side::Get => queue.get().try_get(py),
                        Side::Put => {
                            let item = item.unwrap_or_else(|| py.None());
                            queue.get().try_put(py, &item).map(|()| py.None())
                        }
                        Side::Join if queue.get().inner.get(py).borrow().unfinished == 0 => Ok(py.None()),
                        Side::Join => Err(Refusal::Wait),
                    };
                    match tried {
                        Ok(value) => return Ok(Step::Return(value.into_ptr())),
                        Err(Refusal::Error(error)) => return Err(error),
                        Err(Refusal::Wait) => {
                            let waiter = Queue::wait(&queue, side)?;
                            let iterator = waiter.call_method0(intern!(py, "__await__"))?;
                            self.0.borrow_mut().progress =
                                Progress::Waiting(waiter.unbind(), iterator.unbind());
                        }
                    }
                }
                Progress::Waiting(waiter, iterator) => {
                    let mut result = std::ptr::null_mut();
                    // SAFETY: the iterator is alive; the result is an owned reference unless an exception is set.
                    let sent = unsafe { ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &mut result) };
                    match sent {
                        ffi::PySendResult::PYGEN_NEXT => {
                            self.0.borrow_mut().progress = Progress::Waiting(waiter, iterator);
                            return Ok(Step::Yield(result));
                        }
                        ffi::PySendResult::PYGEN_RETURN => {
                            // SAFETY: an owned reference.
                            drop(unsafe { Bound::from_owned_ptr(py, result) });
                            // 3.13's join does not look again: what was finished is finished.
                            if matches!(side, Side::Join) {
                                return Ok(Step::Return(py.None().into_ptr()));
                            }
                            self.0.borrow_mut().progress = Progress::Ready;
                        }
                        ffi::PySendResult::PYGEN_ERROR => {
                            let error = PyErr::fetch(py);
                            queue.get().abandon(py, side, waiter.bind(py))?;
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Ends the call and cleans up after it.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let mut fields = self.0.borrow_mut();
        let progress = std::mem::replace(&mut fields.progress, Progress::Done);
        let (side, queue) = (
            fields.side,
            fields.queue.as_ref().map(|queue| queue.bind(py).clone()),
        );
        drop(fields);
        if let (Progress::Waiting(waiter, iterator), Some(queue)) = (progress, queue) {
            iterator.bind(py).call_method0(intern!(py, "close"))?;
            queue.get().abandon(py, side, waiter.bind(py))?;
        }
        Ok(())
    }
}

fn reused() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

/// Makes the type of the calls.
pub(crate) fn build(py: Python<'_>) -> PyResult<()> {
    let doc = c"A put, get or join of a Queue, to be awaited.";
    CLASS
        .make(
            py,
            awaitable::spec::<QueueCall>(c"ropewalk.asyncio.QueueCall", doc),
            None,
        )
        .map(drop)
}
