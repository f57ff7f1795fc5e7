//! The bindings: one file a Python class, one module that declares the whole Python surface.

#[cfg(target_os = "linux")]
mod asyncio;
mod event;
mod futures;
mod gil;
mod waits;

use pyo3::prelude::*;

/// The engine of the Python package `ropewalk`.
#[pymodule(gil_used = true)]
mod _native {
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::asyncio::{Loop, Queue, Stream, StreamReader, all_tasks, drained, gather, halt, loop_types};
    #[pymodule_export]
    use super::event::{Event, EventWait};
    #[pymodule_export]
    use super::futures::{AsCompleted, Future, ThreadPoolExecutor, Waiter, WorkQueue, register, wait};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::futures::{NotifierThread, ProcessPoolExecutor, SharedBuffer, copy_bytes, work};
    #[pymodule_export]
    use super::gil::GilSampler;

    #[cfg(target_os = "linux")]
    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        super::asyncio::add_hot_methods(module.py())
    }
}
