//! `Future`: a result to come, on one loop. Semantics are those of `asyncio.Future` of the interpreter in use.

mod callbacks;
mod class;
mod iter;

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{IntoPyObjectExt, ffi, intern};

use super::event_loop::Loop;
use super::names::{Names, error};
use super::raw::{Class, Part, Ref, Visit, Visited, wrapper};
use super::task::{self, Task};
pub(super) use callbacks::Callback;
use callbacks::Callbacks;
pub(super) use class::{
    attributes, build, dealloc, finalize, has_report, methods, slots, tp_clear, tp_traverse,
};

/// Where a future stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Cancelled,
    Finished,
}

/// What a future holds; see `raw` for the rules.
pub(super) struct Fields {
    pub(super) state: State,
    /// Set and cleared by a gathering that looks for futures given twice.
    pub(super) marked: bool,
    /// Set by `await`, cleared by the task that took the future from the coroutine.
    pub(super) blocking: bool,
    /// Whether the loop is ours, and its `call_soon` too.
    pub(super) native: bool,
    pub(super) log_traceback: bool,
    /// None before `__init__`.
    pub(super) event_loop: Option<Ref>,
    pub(super) result: Option<Ref>,
    pub(super) exception: Option<Ref<PyBaseException>>,
    exception_traceback: Option<Ref>,
    pub(super) cancel_message: Option<Ref>,
    pub(super) cancelled_exc: Option<Ref<PyBaseException>>,
    source_traceback: Option<Ref>,
    callbacks: Callbacks,
}

impl Fields {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Pending,
            marked: false,
            blocking: false,
            native: false,
            log_traceback: false,
            event_loop: None,
            result: None,
            exception: None,
            exception_traceback: None,
            cancel_message: None,
            cancelled_exc: None,
            source_traceback: None,
            callbacks: Callbacks::new(),
        }
    }
}

impl Fields {
    /// Whether to drop them may free a long chain: not those of a future that came to a plain result.
    fn may_nest(&self) -> bool {
        // SAFETY: reads the type of a live object.
        let plain = |result: &Ref| unsafe { ffi::PyType_IS_GC(ffi::Py_TYPE(result.as_ptr())) == 0 };
        !(self.state == State::Finished && self.exception.is_none() && self.result.as_ref().is_none_or(plain))
    }

    /// In debug mode, where the future is made.
    #[inline]
    pub(super) fn source_traceback(py: Python<'_>, debug: bool) -> PyResult<Option<Ref>> {
        match debug {
            true => Ok(Some(Names::get(py)?.extract_stack.bind(py).call0()?.into())),
            false => Ok(None),
        }
    }

    /// The fields of a pending future of a loop of ours.
    #[inline]
    pub(super) fn of_own_loop(event_loop: &Bound<'_, Loop>, source_traceback: Option<Ref>) -> Self {
        Self {
            native: event_loop.get().is_direct(),
            event_loop: Some(event_loop.as_any().into()),
            source_traceback,
            ..Self::new()
        }
    }
}

/// Where the fields are in an instance: set once, with the type.
static OFFSET: AtomicUsize = AtomicUsize::new(0);
static CLASS: Class = Class::new();

// SAFETY: `tp_new` writes them.
unsafe impl Part for RefCell<Fields> {
    fn class() -> &'static Class {
        &CLASS
    }

    fn offset() -> usize {
        OFFSET.load(Relaxed) // the GIL orders it with everything after
    }

    fn traverse(&self, visit: Visit) -> Visited {
        // None is borrowed while the collector runs: no borrow lasts across an allocation of Python's.
        let Ok(fields) = self.try_borrow() else {
            return Visited::Continue(());
        };
        visit.field(&fields.event_loop)?;
        visit.field(&fields.result)?;
        visit.field(&fields.exception)?;
        visit.field(&fields.exception_traceback)?;
        visit.field(&fields.cancel_message)?;
        visit.field(&fields.cancelled_exc)?;
        visit.field(&fields.source_traceback)?;
        fields.callbacks.traverse(visit)
    }

    fn clear(&self, _: Python<'_>) {
        let state = self.borrow().state;
        let old = self.replace(Fields {
            state,
            ..Fields::new()
        });
        drop(old);
    }
}

wrapper!(
    /// A future of ours: a `Future` or a `Task`.
    Future
);

impl<'py> Future<'py> {
    /// The object as a future, if it is one of ours.
    pub(super) fn cast<'a>(object: &'a Bound<'py, PyAny>) -> Option<&'a Self> {
        let ours = CLASS.is_exactly(object) || Task::cast(object).is_some() || CLASS.holds(object);
        // SAFETY: just found to be an instance.
        ours.then(|| unsafe { Self::assume(object) })
    }

    /// The object as a future, if its class is just ours, so that no method can be overridden.
    #[inline]
    pub(super) fn exact<'a>(object: &'a Bound<'py, PyAny>) -> Option<&'a Self> {
        let exact = CLASS.is_exactly(object) || task::CLASS.is_exactly(object);
        // SAFETY: just found to be an instance.
        exact.then(|| unsafe { Self::assume(object) })
    }

    /// Whether both futures are bound to the same loop.
    #[inline]
    pub(super) fn has_loop_of(&self, other: &Self) -> bool {
        let (a, b) = (self.fields().borrow(), other.fields().borrow());
        a.event_loop.as_ref().map(|a| a.as_ptr()) == b.event_loop.as_ref().map(|b| b.as_ptr())
    }

    pub(super) fn object(&self) -> &Bound<'py, PyAny> {
        &self.0
    }

    #[inline]
    pub(super) fn fields(&self) -> &RefCell<Fields> {
        // SAFETY: every instance of our types has its fields from `tp_new` to `tp_dealloc`.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    pub(super) fn state(&self) -> State {
        self.fields().borrow().state
    }

    /// The loop and whether it is ours.
    pub(super) fn event_loop(&self) -> PyResult<(Bound<'py, PyAny>, bool)> {
        let fields = self.fields().borrow();
        match &fields.event_loop {
            Some(event_loop) => Ok((event_loop.bind(self.py()).clone(), fields.native)),
            None => Err(PyRuntimeError::new_err(format!(
                "{} object is not initialized.",
                self.class_name()
            ))),
        }
    }

    /// The loop, if it is ours and its `call_soon` too.
    #[inline]
    pub(super) fn own_loop(&self) -> Option<Bound<'py, Loop>> {
        let fields = self.fields().borrow();
        let event_loop = fields.event_loop.as_ref().filter(|_| fields.native)?;
        // SAFETY: the flag says that the loop is ours.
        Some(unsafe { event_loop.bind(self.py()).clone().cast_into_unchecked() })
    }

    fn class_name(&self) -> &'static str {
        if Task::cast(&self.0).is_some() {
            "Task"
        } else {
            "Future"
        }
    }

    fn check_alive(&self) -> PyResult<()> {
        if self.fields().borrow().event_loop.is_none() {
            self.event_loop()?;
        }
        Ok(())
    }

    /// Makes a pending future of a loop of ours, as `loop.create_future()` does.
    #[inline]
    pub(super) fn create(event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
        class::new(event_loop)
    }

    /// What both constructors do: forgets what was and binds the future to its loop.
    pub(super) fn init(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let own = event_loop.cast::<Loop>().ok();
        let debug = match own {
            Some(own) => own.get().debug(py),
            None => event_loop.call_method0(intern!(py, "get_debug"))?.is_truthy()?,
        };
        let fresh = Fields {
            native: own.is_some_and(|own| own.get().is_direct()),
            event_loop: Some(event_loop.into()),
            source_traceback: Fields::source_traceback(py, debug)?,
            ..Fields::new()
        };
        let old = self.fields().replace(fresh);
        drop(old);
        Ok(())
    }

    /// `Future.cancel`.
    pub(super) fn cancel(&self, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
        let mut fields = self.fields().borrow_mut();
        fields.log_traceback = false;
        if fields.state != State::Pending {
            return Ok(false);
        }
        fields.state = State::Cancelled;
        let old = std::mem::replace(&mut fields.cancel_message, message.map(Ref::from));
        let callbacks = std::mem::take(&mut fields.callbacks);
        drop(fields);
        drop(old);
        self.schedule_all(callbacks)?;
        Ok(true)
    }

    /// `Future.set_result`.
    pub(super) fn set_result(&self, result: Bound<'py, PyAny>) -> PyResult<()> {
        let mut fields = self.fields().borrow_mut();
        if fields.event_loop.is_none() || fields.state != State::Pending {
            drop(fields);
            return self.check_pending();
        }
        fields.state = State::Finished;
        fields.result = Some(result.into());
        let callbacks = std::mem::take(&mut fields.callbacks);
        drop(fields);
        self.schedule_all(callbacks)
    }

    /// `Future.set_exception` with an instance.
    pub(super) fn set_error(&self, exception: Bound<'py, PyBaseException>) -> PyResult<()> {
        self.check_pending()?;
        let traceback = exception.getattr(intern!(self.py(), "__traceback__"))?;
        let mut fields = self.fields().borrow_mut();
        fields.state = State::Finished;
        fields.exception = Some(exception.into());
        fields.exception_traceback = Some(traceback.into());
        fields.log_traceback = true;
        let callbacks = std::mem::take(&mut fields.callbacks);
        drop(fields);
        self.schedule_all(callbacks)
    }

    #[cold]
    fn check_pending(&self) -> PyResult<()> {
        self.check_alive()?;
        if self.state() == State::Pending {
            return Ok(());
        }
        Err(error(
            self.py(),
            &Names::get(self.py())?.invalid_state_error,
            "invalid state",
        ))
    }

    fn set_exception(&self, exception: Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.check_pending()?;
        let exception = match exception.cast_into::<PyType>() {
            Ok(class) if class.is_subclass_of::<PyBaseException>()? => class.call0()?,
            Ok(class) => class.into_any(),
            Err(error) => error.into_inner(),
        };
        let Ok(exception) = exception.cast_into::<PyBaseException>() else {
            return Err(PyTypeError::new_err("invalid exception object"));
        };
        if exception.is_instance_of::<PyStopIteration>() {
            let message = "StopIteration interacts badly with generators and cannot be raised into a Future";
            // The day it changed: 3.12.2 and 3.11.8.
            let version = py.version_info();
            if version < (3, 11, 8) || version >= (3, 12) && version < (3, 12, 2) {
                return Err(PyTypeError::new_err(message));
            }
            let replacement = PyRuntimeError::new_err(message).into_value(py).into_bound(py);
            replacement.setattr("__cause__", &exception)?;
            replacement.setattr("__context__", &exception)?;
            return self.set_error(replacement.into_any().cast_into()?);
        }
        self.set_error(exception)
    }

    /// The exception to be raised where the future is awaited; none if there is a result.
    #[inline]
    pub(super) fn raised(&self) -> Option<PyErr> {
        let mut fields = self.fields().borrow_mut();
        if fields.state == State::Finished && fields.exception.is_none() {
            fields.log_traceback = false;
            return None;
        }
        drop(fields);
        self.result().err()
    }

    /// `Future.result`: the result, or the exception to be raised.
    pub(super) fn result(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let mut fields = self.fields().borrow_mut();
        match fields.state {
            State::Pending => {
                drop(fields);
                Err(error(
                    py,
                    &Names::get(py)?.invalid_state_error,
                    "Result is not set.",
                ))
            }
            State::Cancelled => {
                drop(fields);
                Err(PyErr::from_value(self.make_cancelled_error()?.into_any()))
            }
            State::Finished => {
                fields.log_traceback = false;
                let Some(exception) = &fields.exception else {
                    return Ok(fields
                        .result
                        .as_ref()
                        .map_or_else(|| py.None(), |r| r.clone_ref(py))
                        .into_bound(py));
                };
                let exception = exception.bind(py).clone();
                // As it was set: awaiting the exception in several places would else pile up their tracebacks.
                let traceback = fields
                    .exception_traceback
                    .take()
                    .map(|traceback| traceback.into_bound(py));
                drop(fields);
                exception.setattr(intern!(py, "__traceback__"), traceback)?;
                Err(PyErr::from_value(exception.into_any()))
            }
        }
    }

    pub(super) fn make_cancelled_error(&self) -> PyResult<Bound<'py, PyBaseException>> {
        let py = self.py();
        let mut fields = self.fields().borrow_mut();
        let kept = fields.cancelled_exc.take();
        let message = fields
            .cancel_message
            .as_ref()
            .map(|message| message.bind(py).clone());
        drop(fields);
        if cfg!(Py_3_11)
            && let Some(kept) = kept
        {
            return Ok(kept.into_bound(py));
        }
        let class = Names::get(py)?.cancelled_error.bind(py);
        let made = match message.filter(|message| !message.is_none()) {
            Some(message) => class.call1((message,))?,
            None => class.call0()?,
        };
        if let Some(kept) = kept {
            made.setattr(intern!(py, "__context__"), &*kept)?;
        }
        Ok(made.cast_into()?)
    }

    fn repr(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let base = Names::get(py)?.base_futures.bind(py);
        if cfg!(Py_3_11) {
            return base.call_method1("_future_repr", (&self.0,));
        }
        let info = base.call_method1("_future_repr_info", (&self.0,))?;
        repr_of_info(&self.0, &info)
    }
}

/// `<Class info…>`, as versions before 3.11 put it together.
pub(super) fn repr_of_info<'py>(
    object: &Bound<'py, PyAny>,
    info: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let words: Vec<String> = info.extract()?;
    let class = object.getattr("__class__")?.getattr("__name__")?;
    format!("<{class} {}>", words.join(" ")).into_bound_py_any(object.py())
}
