//! `Handle` and `TimerHandle`: a callback that waits its turn, and may be cancelled.

use std::cell::{Cell, RefCell};

use pyo3::class::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::context;
use super::event_loop::Loop;
use super::gil::Gil;
use super::names::{Names, is_fatal};

/// The arguments of a callback: most have none or one, and need no tuple.
pub(super) enum Arguments {
    None,
    One(Py<PyAny>),
    Many(Py<PyTuple>),
}

impl Arguments {
    pub(super) fn from(arguments: &Bound<'_, PyTuple>) -> PyResult<Self> {
        Ok(match arguments.len() {
            0 => Self::None,
            1 => Self::One(arguments.get_item(0)?.unbind()),
            _ => Self::Many(arguments.clone().unbind()),
        })
    }
}

struct Call {
    /// None once cancelled.
    callback: Option<Py<PyAny>>,
    arguments: Arguments,
    context: Option<Py<PyAny>>,
    event_loop: Option<Py<Loop>>,
    source_traceback: Option<Py<PyAny>>,
    /// In debug mode, how a cancelled handle looked.
    repr: Option<Py<PyAny>>,
}

/// A callback that waits its turn; an instance of `asyncio.Handle` by `isinstance`.
#[pyclass(frozen, subclass, weakref, name = "Handle", module = "ropewalk.asyncio")]
pub(super) struct Handle {
    call: Gil<RefCell<Call>>,
    cancelled: Gil<Cell<bool>>,
    /// Whether it lies among the timers.
    scheduled: Gil<Cell<bool>>,
}

/// A callback that waits for a time; an instance of `asyncio.TimerHandle` by `isinstance`.
#[pyclass(frozen, weakref, extends = Handle, name = "TimerHandle", module = "ropewalk.asyncio")]
pub(super) struct TimerHandle {
    when: f64,
}

impl Handle {
    fn parts<'py>(
        event_loop: &Bound<'py, Loop>,
        callback: &Bound<'py, PyAny>,
        arguments: Arguments,
        context: Option<Bound<'py, PyAny>>,
        scheduled: bool,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context,
            None => context::copy(py)?,
        };
        let source_traceback = match event_loop.get().debug(py) {
            true => Some(Names::get(py)?.extract_stack.call0(py)?),
            false => None,
        };
        let call = Call {
            callback: Some(callback.clone().unbind()),
            arguments,
            context: Some(context.unbind()),
            event_loop: Some(event_loop.clone().unbind()),
            source_traceback,
            repr: None,
        };
        Ok(Self {
            call: Gil::new(RefCell::new(call)),
            cancelled: Gil::new(Cell::new(false)),
            scheduled: Gil::new(Cell::new(scheduled)),
        })
    }

    pub(super) fn create<'py>(
        event_loop: &Bound<'py, Loop>,
        callback: &Bound<'py, PyAny>,
        arguments: Arguments,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        Bound::new(
            event_loop.py(),
            Self::parts(event_loop, callback, arguments, context, false)?,
        )
    }

    pub(super) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.cancelled.get(py).get()
    }

    /// Says that the handle has left the timers.
    pub(super) fn unscheduled(&self, py: Python<'_>) {
        self.scheduled.get(py).set(false);
    }

    /// Calls the callback in its context; tells the exception handler what it raises.
    pub(super) fn run<'py>(this: &Bound<'py, Self>) -> PyResult<()> {
        let py = this.py();
        let call = this.get().call.get(py).borrow();
        let (Some(callback), Some(context)) = (&call.callback, &call.context) else {
            return Ok(());
        };
        let (callback, context) = (callback.bind(py).clone(), context.bind(py).clone());
        let arguments = match &call.arguments {
            Arguments::None => Arguments::None,
            Arguments::One(one) => Arguments::One(one.clone_ref(py)),
            Arguments::Many(many) => Arguments::Many(many.clone_ref(py)),
        };
        drop(call);
        let result = context::enter(&context).and_then(|()| {
            let result = match arguments {
                Arguments::None => callback.call0(),
                Arguments::One(one) => callback.call1((one,)),
                Arguments::Many(many) => callback.call1(many.bind(py)),
            };
            context::exit(&context)?;
            result
        });
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_fatal(&error.value(py).clone()) => Err(error),
            Err(error) => Self::report(this, &callback, error),
        }
    }

    #[cold]
    fn report<'py>(this: &Bound<'py, Self>, callback: &Bound<'py, PyAny>, error: PyErr) -> PyResult<()> {
        let py = this.py();
        let handle = this.get();
        let arguments = handle._args(py)?;
        let source = Names::get(py)?
            .format_callback_source
            .bind(py)
            .call1((callback, arguments))?;
        let context = PyDict::new(py);
        context.set_item("message", format!("Exception in callback {source}"))?;
        context.set_item("exception", error.into_value(py))?;
        context.set_item("handle", this)?;
        if let Some(source) = handle._source_traceback(py) {
            context.set_item("source_traceback", source)?;
        }
        let event_loop = handle
            .call
            .get(py)
            .borrow()
            .event_loop
            .as_ref()
            .map(|l| l.bind(py).clone());
        if let Some(event_loop) = event_loop {
            event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))?;
        }
        Ok(())
    }

    fn cancel_call(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let handle = this.get();
        if handle.cancelled.get(py).get() {
            return Ok(());
        }
        let event_loop = handle
            .call
            .get(py)
            .borrow()
            .event_loop
            .as_ref()
            .map(|l| l.bind(py).clone());
        let debug = event_loop
            .as_ref()
            .is_some_and(|event_loop| event_loop.get().debug(py));
        let repr = if debug {
            Some(this.repr()?.into_any().unbind())
        } else {
            None
        };
        handle.cancelled.get(py).set(true);
        let mut call = handle.call.get(py).borrow_mut();
        let old = (
            call.callback.take(),
            std::mem::replace(&mut call.arguments, Arguments::None),
        );
        if repr.is_some() {
            call.repr = repr;
        }
        drop(call);
        drop(old);
        if handle.scheduled.get(py).get()
            && let Some(event_loop) = event_loop
        {
            event_loop.get().timer_cancelled(py);
        }
        Ok(())
    }

    /// What the collector sees of a handle.
    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation of Python's.
        let Ok(call) = unsafe { self.call.traversed() }.try_borrow() else {
            return Ok(());
        };
        visit.call(&call.callback)?;
        match &call.arguments {
            Arguments::None => {}
            Arguments::One(one) => visit.call(one)?,
            Arguments::Many(many) => visit.call(many)?,
        }
        visit.call(&call.context)?;
        visit.call(&call.event_loop)?;
        visit.call(&call.source_traceback)?;
        visit.call(&call.repr)
    }

    fn clear(&self, py: Python<'_>) {
        let empty = Call {
            callback: None,
            arguments: Arguments::None,
            context: None,
            event_loop: None,
            source_traceback: None,
            repr: None,
        };
        let old = self.call.get(py).replace(empty);
        drop(old);
    }
}

#[pymethods]
impl Handle {
    /// `asyncio.Handle`, so that `isinstance` holds without the fields of that class.
    #[getter]
    fn __class__(&self, py: Python<'_>) -> PyResult<Py<PyType>> {
        Ok(Names::get(py)?.handle.clone_ref(py))
    }

    /// Cancel the callback; it will not run.
    fn cancel(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::cancel_call(this)
    }

    /// Whether the callback was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.is_cancelled(py)
    }

    /// The context that the callback runs in.
    fn get_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call
            .get(py)
            .borrow()
            .context
            .as_ref()
            .map(|context| context.clone_ref(py))
    }

    fn _run(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::run(this)
    }

    #[getter]
    fn _cancelled(&self, py: Python<'_>) -> bool {
        self.is_cancelled(py)
    }

    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> bool {
        self.scheduled.get(py).get()
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call
            .get(py)
            .borrow()
            .callback
            .as_ref()
            .map(|callback| callback.clone_ref(py))
    }

    #[getter]
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.call.get(py).borrow();
        if call.callback.is_none() {
            return Ok(None);
        }
        Ok(Some(match &call.arguments {
            Arguments::None => PyTuple::empty(py),
            Arguments::One(one) => PyTuple::new(py, [one])?,
            Arguments::Many(many) => many.bind(py).clone(),
        }))
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.get_context(py)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Option<Py<Loop>> {
        self.call
            .get(py)
            .borrow()
            .event_loop
            .as_ref()
            .map(|event_loop| event_loop.clone_ref(py))
    }

    #[getter]
    fn _repr(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call
            .get(py)
            .borrow()
            .repr
            .as_ref()
            .map(|repr| repr.clone_ref(py))
    }

    #[getter]
    fn _source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call
            .get(py)
            .borrow()
            .source_traceback
            .as_ref()
            .map(|source| source.clone_ref(py))
    }

    fn _repr_info<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        Names::get(py)?
            .handle
            .bind(py)
            .call_method1("_repr_info", (this,))
    }

    fn __repr__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        Names::get(py)?.handle.bind(py).call_method1("__repr__", (this,))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.clear(py);
    }
}

impl TimerHandle {
    pub(super) fn create<'py>(
        event_loop: &Bound<'py, Loop>,
        when: f64,
        callback: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let handle = Handle::parts(event_loop, callback, Arguments::from(arguments)?, context, true)?;
        Bound::new(
            event_loop.py(),
            PyClassInitializer::from(handle).add_subclass(Self { when }),
        )
    }
}

#[pymethods]
impl TimerHandle {
    /// `asyncio.TimerHandle`, so that `isinstance` holds without the fields of that class.
    #[getter]
    fn __class__(&self, py: Python<'_>) -> PyResult<Py<PyType>> {
        Ok(Names::get(py)?.timer_handle.clone_ref(py))
    }

    /// The time, in seconds of the loop's clock, at which the callback is due.
    fn when(&self) -> f64 {
        self.when
    }

    #[getter]
    fn _when(&self) -> f64 {
        self.when
    }

    fn _repr_info<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let info = Names::get(py)?
            .handle
            .bind(py)
            .call_method1("_repr_info", (this,))?;
        let place = if this.as_super().get().is_cancelled(py) {
            2
        } else {
            1
        };
        info.call_method1("insert", (place, format!("when={}", this.getattr("_when")?)))?;
        Ok(info)
    }

    fn __hash__(this: &Bound<'_, Self>) -> PyResult<isize> {
        this.getattr("_when")?.hash()
    }

    fn __richcmp__<'py>(
        this: &Bound<'py, Self>,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> PyResult<Py<PyAny>> {
        let py = this.py();
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        let same = || -> PyResult<bool> {
            let (a, b) = (this.as_super().get(), other.as_super().get());
            Ok(this.get().when == other.get().when
                && a._callback(py).into_pyobject(py)?.eq(b._callback(py))?
                && a._args(py)?.into_pyobject(py)?.eq(b._args(py)?)?
                && a.is_cancelled(py) == b.is_cancelled(py))
        };
        let (a, b) = (this.get().when, other.get().when);
        let answer = match op {
            CompareOp::Lt => a < b,
            CompareOp::Gt => a > b,
            CompareOp::Le => a < b || same()?,
            CompareOp::Ge => a > b || same()?,
            CompareOp::Eq => same()?,
            CompareOp::Ne => !same()?,
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }
}
