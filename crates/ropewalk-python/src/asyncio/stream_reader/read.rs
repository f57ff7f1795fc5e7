//! A read that is or will be awaited.

use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{ffi, intern};

use super::{StreamReader, optional};
use crate::asyncio::call::{self, Attempt, Operation};
use crate::asyncio::event_loop::Loop;
use crate::asyncio::future::Future;
use crate::asyncio::raw::Class;

pub(super) enum Kind {
    Some(usize),
    Exactly(usize),
    Until(Py<PyBytes>),
    Line,
    /// A line of `async for`.
    Next,
}

/// A read that is under way.
struct Read {
    reader: Py<StreamReader>,
    kind: Kind,
    begun: bool,
    /// No separator begins before this place.
    offset: usize,
}

pub(super) fn create<'py>(reader: &Bound<'py, StreamReader>, kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    let read = Read {
        reader: reader.clone().unbind(),
        kind,
        begun: false,
        offset: 0,
    };
    call::create(reader.py(), read)
}

/// How the search for a separator ends.
enum Found {
    /// What was read, the separator included.
    Until(Py<PyAny>),
    Wait,
    /// The stream ended before; what there was.
    Incomplete(Py<PyBytes>),
    /// Too long, and by how much it may be consumed; nothing was taken.
    Overrun(&'static str, usize),
}

impl Read {
    fn find(&mut self, py: Python<'_>, separator: &[u8]) -> PyResult<Found> {
        let reader = self.reader.get();
        let inner = reader.inner.get(py).borrow();
        let (bytes, limit) = (inner.bytes(py), inner.limit);
        let (length, eof) = (bytes.len(), inner.eof);
        let found = bytes
            .get(self.offset..)
            .and_then(|rest| match separator {
                [byte] => memchr::memchr(*byte, rest),
                _ => memchr::memmem::find(rest, separator),
            })
            .map(|place| place + self.offset);
        drop(inner);
        if let Some(place) = found {
            if place as f64 > limit {
                let message = "Separator is found, but chunk is longer than limit";
                return Ok(Found::Overrun(message, place));
            }
            let data = reader.take(py, place + separator.len())?;
            reader.maybe_resume(py)?;
            return Ok(Found::Until(data.into_any().unbind()));
        }
        if length >= self.offset + separator.len() {
            self.offset = length + 1 - separator.len();
            if self.offset as f64 > limit {
                let message = "Separator is not found, and chunk exceed the limit";
                return Ok(Found::Overrun(message, self.offset));
            }
        }
        if eof {
            return Ok(Found::Incomplete(reader.take_all(py)?.unbind()));
        }
        Ok(Found::Wait)
    }

    /// A line, with asyncio's errors of `readuntil` made those of `readline`.
    fn line(&mut self, py: Python<'_>) -> PyResult<Attempt> {
        let (message, consumed) = match self.find(py, b"\n")? {
            Found::Until(line) => return Ok(Attempt::Done(line)),
            Found::Incomplete(rest) => return Ok(Attempt::Done(rest.into_any())),
            Found::Wait => return self.wait(py, "readuntil"),
            Found::Overrun(message, consumed) => (message, consumed),
        };
        let reader = self.reader.get();
        let at_end = reader.inner.get(py).borrow().bytes(py).get(consumed) == Some(&b'\n');
        let gone = if at_end { consumed + 1 } else { reader.len(py) };
        reader.take(py, gone)?;
        reader.maybe_resume(py)?;
        let error = PyValueError::new_err(message);
        let context = overrun(py, message, consumed)?.into_value(py);
        error.value(py).setattr("__context__", context)?;
        Err(error)
    }

    /// Makes the future that the next data, or the end, sets.
    fn wait(&self, py: Python<'_>, name: &str) -> PyResult<Attempt> {
        let reader = self.reader.get();
        let inner = reader.inner.get(py).borrow();
        if inner.waiter.is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "{name}() called while another coroutine is already waiting for incoming data"
            )));
        }
        let paused = inner.paused;
        let event_loop = optional(py, &inner.event_loop).unwrap_or_else(|| py.None());
        drop(inner);
        if paused {
            reader.resume(py)?;
        }
        let waiter = match event_loop.bind(py).cast::<Loop>() {
            Ok(native) => Future::create(native)?,
            Err(_) => event_loop.bind(py).call_method0(intern!(py, "create_future"))?,
        };
        let old = reader
            .inner
            .get(py)
            .borrow_mut()
            .waiter
            .replace(waiter.clone().unbind());
        drop(old);
        Ok(Attempt::Wait(waiter.unbind()))
    }
}

fn overrun(py: Python<'_>, message: &str, consumed: usize) -> PyResult<PyErr> {
    let class = py.import("asyncio.exceptions")?.getattr("LimitOverrunError")?;
    Ok(PyErr::from_value(class.call1((message, consumed))?))
}

fn incomplete(py: Python<'_>, partial: Py<PyBytes>, expected: Option<usize>) -> PyErr {
    let class = py
        .import("asyncio.exceptions")
        .and_then(|exceptions| exceptions.getattr("IncompleteReadError"));
    match class.and_then(|class| class.call1((partial, expected))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

impl Operation for Read {
    fn class() -> &'static Class {
        static CLASS: Class = Class::new();
        &CLASS
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Some(_) => "StreamReader.read",
            Kind::Exactly(_) => "StreamReader.readexactly",
            Kind::Until(_) => "StreamReader.readuntil",
            Kind::Line => "StreamReader.readline",
            Kind::Next => "StreamReader.__anext__",
        }
    }

    fn attempt(&mut self, py: Python<'_>) -> PyResult<Attempt> {
        let first = !std::mem::replace(&mut self.begun, true);
        let inner = self.reader.get().inner.get(py).borrow();
        let (length, eof) = (inner.bytes(py).len(), inner.eof);
        let exception = optional(py, &inner.exception).filter(|_| first);
        drop(inner);
        if let Some(exception) = exception {
            return Err(PyErr::from_value(exception.into_bound(py)));
        }
        let reader = self.reader.get();
        let count = match self.kind {
            Kind::Some(0) | Kind::Exactly(0) => 0,
            Kind::Some(_) if first && length == 0 && !eof => return self.wait(py, "read"),
            Kind::Some(count) => count.min(length),
            Kind::Exactly(count) if length >= count => count,
            Kind::Exactly(count) if eof => {
                return Err(incomplete(py, reader.take_all(py)?.unbind(), Some(count)));
            }
            Kind::Exactly(_) => return self.wait(py, "readexactly"),
            Kind::Until(ref separator) => {
                let separator = separator.clone_ref(py);
                return match self.find(py, separator.as_bytes(py))? {
                    Found::Until(data) => Ok(Attempt::Done(data)),
                    Found::Wait => self.wait(py, "readuntil"),
                    Found::Incomplete(partial) => Err(incomplete(py, partial, None)),
                    Found::Overrun(message, consumed) => Err(overrun(py, message, consumed)?),
                };
            }
            Kind::Line => return self.line(py),
            Kind::Next => {
                let line = self.line(py)?;
                return match &line {
                    Attempt::Done(line) if !line.is_truthy(py)? => Err(PyStopAsyncIteration::new_err(())),
                    _ => Ok(line),
                };
            }
        };
        let data = reader.take(py, count)?;
        if !matches!(self.kind, Kind::Some(0) | Kind::Exactly(0)) {
            reader.maybe_resume(py)?;
        }
        Ok(Attempt::Done(data.into_any().unbind()))
    }

    fn waited(&mut self, waiter: &Bound<'_, PyAny>, _woken: bool) -> PyResult<()> {
        let reader = self.reader.get();
        let old = reader.inner.get(waiter.py()).borrow_mut().waiter.take();
        drop(old);
        Ok(())
    }

    fn held(&self) -> [Option<*mut ffi::PyObject>; 2] {
        [Some(self.reader.as_ptr()), None]
    }
}

/// A `drain` with nothing to wait for.
struct Drained;

impl Operation for Drained {
    fn class() -> &'static Class {
        static CLASS: Class = Class::new();
        &CLASS
    }

    fn name(&self) -> &'static str {
        "StreamWriter.drain"
    }

    fn attempt(&mut self, py: Python<'_>) -> PyResult<Attempt> {
        Ok(Attempt::Done(py.None()))
    }

    fn waited(&mut self, _: &Bound<'_, PyAny>, _: bool) -> PyResult<()> {
        Ok(())
    }

    fn held(&self) -> [Option<*mut ffi::PyObject>; 2] {
        [None, None]
    }
}

/// What `StreamWriter.drain` returns when there is nothing to wait for.
#[pyfunction]
pub(crate) fn drained(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    call::create(py, Drained)
}

/// Makes the types of the calls.
pub(crate) fn build(py: Python<'_>) -> PyResult<()> {
    call::build::<Read>(
        py,
        c"ropewalk.asyncio.Read",
        c"A read of a StreamReader, to be awaited.",
    )?;
    call::build::<Drained>(
        py,
        c"ropewalk.asyncio.Drained",
        c"A drain of a StreamWriter, to be awaited.",
    )
}
