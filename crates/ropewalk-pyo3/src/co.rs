use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::{Rc, Weak};

use pyo3::PyTraverseError;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyStopIteration;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use pyo3::types::iterator::PySendResult;
use ropewalk::coroutine;

use crate::Error;
use crate::convert::{to_exception, to_python};

/// The body's end of a [`Generator`](crate::Generator): a [`coroutine::Co`] that also knows Python's iterables and
/// its garbage collector.
pub struct Co<Y, S = Option<Py<PyAny>>> {
    co: coroutine::Co<'static, Y, S, PyErr>,
    held: HeldObjects,
}

impl<Y, S> Co<Y, S> {
    pub(crate) fn new(co: coroutine::Co<'static, Y, S, PyErr>, held: HeldObjects) -> Self {
        Co { co, held }
    }

    /// Keeps `object` for the body in sight of the garbage collector.
    pub fn hold(&self, object: Py<PyAny>) -> Held {
        self.held.hold(object)
    }

    /// Lets the caller talk to a Python iterable until it ends: `result = yield from iterable` (PEP 380).
    ///
    /// Values sent, exceptions thrown and `close` are passed on to it.
    ///
    /// # Errors
    /// What it raises, also the AttributeError of an iterator that has no `send`; TypeError when it is no iterable,
    /// or yields what is no `Y`; GeneratorExit, after it was closed.
    pub async fn yield_from_python(&mut self, iterable: Py<PyAny>) -> Result<Py<PyAny>, Error>
    where
        Y: for<'py> FromPyObjectOwned<'py>,
        S: for<'py> IntoPyObject<'py> + 'static,
    {
        let iterator = Python::attach(|py| {
            iterable
                .bind(py)
                .try_iter()
                .map(|iterator| iterator.into_any().unbind())
        })?;
        drop(iterable); // the collector knows of the iterator alone
        let iterator = self.hold(iterator);
        let mut step = Python::attach(|py| iterator.send(py, py.None()));
        loop {
            let item = match step? {
                Step::Yielded(item) => item,
                Step::Returned(value) => return Ok(value),
            };
            let item = Python::attach(move |py| item.bind(py).extract::<Y>().map_err(Into::into))?;
            let received = self.co.yield_(item).await;
            step = Python::attach(|py| match received {
                Ok(value) => iterator.send(py, to_python(py, value)?),
                Err(Error::GeneratorExit) => {
                    iterator.close(py)?;
                    Err(Error::GeneratorExit)
                }
                Err(error) => iterator.throw(py, error),
            });
        }
    }
}

impl<Y, S> Deref for Co<Y, S> {
    type Target = coroutine::Co<'static, Y, S, PyErr>;

    fn deref(&self) -> &Self::Target {
        &self.co
    }
}

impl<Y, S> DerefMut for Co<Y, S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.co
    }
}

/// A Python object that a body holds and the garbage collector knows of. It is dropped with the body.
#[derive(Clone)]
pub struct Held(Rc<Py<PyAny>>);

impl Deref for Held {
    type Target = Py<PyAny>;

    fn deref(&self) -> &Py<PyAny> {
        &self.0
    }
}

type Step = coroutine::Step<Py<PyAny>, Py<PyAny>>;

/// An iterator that is delegated to.
impl Held {
    fn send(&self, py: Python<'_>, value: Py<PyAny>) -> Result<Step, Error> {
        let iterator = self.bind(py).cast::<PyIterator>().map_err(PyErr::from)?;
        Ok(match iterator.send(value.bind(py))? {
            PySendResult::Next(item) => Step::Yielded(item.unbind()),
            PySendResult::Return(value) => Step::Returned(value.unbind()),
        })
    }

    fn throw(&self, py: Python<'_>, error: Error) -> Result<Step, Error> {
        let Some(throw) = self.bind(py).getattr_opt("throw")? else {
            return Err(error);
        };
        match throw.call1((to_exception(py, error),)) {
            Ok(item) => Ok(Step::Yielded(item.unbind())),
            Err(stop) if stop.is_instance_of::<PyStopIteration>(py) => {
                Ok(Step::Returned(stop.value(py).getattr("value")?.unbind()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(close) = self.bind(py).getattr_opt("close")? {
            close.call0()?;
        }
        Ok(())
    }
}

/// What the bodies of one generator hold. The reference counted is that of the body's `Held`, so that the
/// collector is told of each exactly as often as the generator owns it.
#[derive(Clone, Default)]
pub(crate) struct HeldObjects(Rc<RefCell<Vec<Weak<Py<PyAny>>>>>);

impl HeldObjects {
    fn hold(&self, object: Py<PyAny>) -> Held {
        let held = Rc::new(object);
        let mut all = self.0.borrow_mut();
        all.retain(|held| held.strong_count() > 0);
        all.push(Rc::downgrade(&held));
        Held(held)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .try_for_each(|held| visit.call(&*held))
    }
}
