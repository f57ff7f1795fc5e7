//! `StreamReader`: the hot half of asyncio's, which the other half, asyncio's own Python, sees through its attributes.
//!
//! Data is kept as the chunk that came last; only what does not fit that (a line in two chunks, a look at `_buffer`)
//! goes through the bytearray that asyncio has.

mod read;

use std::cell::RefCell;

use pyo3::exceptions::{PyAssertionError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, ffi, intern};

use super::future::{Future, State};
use super::gil::Gil;
use read::Kind;
pub(super) use read::build;
pub(crate) use read::drained;

struct Inner {
    /// What came last, if the buffer was empty then.
    chunk: Option<Py<PyBytes>>,
    /// How much of the chunk has been read.
    taken: usize,
    /// `_buffer`: what comes before the chunk.
    buffer: Option<Py<PyByteArray>>,
    limit: f64,
    shown_limit: Option<Py<PyAny>>,
    eof: bool,
    paused: bool,
    waiter: Option<Py<PyAny>>,
    exception: Option<Py<PyAny>>,
    transport: Option<Py<PyAny>>,
    event_loop: Option<Py<PyAny>>,
}

impl Inner {
    /// What has come and has not been read.
    fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match (&self.chunk, &self.buffer) {
            (Some(chunk), _) => &chunk.as_bytes(py)[self.taken..],
            // SAFETY: no Python code runs while the borrow lasts, so that the array stays as it is.
            (None, Some(buffer)) => unsafe { buffer.bind(py).as_bytes() },
            (None, None) => &[],
        }
    }
}

/// The hot half of a stream reader.
#[pyclass(frozen, subclass, name = "StreamReader", module = "ropewalk._native")]
pub(crate) struct StreamReader {
    inner: Gil<RefCell<Inner>>,
}

impl StreamReader {
    fn len(&self, py: Python<'_>) -> usize {
        self.inner.get(py).borrow().bytes(py).len()
    }

    /// The bytearray, with everything in it.
    fn settle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let mut inner = self.inner.get(py).borrow_mut();
        let buffer = inner
            .buffer
            .get_or_insert_with(|| PyByteArray::new(py, b"").unbind())
            .bind(py)
            .clone();
        let (chunk, taken) = (inner.chunk.as_ref().map(|chunk| chunk.clone_ref(py)), inner.taken);
        drop(inner);
        if let Some(chunk) = chunk {
            append(&buffer, &chunk.as_bytes(py)[taken..])?;
            let old = self.inner.get(py).borrow_mut().chunk.take();
            drop(old);
        }
        Ok(buffer)
    }

    /// Takes the first bytes out.
    fn take<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut guard = self.inner.get(py).borrow_mut();
        let inner = &mut *guard;
        let Some(chunk) = inner.chunk.as_ref() else {
            let data = PyBytes::new(py, &inner.bytes(py)[..count]);
            let buffer = inner.buffer.as_ref().map(|buffer| buffer.bind(py).clone());
            drop(guard);
            if let Some(buffer) = buffer.filter(|_| count > 0) {
                // SAFETY: the array is alive. It does not move what is left.
                let done = unsafe { ffi::PySequence_DelSlice(buffer.as_ptr(), 0, count.cast_signed()) };
                if done != 0 {
                    return Err(PyErr::fetch(py));
                }
            }
            return Ok(data);
        };
        let whole = chunk.as_bytes(py);
        let end = inner.taken + count;
        let data = if count == whole.len() {
            chunk.bind(py).clone()
        } else {
            PyBytes::new(py, &whole[inner.taken..end])
        };
        if end == whole.len() {
            inner.chunk = None; // bytes: no destructor runs
        } else {
            inner.taken = end;
        }
        Ok(data)
    }

    fn take_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, self.len(py))
    }

    /// Lets the transport go on if it was paused and what is left is little enough.
    fn maybe_resume(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner.get(py).borrow();
        if inner.paused && inner.bytes(py).len() as f64 <= inner.limit {
            drop(inner);
            return self.resume(py);
        }
        Ok(())
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let mut inner = self.inner.get(py).borrow_mut();
        inner.paused = false;
        let transport = inner
            .transport
            .as_ref()
            .map_or_else(|| py.None(), |transport| transport.clone_ref(py));
        drop(inner);
        transport.call_method0(py, intern!(py, "resume_reading"))?;
        Ok(())
    }

    /// Wakes the read that waits.
    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let waiter = self.inner.get(py).borrow_mut().waiter.take();
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        let none = py.None().into_bound(py);
        match Future::cast(waiter) {
            Some(future) if future.state() == State::Cancelled => Ok(()),
            Some(future) => future.set_result(none),
            None if waiter.call_method0("cancelled")?.is_truthy()? => Ok(()),
            None => waiter.call_method1("set_result", (none,)).map(drop),
        }
    }

    /// What `feed_data` does, without a copy where it can.
    pub(super) fn feed(&self, data: Bound<'_, PyBytes>) -> PyResult<()> {
        let py = data.py();
        let length = data.as_bytes().len();
        if self.inner.get(py).borrow().eof {
            return Err(PyAssertionError::new_err("feed_data after feed_eof"));
        }
        if length == 0 {
            return Ok(());
        }
        let mut inner = self.inner.get(py).borrow_mut();
        if inner.bytes(py).is_empty() {
            (inner.chunk, inner.taken) = (Some(data.unbind()), 0);
            drop(inner);
        } else {
            drop(inner);
            append(&self.settle(py)?, data.as_bytes())?;
        }
        self.fed(py)
    }

    fn fed(&self, py: Python<'_>) -> PyResult<()> {
        self.wake(py)?;
        let inner = self.inner.get(py).borrow();
        if inner.paused || inner.bytes(py).len() as f64 <= 2.0 * inner.limit {
            return Ok(());
        }
        let transport = inner.transport.as_ref().map(|transport| transport.clone_ref(py));
        drop(inner);
        let Some(transport) = transport else { return Ok(()) };
        match transport.call_method0(py, intern!(py, "pause_reading")) {
            Ok(_) => self.inner.get(py).borrow_mut().paused = true,
            // It cannot be paused: everything has to be kept, and it is not asked again.
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                let old = self.inner.get(py).borrow_mut().transport.take();
                drop(old);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A method of asyncio's own class, for what is not done here.
    fn by_asyncio<'py>(
        this: &Bound<'py, Self>,
        method: &str,
        argument: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        this.py()
            .import("asyncio")?
            .getattr("StreamReader")?
            .call_method1(method, (this, argument))
    }
}

/// An argument that may be left out: None, which PyO3 would take for that, is asyncio's to refuse.
struct Argument<'py>(Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Argument<'py> {
    type Error = std::convert::Infallible;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(Some(object.to_owned())))
    }
}

/// A copy behind what is in the array.
fn append(buffer: &Bound<'_, PyByteArray>, data: &[u8]) -> PyResult<()> {
    let length = buffer.len();
    buffer.resize(length + data.len())?;
    // SAFETY: the array has the room, and no Python code runs meanwhile.
    unsafe { buffer.as_bytes_mut()[length..].copy_from_slice(data) };
    Ok(())
}

#[pymethods]
impl StreamReader {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let inner = Inner {
            chunk: None,
            taken: 0,
            buffer: None,
            limit: f64::INFINITY,
            shown_limit: None,
            eof: false,
            paused: false,
            waiter: None,
            exception: None,
            transport: None,
            event_loop: None,
        };
        Self {
            inner: Gil::new(RefCell::new(inner)),
        }
    }

    /// Read at least one byte and at most `n`; all until the end if `n` is negative. Empty at the end.
    #[pyo3(signature = (n=Argument(None)), text_signature = "($self, n=-1)")]
    fn read<'py>(this: &Bound<'py, Self>, n: Argument<'py>) -> PyResult<Bound<'py, PyAny>> {
        let n = n.0.map_or_else(|| (-1i32).into_bound_py_any(this.py()), Ok)?;
        match n.extract::<isize>() {
            Ok(count @ 0..) => read::create(this, Kind::Some(count.unsigned_abs())),
            _ => Self::by_asyncio(this, "read", n),
        }
    }

    /// Read `n` bytes; IncompleteReadError if the end comes before.
    fn readexactly<'py>(this: &Bound<'py, Self>, n: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match n.extract::<isize>() {
            Ok(count @ 0..) => read::create(this, Kind::Exactly(count.unsigned_abs())),
            _ => Self::by_asyncio(this, "readexactly", n),
        }
    }

    /// Read up to a separator, and the separator.
    #[pyo3(signature = (separator=Argument(None)), text_signature = "($self, separator=b'\\n')")]
    fn readuntil<'py>(this: &Bound<'py, Self>, separator: Argument<'py>) -> PyResult<Bound<'py, PyAny>> {
        let newline = || PyBytes::new(this.py(), b"\n").into_any();
        match separator.0.unwrap_or_else(newline).cast_into_exact::<PyBytes>() {
            Ok(bytes) if !bytes.as_bytes().is_empty() => read::create(this, Kind::Until(bytes.unbind())),
            Ok(bytes) => Self::by_asyncio(this, "readuntil", bytes.into_any()),
            Err(error) => Self::by_asyncio(this, "readuntil", error.into_inner()),
        }
    }

    /// Read a line and its end, or what there is at the end of the stream.
    fn readline<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        read::create(this, Kind::Line)
    }

    fn __anext__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        read::create(this, Kind::Next)
    }

    /// Append data, as a transport does.
    fn feed_data(&self, data: Bound<'_, PyAny>) -> PyResult<()> {
        let data = match data.cast_into_exact::<PyBytes>() {
            Ok(bytes) => return self.feed(bytes),
            Err(error) => error.into_inner(),
        };
        let py = data.py();
        if self.inner.get(py).borrow().eof {
            return Err(PyAssertionError::new_err("feed_data after feed_eof"));
        }
        if !data.is_truthy()? {
            return Ok(());
        }
        self.settle(py)?.call_method1("extend", (data,))?;
        self.fed(py)
    }

    /// The exception that reads raise, or None.
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        optional(py, &self.inner.get(py).borrow().exception)
    }

    // What asyncio's own methods, and those who look, know a reader by.

    #[getter(_buffer)]
    fn shown_buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        self.settle(py)
    }

    #[setter(_buffer)]
    fn set_buffer(&self, py: Python<'_>, buffer: Py<PyByteArray>) {
        let mut inner = self.inner.get(py).borrow_mut();
        let old = (inner.chunk.take(), inner.buffer.replace(buffer));
        drop(inner);
        drop(old);
    }

    #[getter(_limit)]
    fn shown_limit(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        optional(py, &self.inner.get(py).borrow().shown_limit)
    }

    #[setter(_limit)]
    fn set_limit(&self, limit: Bound<'_, PyAny>) {
        let py = limit.py();
        // An integer too large to be a float limits nothing.
        let number = limit.extract().unwrap_or(f64::INFINITY);
        let mut inner = self.inner.get(py).borrow_mut();
        inner.limit = number;
        let old = inner.shown_limit.replace(limit.unbind());
        drop(inner);
        drop(old);
    }

    #[getter(_eof)]
    fn shown_eof(&self, py: Python<'_>) -> bool {
        self.inner.get(py).borrow().eof
    }

    #[setter(_eof)]
    fn set_eof(&self, py: Python<'_>, eof: bool) {
        self.inner.get(py).borrow_mut().eof = eof;
    }

    #[getter(_paused)]
    fn shown_paused(&self, py: Python<'_>) -> bool {
        self.inner.get(py).borrow().paused
    }

    #[setter(_paused)]
    fn set_paused(&self, py: Python<'_>, paused: bool) {
        self.inner.get(py).borrow_mut().paused = paused;
    }

    #[getter(_waiter)]
    fn shown_waiter(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        optional(py, &self.inner.get(py).borrow().waiter)
    }

    #[setter(_waiter)]
    fn set_waiter(&self, py: Python<'_>, waiter: Option<Py<PyAny>>) {
        let old = std::mem::replace(&mut self.inner.get(py).borrow_mut().waiter, waiter);
        drop(old);
    }

    #[getter(_exception)]
    fn shown_exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.exception(py)
    }

    #[setter(_exception)]
    fn set_shown_exception(&self, py: Python<'_>, exception: Option<Py<PyAny>>) {
        let old = std::mem::replace(&mut self.inner.get(py).borrow_mut().exception, exception);
        drop(old);
    }

    #[getter(_transport)]
    fn shown_transport(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        optional(py, &self.inner.get(py).borrow().transport)
    }

    #[setter(_transport)]
    fn set_shown_transport(&self, py: Python<'_>, transport: Option<Py<PyAny>>) {
        let old = std::mem::replace(&mut self.inner.get(py).borrow_mut().transport, transport);
        drop(old);
    }

    #[getter(_loop)]
    fn shown_loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        optional(py, &self.inner.get(py).borrow().event_loop)
    }

    #[setter(_loop)]
    fn set_loop(&self, py: Python<'_>, event_loop: Option<Py<PyAny>>) {
        let old = std::mem::replace(&mut self.inner.get(py).borrow_mut().event_loop, event_loop);
        drop(old);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation that the collector runs in.
        let Ok(inner) = unsafe { self.inner.traversed() }.try_borrow() else {
            return Ok(());
        };
        visit.call(&inner.waiter)?;
        visit.call(&inner.exception)?;
        visit.call(&inner.transport)?;
        visit.call(&inner.event_loop)?;
        visit.call(&inner.shown_limit)
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut inner = self.inner.get(py).borrow_mut();
        let old = [
            inner.waiter.take(),
            inner.exception.take(),
            inner.transport.take(),
            inner.event_loop.take(),
            inner.shown_limit.take(),
        ];
        drop(inner);
        drop(old);
    }
}

fn optional(py: Python<'_>, object: &Option<Py<PyAny>>) -> Option<Py<PyAny>> {
    object.as_ref().map(|object| object.clone_ref(py))
}
