//! A `put`, `get` or `join` that is or will be awaited.

use pyo3::ffi;
use pyo3::prelude::*;

use super::{Queue, Refusal, Side};
use crate::asyncio::call::{self, Attempt, Operation};
use crate::asyncio::raw::{Class, Ref};

struct QueueCall {
    queue: Ref<Queue>,
    side: Side,
    item: Option<Ref>,
    /// Whether it has waited and was woken up.
    woken: bool,
}

pub(super) fn create<'py>(
    queue: &Bound<'py, Queue>,
    side: Side,
    item: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let operation = QueueCall {
        queue: queue.into(),
        side,
        item: item.map(Ref::from),
        woken: false,
    };
    call::create(queue.py(), operation)
}

impl Operation for QueueCall {
    const HOT: bool = true;

    fn class() -> &'static Class {
        static CLASS: Class = Class::new();
        &CLASS
    }

    fn name(&self) -> &'static str {
        match self.side {
            Side::Get => "Queue.get",
            Side::Put => "Queue.put",
            Side::Join => "Queue.join",
        }
    }

    fn attempt(&mut self, py: Python<'_>) -> PyResult<Attempt> {
        let queue = self.queue.bind(py);
        let tried = match (self.side, &self.item) {
            (Side::Get, _) => queue.get().try_get(py).map(Bound::unbind),
            (Side::Put, item) => {
                let item = item.as_ref().map_or_else(|| py.None(), |item| item.clone_ref(py));
                queue.get().try_put(item.into_bound(py)).map(|()| py.None())
            }
            // 3.13's join does not look again: what was finished is finished.
            (Side::Join, _) if self.woken || queue.get().inner.get(py).borrow().unfinished == 0 => {
                Ok(py.None())
            }
            (Side::Join, _) => Err(Refusal::Wait),
        };
        match tried {
            Ok(value) => Ok(Attempt::Done(value)),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::Wait) => Ok(Attempt::Wait(Queue::wait(queue, self.side)?.unbind())),
        }
    }

    fn waited(&mut self, waiter: &Bound<'_, PyAny>, woken: bool) -> PyResult<()> {
        self.woken = woken;
        if woken {
            return Ok(());
        }
        self.queue.get().abandon(waiter.py(), self.side, waiter)
    }

    fn held(&self) -> [Option<*mut ffi::PyObject>; 2] {
        [
            Some(self.queue.as_ptr()),
            self.item.as_ref().map(|item| item.as_ptr()),
        ]
    }
}

/// Makes the type of the calls.
pub(crate) fn build(py: Python<'_>) -> PyResult<()> {
    let doc = c"A put, get or join of a Queue, to be awaited.";
    call::build::<QueueCall>(py, c"ropewalk.asyncio.QueueCall", doc)
}
