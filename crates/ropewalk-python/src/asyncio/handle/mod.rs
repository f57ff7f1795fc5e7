//! `Handle` and `TimerHandle`: a callback that waits its turn, and may be cancelled.
//!
//! # Why the collector does not track a pending handle
//!
//! Most handles live for a turn, most timers are cancelled soon, and what the collector looks at in the meantime costs
//! more than all the rest. So a handle is made untracked, and what it holds is visited in its place:
//!
//! - While nobody but the loop has a handle (its reference count is 1), it is a part of the loop: the loop's
//!   `__traverse__` visits what it holds ([`Pending::traverse`]), and a cycle through both is found as usual.
//! - While somebody else has it, too, what it holds counts as reachable, which is safe but would keep a cycle that is
//!   garbage: so at the start of a full collection every such handle becomes tracked ([`Pending::track_if_kept`]), and
//!   from then on the loop visits the handle itself.
//! - A loop that lets go of a handle (it ran, was cancelled, or the loop was closed or dropped) which somebody keeps
//!   tracks it then (the `Drop` of [`Pending`]): what it still holds is to be found without the loop.
//!
//! Once tracked a handle stays so. An untracked handle that nobody has any more is freed by its count, like any object.

mod arguments;
mod class;

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, ffi, intern};

use super::context;
use super::event_loop::Loop;
use super::future::Future;
use super::names::{Names, is_fatal};
use super::raw::{Class, Part, Ref, Visit, Visited, wrapper};
pub(super) use arguments::Arguments;
pub(super) use class::build;

struct Call {
    /// None once cancelled.
    callback: Option<Ref>,
    arguments: Arguments,
    context: Option<Ref>,
    event_loop: Option<Ref<Loop>>,
    /// In debug mode, where the handle was made, and once cancelled, how it looked.
    source_traceback: Option<Ref>,
    repr: Option<Ref>,
}

impl Call {
    fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        let own = [&self.callback, &self.context, &self.source_traceback, &self.repr];
        let event_loop = self.event_loop.as_ref().map(|event_loop| event_loop.as_any());
        own.into_iter()
            .flatten()
            .map(|object| &**object)
            .chain(event_loop)
            .chain(self.arguments.held())
    }
}

/// What an instance of either class holds.
struct Body {
    call: RefCell<Call>,
    cancelled: Cell<bool>,
    /// Whether it lies among the timers.
    scheduled: Cell<bool>,
    /// When a timer is due, in seconds of the loop's clock.
    when: f64,
    weak_references: Cell<*mut ffi::PyObject>,
}

static HANDLE: Class = Class::new();
static TIMER_HANDLE: Class = Class::new();

// SAFETY: `Handle::create` writes it, whichever the class.
unsafe impl Part for Body {
    fn class() -> &'static Class {
        &HANDLE
    }

    fn traverse(&self, visit: Visit) -> Visited {
        // None is borrowed while the collector runs: no borrow lasts across an allocation of Python's.
        let Ok(call) = self.call.try_borrow() else {
            return Visited::Continue(());
        };
        visit.all(call.held().map(Py::as_ptr))
    }

    fn clear(&self, _: Python<'_>) {
        let old = self.call.replace(Call {
            callback: None,
            arguments: Arguments::NONE,
            context: None,
            event_loop: None,
            source_traceback: None,
            repr: None,
        });
        drop(old);
    }
}

wrapper!(
    /// A callback that waits its turn, or, of the class `TimerHandle`, for a time; an instance of asyncio's class of
    /// the same name by `isinstance`.
    Handle
);

/// A handle that the loop has: ready, among the timers, or waiting for a descriptor.
pub(super) struct Pending(Ref);

impl Pending {
    pub(super) fn object(&self) -> &Py<PyAny> {
        &self.0
    }

    pub(super) fn handle<'a, 'py>(&'a self, py: Python<'py>) -> &'a Handle<'py> {
        // SAFETY: made of a handle.
        unsafe { Handle::assume(self.0.bind(py)) }
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py).into())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.body().cancelled.get()
    }

    fn body(&self) -> &Body {
        // SAFETY: made of a handle.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    fn is_kept(&self) -> bool {
        // SAFETY: reads the count of a live object.
        unsafe { ffi::Py_REFCNT(self.0.as_ptr()) > 1 }
    }

    fn is_tracked(&self) -> bool {
        // SAFETY: the object lives and its type has the collector's head.
        unsafe { ffi::PyObject_GC_IsTracked(self.0.as_ptr()) != 0 }
    }

    /// Has the collector track the handle if somebody else has it, too.
    pub(super) fn track_if_kept(&self) {
        if self.is_kept() && !self.is_tracked() {
            // SAFETY: not tracked, and whole.
            unsafe { ffi::PyObject_GC_Track(self.0.as_ptr().cast()) }
        }
    }

    /// For the loop's `__traverse__`: visits the handle, or what it holds.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.is_tracked() {
            return visit.call(&*self.0);
        }
        match self.body().call.try_borrow() {
            Ok(call) if !self.is_kept() => call.held().try_for_each(|object| visit.call(object)),
            _ => Ok(()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.track_if_kept();
    }
}

impl<'py> Handle<'py> {
    /// Makes a handle, or, given a time, a timer.
    #[inline]
    pub(super) fn create(
        event_loop: &Bound<'py, Loop>,
        callback: &Bound<'py, PyAny>,
        arguments: Arguments,
        context: Option<&Bound<'py, PyAny>>,
        when: Option<f64>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context.clone(),
            None => context::copy(py)?,
        };
        let source_traceback = match event_loop.get().debug(py) {
            true => Some(Names::get(py)?.extract_stack.bind(py).call0()?.into()),
            false => None,
        };
        let body = Body {
            call: RefCell::new(Call {
                callback: Some(callback.into()),
                arguments,
                context: Some(context.into()),
                event_loop: Some(event_loop.into()),
                source_traceback,
                repr: None,
            }),
            cancelled: Cell::new(false),
            scheduled: Cell::new(when.is_some()),
            when: when.unwrap_or_default(),
            weak_references: Cell::new(std::ptr::null_mut()),
        };
        let class = if when.is_some() { &TIMER_HANDLE } else { &HANDLE };
        // SAFETY: the types are made, with the module's others; the body is all that an instance holds.
        unsafe {
            let object = class.alloc(py)?;
            body.write(object.as_ptr());
            Ok(Self(object))
        }
    }

    pub(super) fn into_any(self) -> Bound<'py, PyAny> {
        self.0
    }

    pub(super) fn pending(&self) -> Pending {
        Pending((&self.0).into())
    }

    #[inline]
    fn body(&self) -> &Body {
        // SAFETY: every instance of our types has it from `create` to `tp_dealloc`.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    /// A field that may be missing, as Python sees it.
    fn field(&self, field: impl FnOnce(&Call) -> &Option<Ref>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.body().call.borrow();
        let field = field(&call).as_ref().map(|field| field.bind(self.py()).clone());
        Ok(field.unwrap_or_else(|| self.py().None().into_bound(self.py())))
    }

    fn event_loop(&self) -> Option<Bound<'py, Loop>> {
        let call = self.body().call.borrow();
        call.event_loop
            .as_ref()
            .map(|event_loop| event_loop.bind(self.py()).clone())
    }

    fn arguments(&self) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.body().call.borrow();
        match call.callback {
            Some(_) => call.arguments.tuple(self.py()).map(Some),
            None => Ok(None),
        }
    }

    /// Says that the handle has left the timers.
    pub(super) fn unscheduled(&self) {
        self.body().scheduled.set(false);
    }

    /// The future of ours, and the result, if that is all that the callback sets: neither the handle's context is needed
    /// for it nor a call.
    #[inline]
    pub(super) fn as_set_result(&self) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let call = self.body().call.borrow();
        let (Some(callback), Arguments::Few([Some(result), None, None])) = (&call.callback, &call.arguments)
        else {
            return None;
        };
        let future = Future::whose_set_result(callback.bind(self.py()))?;
        Some((future, result.bind(self.py()).clone()))
    }

    /// Whether no code but the caller's can come by the handle: through a weak reference or the collector's lists neither.
    #[inline]
    fn is_out_of_reach(&self) -> bool {
        let object = self.0.as_ptr();
        // SAFETY: reads the count and the collector's head of a live object.
        unsafe {
            ffi::Py_REFCNT(object) == 1
                && self.body().weak_references.get().is_null()
                && ffi::PyObject_GC_IsTracked(object) == 0
        }
    }

    /// Calls the callback in its context, unless the handle is cancelled; tells the exception handler what it raises.
    pub(super) fn run(&self) -> PyResult<()> {
        let py = self.py();
        let call = self.body().call.borrow();
        let (Some(callback), Some(context)) = (&call.callback, &call.context) else {
            return Ok(());
        };
        let result = if self.is_out_of_reach() {
            // Nobody can cancel it meanwhile: the borrow may last.
            let result = call.arguments.call_in(context.bind(py), callback.bind(py));
            drop(call);
            result
        } else {
            let (callback, context) = (callback.bind(py).clone(), context.bind(py).clone());
            let arguments = call.arguments.clone_ref(py);
            drop(call);
            arguments.call_in(&context, &callback)
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_fatal(error.value(py)) => Err(error),
            Err(error) => self.report(error),
        }
    }

    /// Tells the exception handler what the callback has raised.
    #[cold]
    pub(super) fn report(&self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let callback = self.field(|call| &call.callback)?;
        let source = Names::get(py)?
            .format_callback_source
            .bind(py)
            .call1((callback, self.arguments()?))?;
        let context = PyDict::new(py);
        context.set_item("message", format!("Exception in callback {source}"))?;
        context.set_item("exception", error.into_value(py))?;
        context.set_item("handle", &self.0)?;
        let source = self.field(|call| &call.source_traceback)?;
        if !source.is_none() {
            context.set_item("source_traceback", source)?;
        }
        if let Some(event_loop) = self.event_loop() {
            event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))?;
        }
        Ok(())
    }

    pub(super) fn cancel(&self) -> PyResult<()> {
        let py = self.py();
        let body = self.body();
        if body.cancelled.get() {
            return Ok(());
        }
        let event_loop = self.event_loop();
        let debug = event_loop
            .as_ref()
            .is_some_and(|event_loop| event_loop.get().debug(py));
        let repr = match debug {
            true => Some(Ref::from(self.0.repr()?.into_any())),
            false => None,
        };
        body.cancelled.set(true);
        let mut call = body.call.borrow_mut();
        let old = (
            call.callback.take(),
            std::mem::replace(&mut call.arguments, Arguments::NONE),
        );
        if repr.is_some() {
            call.repr = repr;
        }
        drop(call);
        drop(old);
        if body.scheduled.get()
            && let Some(event_loop) = event_loop
        {
            event_loop.get().timer_cancelled(py);
        }
        Ok(())
    }

    /// What `asyncio.Handle` makes of the handle.
    fn as_asyncio(&self, method: &str) -> PyResult<Bound<'py, PyAny>> {
        let class = Names::get(self.py())?.handle.bind(self.py());
        class.call_method1(method, (&self.0,))
    }

    fn timer_repr_info(&self) -> PyResult<Bound<'py, PyAny>> {
        let info = self.as_asyncio("_repr_info")?;
        let place = if self.body().cancelled.get() { 2 } else { 1 };
        let when = self.body().when.into_bound_py_any(self.py())?;
        info.call_method1("insert", (place, format!("when={when}")))?;
        Ok(info)
    }

    fn is_equal(&self, other: &Self) -> PyResult<bool> {
        let (a, b) = (self.body(), other.body());
        let callback = |handle: &Self| handle.field(|call| &call.callback);
        let arguments = |handle: &Self| handle.arguments()?.into_bound_py_any(handle.py());
        Ok(a.when == b.when
            && callback(self)?.eq(callback(other)?)?
            && arguments(self)?.eq(arguments(other)?)?
            && a.cancelled.get() == b.cancelled.get())
    }
}
