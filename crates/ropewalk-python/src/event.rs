//! `ropewalk.threading.Event`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use ropewalk::threading;

use crate::waits;

/// The base of `ropewalk.threading.Event`: all that runs for each call.
#[pyclass(module = "ropewalk._native", subclass, frozen)]
pub(crate) struct Event(threading::Event);

#[pymethods]
impl Event {
    #[new]
    fn new() -> Self {
        Self(threading::Event::new())
    }

    /// Return true if and only if the event is set.
    fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Set the event and let go all threads and coroutines that wait for it.
    fn set(&self) {
        self.0.set();
    }

    /// Unset the event. Waits that have been let go already are over none the less.
    fn clear(&self) {
        self.0.clear();
    }

    /// Block until the event is set, or for `timeout` seconds; return whether it was set.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        if self.0.is_set() {
            return Ok(true);
        }
        let timeout = waits::duration(timeout)?;
        py.detach(|| {
            self.0
                .wait_interruptible(timeout, || Python::attach(|py| py.check_signals()))
        })
    }

    /// A context in which an asyncio future is given a result as soon as the event is set, by whatever thread.
    fn _waking(&self, future: &Bound<'_, PyAny>) -> PyResult<EventWait> {
        let mut wait = self.0.wait_async();
        let waker = Arc::new(WakeFuture {
            future: PyWeakrefReference::new(future)?.unbind(),
            process: std::process::id(),
        });
        let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(&Waker::from(waker)));
        if polled == Poll::Ready(()) {
            settle(future)?;
        }
        Ok(EventWait(Some(wait)))
    }
}

/// A coroutine's wait, for as long as its `with` block is not left.
#[pyclass(module = "ropewalk._native")]
pub(crate) struct EventWait(Option<threading::Wait>);

#[pymethods]
impl EventWait {
    fn __enter__(&self) {}

    #[pyo3(signature = (*_exception))]
    fn __exit__(&mut self, _exception: &Bound<'_, PyAny>) {
        self.0 = None;
    }
}

/// Gives a result to a future of some loop. Weak, so that an event keeps nobody alive who waits for it.
struct WakeFuture {
    future: Py<PyWeakrefReference>,
    /// A child that was forked has its parent's futures, but must not speak to its parent's loop.
    process: u32,
}

impl Wake for WakeFuture {
    fn wake(self: Arc<Self>) {
        if self.process != std::process::id() {
            return;
        }
        // Nothing to do when the interpreter is on its way out.
        Python::try_attach(|py| {
            if let Some(future) = self.future.bind(py).upgrade()
                && let Err(error) = wake(&future)
            {
                error.write_unraisable(py, Some(&future));
            }
        });
    }
}

/// Lets `future` have a result in its own loop.
fn wake(future: &Bound<'_, PyAny>) -> PyResult<()> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static SETTLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = future.py();
    let event_loop = future.call_method0("get_loop")?;
    let running = RUNNING.import(py, "asyncio", "_get_running_loop")?.call0()?;
    if running.is(&event_loop) {
        return settle(future);
    }
    if event_loop.call_method0("is_closed")?.is_truthy()? {
        return Ok(());
    }
    let settle = SETTLE.get_or_try_init(py, || {
        PyResult::Ok(wrap_pyfunction!(settle, py)?.into_any().unbind())
    })?;
    event_loop.call_method1("call_soon_threadsafe", (settle, future))?;
    Ok(())
}

/// Gives `future` its result, unless it has been cancelled meanwhile.
#[pyfunction]
fn settle(future: &Bound<'_, PyAny>) -> PyResult<()> {
    if !future.call_method0("done")?.is_truthy()? {
        future.call_method1("set_result", (future.py().None(),))?;
    }
    Ok(())
}
