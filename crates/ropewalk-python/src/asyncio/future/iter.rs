//! What `await future` iterates: it hands the future to the task once, and then its result to the coroutine.

use std::cell::Cell;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::{Future, State};
use crate::asyncio::awaitable::{self, Step, Steps};
use crate::asyncio::raw::{Class, Part, Ref, Visit, Visited};

static CLASS: Class = Class::new();

/// The iterator of a future of ours, which is None when it is exhausted.
struct FutureIter(Cell<Option<Ref>>);

// SAFETY: `Class::instance` writes it.
unsafe impl Part for FutureIter {
    const HOT: bool = true;

    fn is_plain(&self) -> bool {
        true
    }

    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: Visit) -> Visited {
        // SAFETY: no one has the cell's content in hand while the collector runs: `go_on` puts it back first.
        let future = unsafe { &*self.0.as_ptr() };
        visit.field(future)
    }

    fn clear(&self, _: Python<'_>) {
        drop(self.0.take());
    }
}

/// Makes an iterator of `future`, which is one of ours.
pub(super) fn create<'py>(py: Python<'py>, future: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the type is made, with the module's others, and holds iterators.
    unsafe { CLASS.instance(py, FutureIter(Cell::new(Some(future.into())))) }
}

impl Future<'_> {
    /// What `await` comes to now: the future itself once, for the task to wait for, and then its result.
    pub(in crate::asyncio) fn await_step(&self) -> PyResult<Step> {
        if self.state() != State::Pending {
            return Ok(Step::Return(self.result()?.into_ptr()));
        }
        if std::mem::replace(&mut self.fields().borrow_mut().blocking, true) {
            return Err(PyRuntimeError::new_err("await wasn't used with future"));
        }
        Ok(Step::Yield(self.object().clone().into_ptr()))
    }
}

impl Steps for FutureIter {
    fn go_on(&self, py: Python<'_>) -> PyResult<Step> {
        let Some(future) = self.0.take() else {
            return Ok(Step::Return(py.None().into_ptr()));
        };
        // SAFETY: `create` is given futures of ours only.
        let this = unsafe { Future::assume(future.bind(py)) };
        if this.state() == State::Pending {
            self.0.set(Some(future.clone_ref(py).into()));
        }
        this.await_step()
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.clear(py);
        Ok(())
    }
}

/// Makes the type.
pub(super) fn build(py: Python<'_>) -> PyResult<()> {
    let spec = awaitable::spec::<FutureIter>(c"ropewalk.asyncio.FutureIter", c"The iterator of a Future.");
    CLASS.make(py, spec, None).map(drop)
}
