use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use ropewalk::coroutine::{Coroutine, State, Step};
use send_wrapper::SendWrapper;

use crate::Error;
use crate::co::{Co, HeldObjects};
use crate::convert::{from_exception, thrown, to_exception, to_python};

/// A Rust coroutine as a Python generator object.
#[pyclass(frozen, weakref, module = "ropewalk_pyo3")]
pub struct Generator {
    name: String,
    /// Present until the drop.
    own: Option<SendWrapper<Own>>,
}

/// What only the generator's own thread may touch.
struct Own {
    /// Gone once the collector has cleared it.
    coroutine: RefCell<Option<Rc<dyn Resume>>>,
    held: HeldObjects,
}

impl Generator {
    /// Makes a generator with `name` as its `__name__`; `body` is called at once, the future that it returns runs at
    /// the first resume, with the GIL held.
    pub fn new<Y, S, R, B, F>(name: &str, body: B) -> Self
    where
        Y: for<'py> IntoPyObject<'py> + 'static,
        S: for<'py> FromPyObjectOwned<'py> + Default + 'static,
        R: for<'py> IntoPyObject<'py> + 'static,
        B: FnOnce(Co<Y, S>) -> F,
        F: Future<Output = Result<R, Error>> + 'static,
    {
        let held = HeldObjects::default();
        let coroutine = Coroutine::new(|co| body(Co::new(co, held.clone())));
        Generator::with(name, coroutine, held)
    }

    /// Shows a coroutine that is there already, of either kind and in any state.
    ///
    /// The body of a stackful one should not call into Python: from 3.14 on Python checks how deep its C stack is, and
    /// takes any other stack for an overflow.
    pub fn from_coroutine<Y, S, R>(name: &str, coroutine: Coroutine<'static, Y, S, R, PyErr>) -> Self
    where
        Y: for<'py> IntoPyObject<'py> + 'static,
        S: for<'py> FromPyObjectOwned<'py> + Default + 'static,
        R: for<'py> IntoPyObject<'py> + 'static,
    {
        Generator::with(name, coroutine, HeldObjects::default())
    }

    fn with(name: &str, coroutine: impl Resume + 'static, held: HeldObjects) -> Self {
        let coroutine = RefCell::new(Some(Rc::new(coroutine) as Rc<dyn Resume>));
        Generator {
            name: name.to_owned(),
            own: Some(SendWrapper::new(Own { coroutine, held })),
        }
    }

    /// The coroutine, unless it was collected; RuntimeError on a foreign thread.
    fn coroutine(&self) -> PyResult<Option<Rc<dyn Resume>>> {
        match &self.own {
            Some(own) if own.valid() => Ok(own.coroutine.borrow().clone()),
            _ => Err(PyRuntimeError::new_err(format!(
                "generator '{}' belongs to another thread",
                self.name
            ))),
        }
    }

    fn state(&self) -> PyResult<State> {
        Ok(self
            .coroutine()?
            .map_or(State::Closed, |coroutine| coroutine.state()))
    }

    /// The yielded value, or `None` at the end without a value, which is how `__next__` reports it.
    fn step(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let Some(coroutine) = self.coroutine()? else {
            return Ok(None);
        };
        match coroutine.send(value) {
            Ok(Step::Yielded(value)) => Ok(Some(value)),
            Ok(Step::Returned(value)) if value.is_none(py) => Ok(None),
            Ok(Step::Returned(value)) => Err(stop_iteration(py, value)),
            Err(Error::Finished) => Ok(None),
            Err(error) => Err(to_exception(py, error)),
        }
    }
}

/// With `(value,)` for its arguments, so that a value that is a tuple stays one.
fn stop_iteration(py: Python<'_>, value: Py<PyAny>) -> PyErr {
    if value.is_none(py) {
        PyStopIteration::new_err(())
    } else {
        PyStopIteration::new_err((value,))
    }
}

#[pymethods]
impl Generator {
    #[getter]
    fn __name__(&self) -> &str {
        &self.name
    }

    #[getter]
    fn __qualname__(&self) -> &str {
        &self.name
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<generator object {} at {:p}>", slf.get().name, slf.as_ptr())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py, py.None().bind(py))
    }

    /// Resumes the generator with `value` as the result of its yield.
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.step(value.py(), value)?
            .ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Raises an exception at the generator's yield.
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &self,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = typ.py();
        let exception = thrown(typ, val, tb)?;
        let Some(coroutine) = self.coroutine()? else {
            return Err(exception);
        };
        match coroutine.throw(from_exception(py, &exception)) {
            Ok(Step::Yielded(value)) => Ok(value),
            Ok(Step::Returned(value)) => Err(stop_iteration(py, value)),
            // The very exception that was thrown, not one of its kind.
            Err(Error::GeneratorExit | Error::Finished) => Err(exception),
            Err(error @ Error::RaisedStopIteration) if exception.is_instance_of::<PyStopIteration>(py) => {
                let error = to_exception(py, error);
                error.set_cause(py, Some(exception));
                Err(error)
            }
            Err(error) => Err(to_exception(py, error)),
        }
    }

    /// Raises GeneratorExit at the generator's yield, for it to clean up.
    fn close(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.coroutine()?
            .map_or(Ok(py.None()), |coroutine| coroutine.close(py))
    }

    #[getter]
    fn gi_running(&self) -> PyResult<bool> {
        Ok(self.state()? == State::Running)
    }

    #[getter]
    fn gi_suspended(&self) -> PyResult<bool> {
        Ok(self.state()? == State::Suspended)
    }

    /// There is no Python frame; this stands for one as far as `inspect.getgeneratorstate` looks at it.
    #[getter]
    fn gi_frame(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let last_instruction = match self.state()? {
            State::Closed => return Ok(py.None()),
            State::Created => -1,
            _ => 0,
        };
        let fields = [("f_lasti", last_instruction)].into_py_dict(py)?;
        Ok(py
            .import("types")?
            .getattr("SimpleNamespace")?
            .call((), Some(&fields))?
            .unbind())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.own {
            Some(own) if own.valid() => own.held.traverse(&visit),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        if let Some(own) = self.own.as_ref().filter(|own| own.valid()) {
            own.finish();
        }
    }
}

impl Own {
    /// Closes and drops the body. Nobody is there to hear of errors, nor to lose an exception that is under way.
    fn finish(&self) {
        let Some(coroutine) = self.coroutine.take() else {
            return;
        };
        Python::attach(|py| {
            let pending = PyErr::take(py);
            if let Err(error) = coroutine.close(py) {
                error.write_unraisable(py, None);
            }
            drop(coroutine);
            if let Some(pending) = pending {
                pending.restore(py);
            }
        });
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let Some(own) = self.own.take() else { return };
        if own.valid() {
            return own.finish();
        }
        std::mem::forget(own);
        Python::attach(|py| {
            let message = format!(
                "generator '{}' was dropped on another thread than its own: leaked",
                self.name
            );
            PyRuntimeError::new_err(message).write_unraisable(py, None);
        });
    }
}

/// A coroutine whose values are Python objects.
trait Resume {
    fn send(&self, value: &Bound<'_, PyAny>) -> Result<Step<Py<PyAny>, Py<PyAny>>, Error>;
    fn throw(&self, error: Error) -> Result<Step<Py<PyAny>, Py<PyAny>>, Error>;
    fn close(&self, py: Python<'_>) -> PyResult<Py<PyAny>>;
    fn state(&self) -> State;
}

impl<Y, S, R> Resume for Coroutine<'static, Y, S, R, PyErr>
where
    Y: for<'py> IntoPyObject<'py> + 'static,
    S: for<'py> FromPyObjectOwned<'py> + Default + 'static,
    R: for<'py> IntoPyObject<'py> + 'static,
{
    fn send(&self, value: &Bound<'_, PyAny>) -> Result<Step<Py<PyAny>, Py<PyAny>>, Error> {
        let step = if value.is_none() {
            self.next()
        } else if Coroutine::state(self) == State::Suspended {
            match value.extract() {
                Ok(value) => Coroutine::send(self, value),
                Err(error) => Coroutine::throw(self, Into::<PyErr>::into(error)),
            }
        } else {
            // The value is not looked at: what is wrong is the state.
            Coroutine::send(self, S::default())
        };
        objects(value.py(), step?)
    }

    fn throw(&self, error: Error) -> Result<Step<Py<PyAny>, Py<PyAny>>, Error> {
        let step = Coroutine::throw(self, error)?;
        Python::attach(|py| objects(py, step))
    }

    fn close(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match Coroutine::close(self) {
            Ok(None) => Ok(py.None()),
            // Since 3.13 `close` gives the value.
            Ok(Some(value)) if py.version_info() >= (3, 13) => to_python(py, value),
            Ok(Some(_)) => Ok(py.None()),
            Err(Error::Raised(error)) if error.is_instance_of::<PyGeneratorExit>(py) => Ok(py.None()),
            Err(error) => Err(to_exception(py, error)),
        }
    }

    fn state(&self) -> State {
        Coroutine::state(self)
    }
}

fn objects<Y, R>(py: Python<'_>, step: Step<Y, R>) -> Result<Step<Py<PyAny>, Py<PyAny>>, Error>
where
    Y: for<'py> IntoPyObject<'py> + 'static,
    R: for<'py> IntoPyObject<'py> + 'static,
{
    Ok(match step {
        Step::Yielded(value) => Step::Yielded(to_python(py, value)?),
        Step::Returned(value) => Step::Returned(to_python(py, value)?),
    })
}
