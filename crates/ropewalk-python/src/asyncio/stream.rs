//! `Stream`: the hot half of a transport over a connected socket: reads, and writes that go out together.
//!
//! What a protocol writes in one turn of the loop is sent at the end of the turn by one system call. The other half,
//! what happens once for a connection, is `ropewalk.asyncio.transports.SocketTransport`, a subclass of asyncio's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::event_loop::{Loop, os_error};
use super::gil::Gil;
use super::names::is_fatal;
use super::stream_reader::StreamReader;

/// More than this is sent at once, without waiting for the end of the turn.
const SOON: usize = 64 * 1024;
/// Chunks sent by one system call.
const CHUNKS: usize = 64;

struct Inner {
    /// -1 once the transport has closed the socket.
    fd: RawFd,
    transport: Option<Py<PyAny>>,
    protocol: Option<Py<PyAny>>,
    /// Whether the protocol brings its own buffer; the transport reads then.
    is_buffered: bool,
    /// A weak reference to a stream reader that takes the data in the protocol's place.
    reader: Option<Py<PyWeakrefReference>>,
    /// Whether the transport wants to be asked before a write and told after a flush: it closes, or has sent its end.
    is_special: bool,
    /// Whether the loop will flush at the end of the turn.
    is_dirty: bool,
    /// Whether the loop waits for the socket to take more.
    is_waiting: bool,
    chunks: VecDeque<Py<PyBytes>>,
    /// How much of the first chunk has been sent.
    sent: usize,
    /// Bytes not sent.
    size: usize,
}

impl Inner {
    fn receiver<'py>(&self, py: Python<'py>) -> Option<Receiver<'py>> {
        match &self.reader {
            Some(reader) => {
                let reader = reader.bind(py).upgrade();
                Some(Receiver::Reader(
                    reader.and_then(|reader| reader.cast_into().ok()),
                ))
            }
            None => Some(Receiver::Protocol(self.protocol.as_ref()?.bind(py).clone())),
        }
    }
}

/// Who takes what was read.
enum Receiver<'py> {
    Protocol(Bound<'py, PyAny>),
    /// Nobody, if the reader is gone.
    Reader(Option<Bound<'py, StreamReader>>),
}

impl Receiver<'_> {
    fn receive(&self, data: Bound<'_, PyBytes>) -> PyResult<()> {
        match self {
            Self::Protocol(protocol) => protocol
                .call_method1(intern!(data.py(), "data_received"), (data,))
                .map(drop),
            Self::Reader(Some(reader)) => reader.get().feed(data),
            Self::Reader(None) => Ok(()),
        }
    }
}

/// What a flush came to.
enum Flushed {
    All,
    /// The socket takes no more for now.
    Full,
    Failed(Errno),
}

/// Reads and writes of a transport.
#[pyclass(frozen, name = "Stream", module = "ropewalk._native")]
pub(crate) struct Stream {
    event_loop: Py<Loop>,
    inner: Gil<RefCell<Inner>>,
}

impl Stream {
    fn transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.inner
            .get(py)
            .borrow()
            .transport
            .as_ref()
            .map(|transport| transport.bind(py).clone())
    }

    /// Sends what there is; drops what was sent outside the borrow.
    fn send(&self, py: Python<'_>) -> Flushed {
        let mut gone = Vec::new();
        let mut guard = self.inner.get(py).borrow_mut();
        let inner = &mut *guard;
        let flushed = loop {
            let Some(first) = inner.chunks.front() else {
                break Flushed::All;
            };
            let first = &first.as_bytes(py)[inner.sent..];
            // SAFETY: the transport tells before it closes the socket, and then `fd` is -1 and there are no chunks.
            let fd = unsafe { BorrowedFd::borrow_raw(inner.fd) };
            let result = if inner.chunks.len() == 1 {
                rustix::net::send(fd, first, SendFlags::NOSIGNAL)
            } else {
                let mut slices = [IoSlice::new(first); CHUNKS];
                let count = inner.chunks.len().min(CHUNKS);
                for (place, chunk) in slices.iter_mut().zip(&inner.chunks).skip(1) {
                    *place = IoSlice::new(chunk.as_bytes(py));
                }
                rustix::net::sendmsg(
                    fd,
                    &slices[..count],
                    &mut SendAncillaryBuffer::default(),
                    SendFlags::NOSIGNAL,
                )
            };
            match result {
                Ok(mut taken) => {
                    inner.size -= taken;
                    while let Some(first) = inner.chunks.front() {
                        let left = first.as_bytes(py).len() - inner.sent;
                        if taken < left {
                            inner.sent += taken;
                            break;
                        }
                        taken -= left;
                        inner.sent = 0;
                        gone.extend(inner.chunks.pop_front());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Flushed::Full,
                Err(errno) => break Flushed::Failed(errno),
            }
        };
        drop(guard);
        drop(gone);
        flushed
    }

    /// Sends what there is and tells the transport what it has to know.
    pub(super) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.get(py).borrow_mut().is_dirty = false;
        if self.inner.get(py).borrow().chunks.is_empty() {
            return Ok(());
        }
        let flushed = self.send(py);
        let Some(transport) = self.transport(py) else {
            return Ok(());
        };
        match flushed {
            Flushed::All => {
                let mut inner = self.inner.get(py).borrow_mut();
                let told = std::mem::replace(&mut inner.is_waiting, false) | inner.is_special;
                drop(inner);
                if told {
                    transport.call_method0(intern!(py, "_drained"))?;
                }
            }
            Flushed::Full => {
                let waiting = std::mem::replace(&mut self.inner.get(py).borrow_mut().is_waiting, true);
                if !waiting {
                    transport.call_method0(intern!(py, "_wait_for_room"))?;
                }
            }
            Flushed::Failed(errno) => {
                self.clear(py);
                let error = os_error(&errno.into()).into_value(py);
                transport.call_method1(intern!(py, "_write_failed"), (error,))?;
            }
        }
        Ok(())
    }

    fn fail(&self, py: Python<'_>, error: PyErr, message: &str) -> PyResult<()> {
        match self.transport(py) {
            Some(transport) => {
                transport.call_method1(intern!(py, "_fatal_error"), (error.into_value(py), message))?;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[pymethods]
impl Stream {
    #[new]
    fn new(event_loop: Py<Loop>, fd: RawFd, transport: Py<PyAny>) -> Self {
        let inner = Inner {
            fd,
            transport: Some(transport),
            protocol: None,
            is_buffered: false,
            reader: None,
            is_special: false,
            is_dirty: false,
            is_waiting: false,
            chunks: VecDeque::new(),
            sent: 0,
            size: 0,
        };
        Self {
            event_loop,
            inner: Gil::new(RefCell::new(inner)),
        }
    }

    /// Send data, together with what else is written in this turn.
    fn write(this: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = this.py();
        let stream = this.get();
        let chunk = match data.cast_exact::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            // A copy, since these may change before they are sent.
            Err(_) if is_bytes_like(data) => {
                py.get_type::<PyBytes>().call1((data,))?.cast_into::<PyBytes>()?
            }
            Err(_) => {
                let name = data.get_type().name()?;
                let message = format!("data argument must be a bytes-like object, not {}", name.repr()?);
                return Err(PyTypeError::new_err(message));
            }
        };
        if stream.inner.get(py).borrow().is_special {
            let Some(transport) = stream.transport(py) else {
                return Ok(());
            };
            if !transport
                .call_method1(intern!(py, "_may_write"), (&chunk,))?
                .is_truthy()?
            {
                return Ok(());
            }
        }
        let length = chunk.as_bytes().len();
        if length == 0 {
            return Ok(());
        }
        let mut inner = stream.inner.get(py).borrow_mut();
        if inner.fd < 0 {
            return Ok(());
        }
        inner.chunks.push_back(chunk.unbind());
        inner.size += length;
        let (waiting, now) = (inner.is_waiting, inner.size > SOON);
        let mark = !waiting && !now && !std::mem::replace(&mut inner.is_dirty, true);
        drop(inner);
        if waiting {
            if let Some(transport) = stream.transport(py) {
                transport.call_method0(intern!(py, "_maybe_pause_protocol"))?;
            }
        } else if now || mark && !stream.event_loop.get().flush_later(py, this) {
            stream.flush(py)?;
        }
        Ok(())
    }

    /// Read once and give the protocol what there is.
    fn read_ready(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let stream = this.get();
        let inner = stream.inner.get(py).borrow();
        if inner.fd < 0 {
            return Ok(());
        }
        if inner.is_buffered {
            drop(inner);
            return match stream.transport(py) {
                Some(transport) => transport.call_method0(intern!(py, "_read_ready_cb")).map(drop),
                None => Ok(()),
            };
        }
        let Some(receiver) = inner.receiver(py) else {
            return Ok(());
        };
        // SAFETY: as in `send`.
        let fd = unsafe { BorrowedFd::borrow_raw(inner.fd) };
        let received = stream.event_loop.get().with_buffer(py, |buffer| {
            loop {
                match rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()) {
                    Err(Errno::INTR) => {}
                    result => {
                        break result
                            .map(|(_, length)| PyBytes::new(py, &buffer[..length.min(buffer.len())]));
                    }
                }
            }
        });
        drop(inner);
        match received {
            Ok(data) if data.as_bytes().is_empty() => match stream.transport(py) {
                Some(transport) => transport
                    .call_method0(intern!(py, "_read_ready__on_eof"))
                    .map(drop),
                None => Ok(()),
            },
            Ok(data) => match receiver.receive(data) {
                Ok(()) => Ok(()),
                Err(error) if is_fatal(error.value(py)) => Err(error),
                Err(error) => stream.fail(py, error, "Fatal error: protocol.data_received() call failed."),
            },
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => stream.fail(
                py,
                os_error(&errno.into()),
                "Fatal read error on socket transport",
            ),
        }
    }

    /// Send what there is, now that the socket has room.
    fn write_ready(&self, py: Python<'_>) -> PyResult<()> {
        self.flush(py)
    }

    /// Read for another protocol from now on, or for the reader that it would pass everything on to.
    fn set_protocol(
        &self,
        py: Python<'_>,
        protocol: Py<PyAny>,
        is_buffered: bool,
        reader: Option<Py<PyWeakrefReference>>,
    ) {
        let mut inner = self.inner.get(py).borrow_mut();
        inner.is_buffered = is_buffered;
        let old = (
            inner.protocol.replace(protocol),
            std::mem::replace(&mut inner.reader, reader),
        );
        drop(inner);
        drop(old);
    }

    /// Ask the transport before writes and tell it after flushes from now on.
    fn watch(&self, py: Python<'_>) {
        self.inner.get(py).borrow_mut().is_special = true;
    }

    /// Forget what is not sent.
    fn clear(&self, py: Python<'_>) {
        let mut inner = self.inner.get(py).borrow_mut();
        let old = std::mem::take(&mut inner.chunks);
        (inner.size, inner.sent, inner.is_waiting) = (0, 0, false);
        drop(inner);
        drop(old);
    }

    /// Let go of the socket, which is about to be closed, and of the protocol.
    fn detach(&self, py: Python<'_>) {
        self.clear(py);
        let mut inner = self.inner.get(py).borrow_mut();
        inner.fd = -1;
        inner.is_special = true;
        let old = (inner.protocol.take(), inner.reader.take());
        drop(inner);
        drop(old);
    }

    /// Bytes not sent.
    fn __len__(&self, py: Python<'_>) -> usize {
        self.inner.get(py).borrow().size
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation of Python's but that of a read,
        // which this then skips: what a stream refers to is kept for one collection more.
        let Ok(inner) = unsafe { self.inner.traversed() }.try_borrow() else {
            return Ok(());
        };
        visit.call(&inner.transport)?;
        visit.call(&inner.reader)?;
        visit.call(&inner.protocol)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.detach(py);
        let old = self.inner.get(py).borrow_mut().transport.take();
        drop(old);
    }
}

fn is_bytes_like(data: &Bound<'_, PyAny>) -> bool {
    data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
}
