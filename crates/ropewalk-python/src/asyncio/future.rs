//! `Future`: a result to come, on one loop. Semantics are those of `asyncio.Future` of the interpreter in use.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{
    PyAttributeError, PyBaseException, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, ffi, intern};

use super::event_loop::{self, Loop};
use super::future_iter::FutureIter;
use super::gathering::Gathering;
use super::names::{Names, error};
use super::raw::{self, Args, Spec, attribute, method};
use super::task::{self, Task};

/// Where a future stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Cancelled,
    Finished,
}

/// Who is told when a future is done.
pub(super) enum Callback {
    /// A task of ours that awaits it: no handle, no call.
    Wakeup(Py<PyAny>),
    /// A gathering that counts it.
    Gather(Py<Gathering>),
    /// A callable and the context that it runs in.
    Call(Py<PyAny>, Py<PyAny>),
}

/// What a future holds; see `raw.rs` for the rules.
pub(super) struct Fields {
    pub(super) state: State,
    /// Set by `await`, cleared by the task that took the future from the coroutine.
    pub(super) blocking: bool,
    /// Whether the loop is ours.
    pub(super) native: bool,
    pub(super) log_traceback: bool,
    /// None before `__init__`.
    pub(super) event_loop: Option<Py<PyAny>>,
    pub(super) result: Option<Py<PyAny>>,
    pub(super) exception: Option<Py<PyBaseException>>,
    exception_traceback: Option<Py<PyAny>>,
    pub(super) cancel_message: Option<Py<PyAny>>,
    pub(super) cancelled_exc: Option<Py<PyBaseException>>,
    source_traceback: Option<Py<PyAny>>,
    /// The first callback is apart, since most futures have just one.
    first: Option<Callback>,
    rest: Vec<Callback>,
}

impl Fields {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Pending,
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
            first: None,
            rest: Vec::new(),
        }
    }

    fn push(&mut self, callback: Callback) {
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(callback);
        } else {
            self.rest.push(callback);
        }
    }

    fn take(&mut self) -> (Option<Callback>, Vec<Callback>) {
        (self.first.take(), std::mem::take(&mut self.rest))
    }

    /// Visits every object that the fields refer to.
    ///
    /// # Safety
    /// Called from `tp_traverse` with its arguments.
    pub(super) unsafe fn traverse(&self, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        let Self {
            event_loop,
            result,
            exception,
            exception_traceback,
            cancel_message,
            ..
        } = self;
        let Self {
            cancelled_exc,
            source_traceback,
            first,
            rest,
            ..
        } = self;
        let own = [
            event_loop,
            result,
            exception_traceback,
            cancel_message,
            source_traceback,
        ];
        let own = own.into_iter().flatten().map(Py::as_ptr);
        let errors = [exception, cancelled_exc].into_iter().flatten().map(Py::as_ptr);
        let callbacks = first.iter().chain(rest).flat_map(|callback| match callback {
            Callback::Wakeup(task) => [Some(task.as_ptr()), None],
            Callback::Gather(gathering) => [Some(gathering.as_ptr()), None],
            Callback::Call(callable, context) => [Some(callable.as_ptr()), Some(context.as_ptr())],
        });
        for object in own.chain(errors).chain(callbacks.flatten()) {
            // SAFETY: the collector's own function, on an object that we own a reference to.
            let status = unsafe { visit(object, arg) };
            if status != 0 {
                return status;
            }
        }
        0
    }
}

/// The offset of the fields in an instance, and the type: set once, at the module's initialisation, before there is
/// any instance. Relaxed, because the GIL orders that with everything after.
static OFFSET: AtomicUsize = AtomicUsize::new(0);
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

pub(super) fn offset() -> usize {
    OFFSET.load(Relaxed)
}

/// A future of ours: a `Future` or a `Task`.
#[repr(transparent)]
pub(super) struct Future<'py>(Bound<'py, PyAny>);

impl<'py> Future<'py> {
    /// # Safety
    /// `object` is an instance of one of our types.
    pub(super) unsafe fn assume<'a>(object: &'a Bound<'py, PyAny>) -> &'a Self {
        // SAFETY: the wrapper is transparent.
        unsafe { &*std::ptr::from_ref(object).cast() }
    }

    /// The object as a future, if it is one of ours.
    pub(super) fn cast<'a>(object: &'a Bound<'py, PyAny>) -> Option<&'a Self> {
        // SAFETY: the types are compared, and their subtypes looked for; then they are ours.
        unsafe {
            let class = ffi::Py_TYPE(object.as_ptr());
            let (future, task) = (TYPE.load(Relaxed), task::class());
            let ours = class == future
                || class == task
                || ffi::PyType_IsSubtype(class, future) != 0
                || ffi::PyType_IsSubtype(class, task) != 0;
            ours.then(|| Self::assume(object))
        }
    }

    /// Whether the class is just ours, so that no method can be overridden.
    pub(super) fn is_exact(&self) -> bool {
        // SAFETY: reads the type of a live object.
        let class = unsafe { ffi::Py_TYPE(self.0.as_ptr()) };
        class == TYPE.load(Relaxed) || class == task::class()
    }

    pub(super) fn object(&self) -> &Bound<'py, PyAny> {
        &self.0
    }

    pub(super) fn py(&self) -> Python<'py> {
        self.0.py()
    }

    #[inline]
    pub(super) fn fields(&self) -> &RefCell<Fields> {
        // SAFETY: every instance of our types has its fields there from `tp_new` to `tp_dealloc`.
        unsafe { &*self.0.as_ptr().byte_add(offset()).cast() }
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
    pub(super) fn create(event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        // SAFETY: the type is ready, and `tp_new` of it needs no arguments.
        let future = unsafe {
            let class = TYPE.load(Relaxed);
            Bound::from_owned_ptr_or_err(py, tp_new(class, std::ptr::null_mut(), std::ptr::null_mut()))?
        };
        // SAFETY: just made.
        let this = unsafe { Self::assume(&future) };
        this.init(event_loop.as_any().clone())?;
        Ok(future)
    }

    /// What both constructors do: forgets what was and binds the future to its loop.
    pub(super) fn init(&self, event_loop: Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let native = event_loop.cast::<Loop>().ok();
        let debug = match native {
            Some(native) => native.get().debug(py),
            None => event_loop.call_method0(intern!(py, "get_debug"))?.is_truthy()?,
        };
        let mut fresh = Fields::new();
        fresh.native = native.is_some();
        fresh.event_loop = Some(event_loop.clone().unbind());
        if debug {
            fresh.source_traceback = Some(Names::get(py)?.extract_stack.call0(py)?);
        }
        let old = self.fields().replace(fresh);
        drop(old);
        Ok(())
    }

    /// Adds a callback. A future that is done makes it ready at once.
    pub(super) fn add_callback(&self, callback: Callback) -> PyResult<()> {
        let mut fields = self.fields().borrow_mut();
        if fields.state == State::Pending {
            fields.push(callback);
            return Ok(());
        }
        drop(fields);
        self.schedule(callback)
    }

    fn schedule(&self, callback: Callback) -> PyResult<()> {
        let py = self.py();
        let (event_loop, native) = self.event_loop()?;
        match callback {
            Callback::Wakeup(task) => {
                let task = task.into_bound(py);
                // SAFETY: only tasks of ours are put into a wake-up.
                unsafe { Task::assume(&task) }.wake(&self.0)
            }
            Callback::Gather(gathering) => Gathering::child_done(gathering.bind(py), self),
            Callback::Call(callable, context) => {
                event_loop::call_soon(&event_loop, native, callable.bind(py), &self.0, context.bind(py))
            }
        }
    }

    fn schedule_all(&self, (first, rest): (Option<Callback>, Vec<Callback>)) -> PyResult<()> {
        first
            .into_iter()
            .chain(rest)
            .try_for_each(|callback| self.schedule(callback))
    }

    /// `Future.cancel`.
    pub(super) fn cancel(&self, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
        let mut fields = self.fields().borrow_mut();
        fields.log_traceback = false;
        if fields.state != State::Pending {
            return Ok(false);
        }
        fields.state = State::Cancelled;
        let old = std::mem::replace(&mut fields.cancel_message, message.map(Bound::unbind));
        let callbacks = fields.take();
        drop(fields);
        drop(old);
        self.schedule_all(callbacks)?;
        Ok(true)
    }

    /// `Future.set_result`.
    pub(super) fn set_result(&self, result: Bound<'py, PyAny>) -> PyResult<()> {
        self.check_pending()?;
        let mut fields = self.fields().borrow_mut();
        fields.state = State::Finished;
        fields.result = Some(result.unbind());
        let callbacks = fields.take();
        drop(fields);
        self.schedule_all(callbacks)
    }

    /// `Future.set_exception` with an instance.
    pub(super) fn set_error(&self, exception: Bound<'py, PyBaseException>) -> PyResult<()> {
        self.check_pending()?;
        let traceback = exception.getattr(intern!(self.py(), "__traceback__"))?;
        let mut fields = self.fields().borrow_mut();
        fields.state = State::Finished;
        fields.exception = Some(exception.unbind());
        fields.exception_traceback = Some(traceback.unbind());
        fields.log_traceback = true;
        let callbacks = fields.take();
        drop(fields);
        self.schedule_all(callbacks)
    }

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
                let traceback = fields.exception_traceback.take().unwrap_or_else(|| py.None());
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
            made.setattr(intern!(py, "__context__"), kept)?;
        }
        Ok(made.cast_into()?)
    }

    fn add_done_callback(
        &self,
        callable: Bound<'py, PyAny>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let (event_loop, native) = self.event_loop()?;
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context,
            None => event_loop::copy_context(self.py())?,
        };
        let mut fields = self.fields().borrow_mut();
        if fields.state == State::Pending {
            fields.push(Callback::Call(callable.unbind(), context.unbind()));
            return Ok(());
        }
        drop(fields);
        event_loop::call_soon(&event_loop, native, &callable, &self.0, &context)
    }

    fn remove_done_callback(&self, callable: &Bound<'py, PyAny>) -> PyResult<usize> {
        let py = self.py();
        self.check_alive()?;
        // Comparing calls Python code, which may do anything to this future: it is done outside the borrow, on a
        // snapshot of the callables, and what compared equal is taken out by identity.
        let snapshot = self.callables()?;
        let mut equal = Vec::new();
        for (candidate, _) in &snapshot {
            if candidate.eq(callable)? {
                equal.push(candidate.as_ptr());
            }
        }
        let mut removed = Vec::new();
        let mut fields = self.fields().borrow_mut();
        let (first, rest) = fields.take();
        for callback in first.into_iter().chain(rest) {
            let gone = match &callback {
                Callback::Call(callable, _) => equal.contains(&callable.as_ptr()),
                Callback::Gather(gathering) => equal.contains(&gathering.as_ptr()),
                // Its callable is made anew for each snapshot.
                Callback::Wakeup(task) => snapshot.iter().any(|(candidate, wakes)| {
                    wakes.as_ref().is_some_and(|t| t.is(task.bind(py))) && equal.contains(&candidate.as_ptr())
                }),
            };
            if gone {
                removed.push(callback);
            } else {
                fields.push(callback);
            }
        }
        drop(fields);
        Ok(removed.len())
    }

    /// The callables to be called, and for those that are wake-ups, the task.
    #[expect(clippy::type_complexity, reason = "a pair used twice")]
    fn callables(&self) -> PyResult<Vec<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)>> {
        Ok(self
            .callbacks()?
            .into_iter()
            .map(|(callable, _, task)| (callable, task))
            .collect())
    }

    #[expect(clippy::type_complexity, reason = "a triple used twice")]
    fn callbacks(&self) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)>> {
        let py = self.py();
        let mut found = Vec::new();
        let fields = self.fields().borrow();
        for callback in fields.first.iter().chain(&fields.rest) {
            found.push(match callback {
                Callback::Call(callable, context) => {
                    (callable.bind(py).clone(), context.bind(py).clone(), None)
                }
                Callback::Gather(gathering) => {
                    let gathering = gathering.bind(py).clone().into_any();
                    (gathering.clone(), py.None().into_bound(py), None)
                }
                Callback::Wakeup(task) => {
                    let task = task.bind(py).clone();
                    (task.clone(), task.clone(), Some(task))
                }
            });
        }
        drop(fields);
        for (callable, context, task) in &mut found {
            if let Some(task) = task {
                // SAFETY: only tasks of ours are put into a wake-up.
                let task = unsafe { Task::assume(task) };
                *callable = task.wakeup_callable()?;
                *context = task.context()?;
            }
        }
        Ok(found)
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

/// A field that may be missing, as Python sees it.
fn optional<'py, T>(py: Python<'py>, field: &Option<Py<T>>) -> PyResult<Bound<'py, PyAny>> {
    Ok(field.as_ref().map_or_else(
        || py.None().into_bound(py),
        |value| value.clone_ref(py).into_any().into_bound(py),
    ))
}

fn string<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    text.into_bound_py_any(py)
}

/// The methods of `Future`, those that `Task` has too.
pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(
            Future,
            "result",
            |this, args| {
                args.bind([], 0, 0)?;
                this.result()
            },
            "Return the result, or raise the exception, or CancelledError, or InvalidStateError while pending."
        ),
        method!(
            Future,
            "exception",
            |this, args| {
                args.bind([], 0, 0)?;
                let py = this.py();
                let mut fields = this.fields().borrow_mut();
                match fields.state {
                    State::Cancelled => {
                        drop(fields);
                        Err(PyErr::from_value(this.make_cancelled_error()?.into_any()))
                    }
                    State::Pending => Err(error(
                        py,
                        &Names::get(py)?.invalid_state_error,
                        "Exception is not set.",
                    )),
                    State::Finished => {
                        fields.log_traceback = false;
                        optional(py, &fields.exception)
                    }
                }
            },
            "Return the exception or None; raise as result() does when there is neither."
        ),
        method!(
            Future,
            "add_done_callback",
            |this, args| {
                let [callable, context] = args.bind(["fn", "context"], 1, 1)?;
                let py = this.py();
                this.add_done_callback(callable.unwrap_or_else(|| py.None().into_bound(py)), context)?;
                Ok(py.None().into_bound(py))
            },
            "Call fn(future) soon after the future is done, in the context given or a copy of the current one."
        ),
        method!(
            Future,
            "remove_done_callback",
            |this, args| {
                let [callable] = args.bind(["fn"], 1, 1)?;
                let callable = callable.unwrap_or_else(|| this.py().None().into_bound(this.py()));
                this.remove_done_callback(&callable)?.into_bound_py_any(this.py())
            },
            "Take out every callback that equals fn; return how many there were."
        ),
        method!(
            Future,
            "cancelled",
            |this, args| {
                args.bind([], 0, 0)?;
                (this.state() == State::Cancelled).into_bound_py_any(this.py())
            },
            "Whether the future was cancelled."
        ),
        method!(
            Future,
            "done",
            |this, args| {
                args.bind([], 0, 0)?;
                (this.state() != State::Pending).into_bound_py_any(this.py())
            },
            "Whether the future has a result or an exception, or was cancelled."
        ),
        method!(
            Future,
            "get_loop",
            |this, args| {
                args.bind([], 0, 0)?;
                Ok(this.event_loop()?.0)
            },
            "The loop that the future is bound to."
        ),
        method!(
            Future,
            "_make_cancelled_error",
            |this, args| {
                args.bind([], 0, 0)?;
                Ok(this.make_cancelled_error()?.into_any())
            },
            "The CancelledError that whoever waits will see."
        ),
    ]
}

/// The attributes of `Future`, which `Task` has too. They are `asyncio`'s private ones, which its own functions read.
pub(super) fn attributes() -> Vec<ffi::PyGetSetDef> {
    vec![
        attribute!(Future, "_state", |this| string(
            this.py(),
            match this.state() {
                State::Pending => "PENDING",
                State::Cancelled => "CANCELLED",
                State::Finished => "FINISHED",
            }
        )),
        attribute!(
            Future,
            "_asyncio_future_blocking",
            |this| {
                let fields = this.fields().borrow();
                (fields.event_loop.is_some() && fields.blocking).into_bound_py_any(this.py())
            },
            |this, value| {
                this.check_alive()?;
                let value = value.is_truthy()?;
                this.fields().borrow_mut().blocking = value;
                Ok(())
            }
        ),
        attribute!(Future, "_loop", |this| optional(
            this.py(),
            &this.fields().borrow().event_loop
        )),
        attribute!(Future, "_callbacks", |this| {
            let py = this.py();
            let callbacks = this.callbacks()?;
            if callbacks.is_empty() {
                return Ok(py.None().into_bound(py));
            }
            let pairs = callbacks
                .into_iter()
                .map(|(callable, context, _)| (callable, context));
            Ok(PyList::new(py, pairs.collect::<Vec<_>>())?.into_any())
        }),
        attribute!(Future, "_result", |this| optional(
            this.py(),
            &this.fields().borrow().result
        )),
        attribute!(Future, "_exception", |this| optional(
            this.py(),
            &this.fields().borrow().exception
        )),
        attribute!(
            Future,
            "_log_traceback",
            |this| this.fields().borrow().log_traceback.into_bound_py_any(this.py()),
            |this, value| {
                if value.is_truthy()? {
                    return Err(PyValueError::new_err("_log_traceback can only be set to False"));
                }
                this.fields().borrow_mut().log_traceback = false;
                Ok(())
            }
        ),
        attribute!(
            Future,
            "_source_traceback",
            |this| optional(this.py(), &this.fields().borrow().source_traceback),
            |this, value| {
                let old = this
                    .fields()
                    .borrow_mut()
                    .source_traceback
                    .replace(value.unbind());
                drop(old);
                Ok(())
            }
        ),
        attribute!(
            Future,
            "_cancel_message",
            |this| optional(this.py(), &this.fields().borrow().cancel_message),
            |this, value| {
                let old = this.fields().borrow_mut().cancel_message.replace(value.unbind());
                drop(old);
                Ok(())
            }
        ),
    ]
}

fn own_methods() -> Vec<ffi::PyMethodDef> {
    let mut all = methods();
    all.extend([
        method!(
            Future,
            "set_result",
            |this, args| {
                let [result] = args.bind(["result"], 1, 1)?;
                let py = this.py();
                this.set_result(result.unwrap_or_else(|| py.None().into_bound(py)))?;
                Ok(py.None().into_bound(py))
            },
            "Make the future done with a result; InvalidStateError if it is done already."
        ),
        method!(
            Future,
            "set_exception",
            |this, args| {
                let [exception] = args.bind(["exception"], 1, 1)?;
                let py = this.py();
                this.set_exception(exception.unwrap_or_else(|| py.None().into_bound(py)))?;
                Ok(py.None().into_bound(py))
            },
            "Make the future done with an exception; InvalidStateError if it is done already."
        ),
        method!(
            Future,
            "cancel",
            |this, args| {
                let [message] = args.bind(["msg"], 1, 0)?;
                this.check_alive()?;
                this.cancel(message)?.into_bound_py_any(this.py())
            },
            "Cancel the future and tell whether it was pending."
        ),
    ]);
    all
}

unsafe extern "C" fn tp_new(
    class: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: memory of the type's size, zeroed; its fields are written before anything can look at them.
    unsafe {
        let Some(alloc) = (*class).tp_alloc else {
            return std::ptr::null_mut();
        };
        let object = alloc(class, 0);
        if !object.is_null() {
            object
                .byte_add(offset())
                .cast::<RefCell<Fields>>()
                .write(RefCell::new(Fields::new()));
        }
        object
    }
}

unsafe extern "C" fn tp_init(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(-1, |py| {
            let this = Borrowed::from_ptr(py, object);
            let (args, kwargs) = init_arguments(py, args, kwargs);
            let [event_loop] = raw::bind_init("Future", ["loop"], 0, 0, &args, kwargs.as_ref())?;
            Future::assume(&this).init(event_loop::or_current(py, event_loop)?)?;
            Ok(0)
        })
    }
}

/// # Safety
/// The arguments are those of `tp_init`.
pub(super) unsafe fn init_arguments<'py>(
    py: Python<'py>,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> (Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>) {
    // SAFETY: the interpreter passes a tuple, and a dictionary or NULL.
    unsafe {
        let args = Bound::from_borrowed_ptr(py, args).cast_into_unchecked();
        (
            args,
            Bound::from_borrowed_ptr_or_opt(py, kwargs).map(|kwargs| kwargs.cast_into_unchecked()),
        )
    }
}

/// `tp_traverse` of the part that both types share.
pub(super) unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector runs with the GIL held and no borrow is alive: none lasts across an allocation of Python's.
    unsafe {
        let status = raw::traverse_base(object, visit, arg);
        if status != 0 {
            return status;
        }
        match (*object.byte_add(offset()).cast::<RefCell<Fields>>()).try_borrow() {
            Ok(fields) => fields.traverse(visit, arg),
            Err(_) => 0,
        }
    }
}

/// `tp_clear` of the part that both types share.
pub(super) unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::slot(0, |py| {
            let this = Borrowed::from_ptr(py, object);
            let empty = Fields {
                state: Future::assume(&this).state(),
                ..Fields::new()
            };
            let old = Future::assume(&this).fields().replace(empty);
            drop(old);
            Ok(0)
        });
        raw::clear_base(object);
    }
    0
}

unsafe extern "C" fn tp_finalize(object: *mut ffi::PyObject) {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe { finalize(object, |_| Ok(())) }
}

/// Reports an exception that nobody asked for, after `first`; keeps the exception that may be on its way.
///
/// # Safety
/// Called from `tp_finalize`.
pub(super) unsafe fn finalize(
    object: *mut ffi::PyObject,
    first: impl for<'py> FnOnce(&Bound<'py, PyAny>) -> PyResult<()>,
) {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::slot((), |py| {
            let under_way = PyErr::take(py);
            let object = Borrowed::from_ptr(py, object);
            if let Err(error) = first(&object).and_then(|()| report(Future::assume(&object))) {
                error.write_unraisable(py, Some(&object));
            }
            if let Some(error) = under_way {
                error.restore(py);
            }
            Ok(())
        });
    }
}

fn report(this: &Future<'_>) -> PyResult<()> {
    let py = this.py();
    let mut fields = this.fields().borrow_mut();
    if !fields.log_traceback {
        return Ok(());
    }
    fields.log_traceback = false;
    let context = PyDict::new(py);
    let (exception, source) = (
        optional(py, &fields.exception)?,
        optional(py, &fields.source_traceback)?,
    );
    drop(fields);
    let class = this.0.getattr("__class__")?.getattr("__name__")?;
    context.set_item("message", format!("{class} exception was never retrieved"))?;
    context.set_item("exception", exception)?;
    context.set_item("future", &this.0)?;
    if !source.is_none() {
        context.set_item("source_traceback", source)?;
    }
    this.event_loop()?
        .0
        .call_method1("call_exception_handler", (context,))?;
    Ok(())
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return; // the finalizer gave it to somebody
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        ffi::PyObject_ClearWeakRefs(object);
        tp_clear(object);
        std::ptr::drop_in_place(object.byte_add(offset()).cast::<RefCell<Fields>>());
        raw::free(object);
    }
}

unsafe extern "C" fn tp_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            Future::assume(&this).check_alive()?;
            Ok(FutureIter::create(py, this.to_owned())?.into_ptr())
        })
    }
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            let this = Future::assume(&this);
            this.check_alive()?;
            Ok(this.repr()?.into_ptr())
        })
    }
}

/// The slots that both types share.
pub(super) fn slots() -> Vec<(c_int, *mut c_void)> {
    vec![
        (ffi::Py_tp_iter, tp_iter as *mut c_void),
        (ffi::Py_am_await, tp_iter as *mut c_void),
    ]
}

/// Makes the type.
pub(super) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let names = Names::get(py)?;
    let size: usize = names.task.bind(py).getattr("__basicsize__")?.extract()?;
    OFFSET.store(size.next_multiple_of(align_of::<RefCell<Fields>>()), Relaxed);
    let mut slots = slots();
    slots.extend([
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_traverse, tp_traverse as *mut c_void),
        (ffi::Py_tp_clear, tp_clear as *mut c_void),
        (ffi::Py_tp_finalize, tp_finalize as *mut c_void),
        (ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
        (ffi::Py_tp_repr, tp_repr as *mut c_void),
    ]);
    let spec = Spec {
        name: c"ropewalk.asyncio.Future",
        doc: c"A result to come, on one event loop: asyncio.Future, made in Rust.",
        size: offset() + size_of::<RefCell<Fields>>(),
        subclassable: true,
        slots,
        methods: own_methods(),
        attributes: attributes(),
    };
    let class = spec.build(py, Some(names.future.bind(py)))?;
    // A reference of its own: a type may not go while the process makes instances of it.
    TYPE.store(class.clone().into_ptr().cast(), Relaxed);
    Ok(class)
}
