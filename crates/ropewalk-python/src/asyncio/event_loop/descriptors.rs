//! Readers and writers of the loop: who waits for a descriptor.

use std::os::fd::{BorrowedFd, RawFd};

use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use ropewalk::asyncio::engine::{Event, Interest, Trigger};

use super::{Entry, Loop, os_error};
use crate::asyncio::handle::{Arguments, Handle, Pending};

/// Who waits for a descriptor.
#[derive(Default)]
pub(crate) struct Source {
    pub(super) reader: Option<Pending>,
    pub(super) writer: Option<Pending>,
}

impl Source {
    pub(super) fn handles(&self) -> impl Iterator<Item = &Pending> {
        self.reader.iter().chain(&self.writer)
    }

    pub(super) fn interest(&self) -> Interest {
        Interest {
            readable: self.reader.is_some(),
            writable: self.writer.is_some(),
        }
    }

    fn side(&mut self, side: Side) -> &mut Option<Pending> {
        match side {
            Side::Read => &mut self.reader,
            Side::Write => &mut self.writer,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Read,
    Write,
}

impl Loop {
    /// Makes ready whoever waits for a descriptor.
    pub(super) fn fire(&self, py: Python<'_>, event: Event) {
        let Ok(mut engine) = self.engine(py) else { return };
        let Some(source) = engine.reactor.source(event.fd) else {
            return;
        };
        let reader = source
            .reader
            .as_ref()
            .filter(|_| event.readiness.readable)
            .map(|handle| handle.clone_ref(py));
        let writer = source
            .writer
            .as_ref()
            .filter(|_| event.readiness.writable)
            .map(|handle| handle.clone_ref(py));
        for handle in [reader, writer].into_iter().flatten() {
            engine.push(Entry::Handle(handle));
        }
    }

    pub(super) fn add<'py>(
        this: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        side: Side,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        this.get().check_closed(py)?;
        let fd = descriptor(fd)?;
        let handle = Handle::create(this, callback, Arguments::from_tuple(arguments), None, None)?;
        let mut guard = this.get().engine(py)?;
        let engine = &mut *guard;
        // SAFETY: the borrow ends with this function; a descriptor that is closed is the system's to refuse.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let new = handle.pending();
        let (result, old) = match engine.reactor.source_mut(fd) {
            Some(source) => {
                let old = source.side(side).replace(new);
                let interest = source.interest();
                let result = engine.reactor.modify(borrowed, interest);
                (result, old.map_or(Gone::Nothing, Gone::Handle))
            }
            None => {
                let mut source = Source::default();
                *source.side(side) = Some(new);
                match engine
                    .reactor
                    .register(borrowed, source.interest(), Trigger::Level, source)
                {
                    Ok(()) => (Ok(()), Gone::Nothing),
                    Err((error, source)) => (Err(error), Gone::Source(source)),
                }
            }
        };
        drop(guard);
        if let Gone::Handle(old) = old {
            old.handle(py).cancel()?;
        }
        result.map_err(|error| os_error(&error))?;
        Ok(handle.into_any())
    }

    pub(super) fn remove(this: &Bound<'_, Self>, fd: &Bound<'_, PyAny>, side: Side) -> PyResult<bool> {
        let py = this.py();
        if this.get().state.get(py).closed.get() {
            return Ok(false);
        }
        let fd = descriptor(fd)?;
        let mut guard = this.get().engine(py)?;
        let Some(source) = guard.reactor.source_mut(fd) else {
            return Ok(false);
        };
        let old = source.side(side).take();
        let interest = source.interest();
        let emptied = if interest == Interest::default() {
            guard.reactor.deregister(fd)
        } else {
            // SAFETY: as in `add`.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            // It can fail only if the descriptor is closed, and then there is nothing to wait for.
            let _ = guard.reactor.modify(borrowed, interest);
            None
        };
        drop(guard);
        drop(emptied);
        match old {
            Some(handle) => {
                handle.handle(py).cancel()?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// What a registration replaced, to be dropped outside the borrow.
enum Gone {
    Nothing,
    Handle(Pending),
    #[expect(dead_code, reason = "kept to be dropped later")]
    Source(Source),
}

/// The number of a descriptor or of an object with `fileno()`, with the errors of the standard library's selectors.
fn descriptor(fd: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let number = match fd.extract::<RawFd>() {
        Ok(number) => number,
        Err(error) if error.is_instance_of::<PyOverflowError>(fd.py()) => return Err(error),
        Err(_) => fileno(fd).map_err(|error| invalid(fd, error))?,
    };
    if number < 0 {
        return Err(PyValueError::new_err(format!(
            "Invalid file descriptor: {number}"
        )));
    }
    Ok(number)
}

fn fileno(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    file.call_method0(intern!(file.py(), "fileno"))?.extract()
}

fn invalid(file: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = file.py();
    let misfit = error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py);
    if !misfit {
        return error;
    }
    match file.repr() {
        Ok(repr) => PyValueError::new_err(format!("Invalid file object: {repr}")),
        Err(error) => error,
    }
}
