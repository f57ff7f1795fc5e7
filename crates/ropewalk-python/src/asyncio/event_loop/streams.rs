//! What the loop does for its streams: it flushes them at the end of a turn, and lends them a buffer to read into.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Loop;
use crate::asyncio::names::is_fatal;
use crate::asyncio::stream::Stream;

/// Bytes read at once, as asyncio does.
const READ: usize = 256 * 1024;

impl Loop {
    /// Has a stream flushed at the end of the turn; false between two runs, since there may be no other.
    pub(crate) fn flush_later(&self, py: Python<'_>, stream: &Bound<'_, Stream>) -> bool {
        let running = self.state.get(py).running.get();
        if running {
            self.dirty.get(py).borrow_mut().push(stream.clone().unbind());
            self.ring(py); // another thread's write, while the loop sleeps
        }
        running
    }

    /// Flushes what an exception has left; in the child of a fork, leaves it to the parent.
    #[cold]
    pub(super) fn flush_left(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let inherited = self.engine(py).is_ok_and(|engine| engine.reactor.is_inherited());
        if !inherited {
            return self.flush(this);
        }
        let left = std::mem::take(&mut *self.dirty.get(py).borrow_mut());
        drop(left);
        Ok(())
    }

    pub(super) fn flush(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        loop {
            let streams = std::mem::take(&mut *self.dirty.get(py).borrow_mut());
            if streams.is_empty() {
                return Ok(());
            }
            let mut streams = streams.into_iter();
            while let Some(stream) = streams.next() {
                match stream.get().flush(py) {
                    Ok(()) => {}
                    Err(error) if is_fatal(error.value(py)) => {
                        self.dirty.get(py).borrow_mut().extend(streams); // for the next run
                        return Err(error);
                    }
                    Err(error) => {
                        let context = PyDict::new(py);
                        context.set_item("message", "Exception after a write")?;
                        context.set_item("exception", error.into_value(py))?;
                        this.call_method1("call_exception_handler", (context,))?;
                    }
                }
            }
        }
    }

    /// Lends the buffer that streams read into.
    pub(crate) fn with_buffer<R>(&self, py: Python<'_>, read: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.buffer.get(py).borrow_mut();
        if buffer.is_empty() {
            *buffer = vec![0; READ]; // zeroed by the system, and only the pages that are read into
        }
        read(&mut buffer)
    }
}
