//! `Task`: a coroutine that runs on a loop, step by step. Semantics are those of `asyncio.Task` of the interpreter in
//! use.
//!
//! A task on a loop of ours has no handles: what is ready is the task itself ([`Entry::Step`], [`Entry::Wakeup`]). On
//! any other loop it goes through `loop.call_soon`, like the standard library's.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::{
    PyAttributeError, PyBaseException, PyRecursionError, PyRuntimeError, PyStopIteration, PyTypeError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{IntoPyObjectExt, ffi, intern};

use super::event_loop::{self, Entry, Loop};
use super::future::{self, Callback, Future, State};
use super::gil::Gil;
use super::names::{Names, error, is_fatal};
use super::raw::{self, Args, Spec, attribute, method};

/// A line of tasks that await each other and is longer than this is taken for a circle.
const LONGEST_LINE: usize = 1_000_000;

enum Name {
    /// `Task-N`, made into a string when it is asked for.
    Number(u64),
    Given(Py<PyAny>),
}

/// What a task holds besides a future's fields; see `raw.rs` for the rules.
struct Fields {
    /// None before `__init__` and after the coroutine has ended.
    coro: Option<Py<PyAny>>,
    context: Option<Py<PyAny>>,
    name: Name,
    /// What it waits for.
    waiter: Option<Py<PyAny>>,
    /// An exception that the next step throws in.
    throw: Option<Py<PyBaseException>>,
    must_cancel: bool,
    /// Whether a task that dies pending is reported.
    log_destroy_pending: bool,
    cancels: isize,
}

impl Fields {
    const fn new() -> Self {
        Self {
            coro: None,
            context: None,
            name: Name::Number(0),
            waiter: None,
            throw: None,
            must_cancel: false,
            log_destroy_pending: true,
            cancels: 0,
        }
    }
}

/// The neighbours of a task in the list of all that are not done: unowned, since a task leaves the list before it dies.
struct Links {
    previous: Cell<*mut ffi::PyObject>,
    next: Cell<*mut ffi::PyObject>,
    linked: Cell<bool>,
}

/// The part of a task behind the future's fields.
struct Part {
    fields: RefCell<Fields>,
    links: Links,
}

/// Set once, at the module's initialisation; relaxed, because the GIL orders that with everything after.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// A pointer that the GIL guards.
struct Head(Cell<*mut ffi::PyObject>);
// SAFETY: a pointer may be sent; what it points to is touched with the GIL held.
unsafe impl Send for Head {}

/// The newest task that is not done. A list through the tasks costs some stores for each, a `WeakSet` a third of a
/// microsecond.
static NEWEST: Gil<Head> = Gil::new(Head(Cell::new(std::ptr::null_mut())));
static NUMBER: Gil<Cell<u64>> = Gil::new(Cell::new(0));

pub(super) fn class() -> *mut ffi::PyTypeObject {
    TYPE.load(Relaxed)
}

fn part_offset() -> usize {
    const { assert!(align_of::<Part>() <= align_of::<RefCell<future::Fields>>()) };
    future::offset() + size_of::<RefCell<future::Fields>>()
}

/// A task of ours.
#[repr(transparent)]
pub(super) struct Task<'py>(Bound<'py, PyAny>);

impl<'py> Task<'py> {
    /// # Safety
    /// `object` is an instance of our type.
    pub(super) unsafe fn assume<'a>(object: &'a Bound<'py, PyAny>) -> &'a Self {
        // SAFETY: the wrapper is transparent.
        unsafe { &*std::ptr::from_ref(object).cast() }
    }

    /// The object as a task, if it is one of ours.
    pub(super) fn cast<'a>(object: &'a Bound<'py, PyAny>) -> Option<&'a Self> {
        // SAFETY: the type is compared, and its subtypes looked for; then it is ours.
        unsafe {
            let found = ffi::Py_TYPE(object.as_ptr());
            (found == class() || ffi::PyType_IsSubtype(found, class()) != 0).then(|| Self::assume(object))
        }
    }

    pub(super) fn object(&self) -> &Bound<'py, PyAny> {
        &self.0
    }

    fn py(&self) -> Python<'py> {
        self.0.py()
    }

    fn future(&self) -> &Future<'py> {
        // SAFETY: a task is a future.
        unsafe { Future::assume(&self.0) }
    }

    #[inline]
    fn part(&self) -> &Part {
        // SAFETY: every instance of our type has it there from `tp_new` to `tp_dealloc`.
        unsafe { &*self.0.as_ptr().byte_add(part_offset()).cast() }
    }

    #[inline]
    fn fields(&self) -> &RefCell<Fields> {
        &self.part().fields
    }

    /// Makes a task of a loop of ours, as `loop.create_task()` does without a factory.
    pub(super) fn create(
        event_loop: &Bound<'py, Loop>,
        coro: Bound<'py, PyAny>,
        name: Option<Bound<'py, PyAny>>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the type is ready, and `tp_new` of it needs no arguments.
        let task = unsafe {
            Bound::from_owned_ptr_or_err(
                event_loop.py(),
                tp_new(class(), std::ptr::null_mut(), std::ptr::null_mut()),
            )?
        };
        // SAFETY: just made.
        unsafe { Self::assume(&task) }.init(event_loop.as_any().clone(), coro, name, context, false)?;
        Ok(task)
    }

    fn init(
        &self,
        event_loop: Bound<'py, PyAny>,
        coro: Bound<'py, PyAny>,
        name: Option<Bound<'py, PyAny>>,
        context: Option<Bound<'py, PyAny>>,
        eager: bool,
    ) -> PyResult<()> {
        let py = self.py();
        let names = Names::get(py)?;
        self.future().init(event_loop.clone())?;
        // SAFETY: compares a type.
        let native = unsafe { ffi::PyCoro_CheckExact(coro.as_ptr()) != 0 };
        if !native && !names.iscoroutine.bind(py).call1((&coro,))?.is_truthy()? {
            self.fields().borrow_mut().log_destroy_pending = false;
            return Err(PyTypeError::new_err(format!(
                "a coroutine was expected, got {}",
                coro.repr()?
            )));
        }
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context,
            None => event_loop::copy_context(py)?,
        };
        let name = match name.filter(|name| !name.is_none()) {
            Some(name) => Name::Given(as_name(name)?),
            None => {
                let number = NUMBER.get(py);
                number.set(number.get() + 1);
                Name::Number(number.get())
            }
        };
        let fresh = Fields {
            coro: Some(coro.unbind()),
            context: Some(context.unbind()),
            name,
            ..Fields::new()
        };
        let old = self.fields().replace(fresh);
        drop(old);
        if eager && self.is_running_loop(&event_loop)? {
            return self.start_eagerly(&event_loop);
        }
        self.push(Entry::Step)?;
        self.link();
        Ok(())
    }

    fn is_running_loop(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<bool> {
        let events = Names::get(self.py())?.events.bind(self.py());
        Ok(events
            .call_method0(intern!(self.py(), "_get_running_loop"))?
            .is(event_loop))
    }

    /// Runs the first step at once; what is not done then goes on like any other task.
    fn start_eagerly(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let tasks = Names::get(py)?.tasks.bind(py);
        self.link();
        let before = tasks.call_method1("_swap_current_task", (event_loop, &self.0))?;
        let result = self.step_in_context();
        let after = tasks.call_method1("_swap_current_task", (event_loop, before));
        result?;
        after?;
        if self.future().state() != State::Pending {
            let coro = self.fields().borrow_mut().coro.take();
            drop(coro);
        }
        Ok(())
    }

    fn step_in_context(&self) -> PyResult<()> {
        let context = self.context()?;
        event_loop::enter(&context)?;
        let result = self.step(None);
        event_loop::exit(&context)?;
        result
    }

    /// Puts the task among all those that are not done.
    fn link(&self) {
        let links = &self.part().links;
        if links.linked.replace(true) {
            return;
        }
        let head = &NEWEST.get(self.py()).0;
        let next = head.replace(self.0.as_ptr());
        links.next.set(next);
        links.previous.set(std::ptr::null_mut());
        if !next.is_null() {
            links_of(next).previous.set(self.0.as_ptr());
        }
    }

    fn unlink(&self) {
        let links = &self.part().links;
        if !links.linked.replace(false) {
            return;
        }
        let (previous, next) = (links.previous.get(), links.next.get());
        if previous.is_null() {
            NEWEST.get(self.py()).0.set(next);
        } else {
            links_of(previous).next.set(next);
        }
        if !next.is_null() {
            links_of(next).previous.set(previous);
        }
    }

    /// The tasks that are not done, of all loops, oldest first.
    pub(super) fn all(py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let mut found = Vec::new();
        let mut at = NEWEST.get(py).0.get();
        while !at.is_null() {
            // SAFETY: a linked task is alive: it unlinks itself before it is freed.
            // One that nothing refers to is being freed (a subclass's `__del__` may have kept ours from unlinking it).
            unsafe {
                if ffi::Py_REFCNT(at) > 0 {
                    found.push(Bound::from_borrowed_ptr(py, at));
                }
            }
            at = links_of(at).next.get();
        }
        found.reverse();
        found
    }

    pub(super) fn context(&self) -> PyResult<Bound<'py, PyAny>> {
        let fields = self.fields().borrow();
        match &fields.context {
            Some(context) => Ok(context.bind(self.py()).clone()),
            None => Err(PyRuntimeError::new_err("Task object is not initialized.")),
        }
    }

    /// Makes a step of the task ready, on whatever loop.
    fn push(&self, entry: fn(Py<PyAny>) -> Entry) -> PyResult<()> {
        let (event_loop, native) = self.future().event_loop()?;
        if native {
            // SAFETY: the flag says that the loop is ours.
            let event_loop = unsafe { event_loop.cast_unchecked::<Loop>() };
            return event_loop.get().push(event_loop, entry(self.0.clone().unbind()));
        }
        let step = self.callable(&STEP)?;
        event_loop::call_soon_foreign(&event_loop, &step, None, &self.context()?)
    }

    /// Makes the task ready because `future`, which it awaits, is done.
    pub(super) fn wake(&self, future: &Bound<'py, PyAny>) -> PyResult<()> {
        let (event_loop, native) = self.future().event_loop()?;
        if native {
            // SAFETY: the flag says that the loop is ours.
            let event_loop = unsafe { event_loop.cast_unchecked::<Loop>() };
            return event_loop
                .get()
                .push(event_loop, Entry::Wakeup(self.0.clone().unbind()));
        }
        let wakeup = self.wakeup_callable()?;
        event_loop::call_soon_foreign(&event_loop, &wakeup, Some(future), &self.context()?)
    }

    fn callable(&self, definition: &'static Definition) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the definition is static and the interpreter does not write to it.
        unsafe {
            let definition = std::ptr::from_ref(&definition.0).cast_mut();
            Bound::from_owned_ptr_or_err(self.py(), ffi::PyCFunction_New(definition, self.0.as_ptr()))
        }
    }

    /// What a foreign future is given as a callback.
    pub(super) fn wakeup_callable(&self) -> PyResult<Bound<'py, PyAny>> {
        self.callable(&WAKEUP)
    }

    /// Runs a step from the ready ring; the context has been entered and the task is the current one.
    pub(super) fn run_step(&self) -> PyResult<()> {
        let thrown = self.fields().borrow_mut().throw.take();
        self.step(thrown.map(|exception| exception.into_bound(self.py())))
    }

    /// The same, when what the task waits for is done.
    pub(super) fn run_wakeup(&self) -> PyResult<()> {
        let waiter = self
            .fields()
            .borrow()
            .waiter
            .as_ref()
            .map(|waiter| waiter.bind(self.py()).clone());
        match waiter {
            Some(waiter) => self.wakeup(&waiter),
            None => self.step(None),
        }
    }

    fn wakeup(&self, done: &Bound<'py, PyAny>) -> PyResult<()> {
        let result = match Future::cast(done).filter(|future| future.is_exact()) {
            Some(future) => future.result(),
            None => done.call_method0(intern!(self.py(), "result")),
        };
        match result {
            Ok(_) => self.step(None),
            Err(error) => self.step(Some(error.into_value(self.py()).into_bound(self.py()))),
        }
    }

    fn step(&self, mut exception: Option<Bound<'py, PyBaseException>>) -> PyResult<()> {
        let py = self.py();
        let names = Names::get(py)?;
        if self.future().state() != State::Pending {
            let thrown = exception.map_or_else(|| "None".into(), |exception| exception.to_string());
            let message = format!("__step(): already done: {} {thrown}", self.0.repr()?);
            return Err(error(py, &names.invalid_state_error, message));
        }
        let mut fields = self.fields().borrow_mut();
        let cancelled = std::mem::replace(&mut fields.must_cancel, false);
        let waiter = fields.waiter.take();
        let coro = fields.coro.as_ref().map(|coro| coro.bind(py).clone());
        drop(fields);
        drop(waiter);
        let Some(coro) = coro else {
            return Err(PyRuntimeError::new_err("uninitialized Task object"));
        };
        if cancelled
            && !exception
                .as_ref()
                .is_some_and(|e| e.is_instance(names.cancelled_error.bind(py)).unwrap_or(false))
        {
            exception = Some(self.future().make_cancelled_error()?);
        }
        let sent = match exception {
            None => send(&coro),
            Some(exception) => throw(&coro, &exception),
        };
        match sent {
            Ok(Sent::Yield(awaited)) => self.wait_for(awaited),
            Ok(Sent::Return(value)) => {
                self.unlink();
                let mut fields = self.fields().borrow_mut();
                if std::mem::replace(&mut fields.must_cancel, false) {
                    drop(fields);
                    let message = self
                        .future()
                        .fields()
                        .borrow()
                        .cancel_message
                        .as_ref()
                        .map(|m| m.bind(py).clone());
                    self.future().cancel(message)?;
                    return Ok(());
                }
                drop(fields);
                self.future().set_result(value)
            }
            Err(raised) => {
                self.unlink();
                let raised = raised.into_value(py).into_bound(py);
                if raised.is_instance(names.cancelled_error.bind(py))? {
                    let old = self
                        .future()
                        .fields()
                        .borrow_mut()
                        .cancelled_exc
                        .replace(raised.unbind());
                    drop(old);
                    self.future().cancel(None)?;
                    return Ok(());
                }
                self.future().set_error(raised.clone())?;
                if is_fatal(&raised) {
                    Err(PyErr::from_value(raised.into_any()))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Waits for what the coroutine has yielded.
    fn wait_for(&self, awaited: Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if let Some(future) = Future::cast(&awaited).filter(|future| future.is_exact()) {
            let (its_loop, _) = future.event_loop()?;
            let own = self.future().event_loop()?.0;
            let blocking = std::mem::replace(&mut future.fields().borrow_mut().blocking, false);
            return if !its_loop.is(&own) {
                self.fail_foreign(&awaited)
            } else if !blocking {
                self.fail_yield(&awaited)
            } else if awaited.is(&self.0) {
                self.fail(format!("Task cannot await on itself: {}", self.0.repr()?))
            } else {
                future.add_callback(Callback::Wakeup(self.0.clone().unbind()))?;
                let old = self
                    .fields()
                    .borrow_mut()
                    .waiter
                    .replace(awaited.clone().unbind());
                drop(old);
                self.cancel_waiter(&awaited)
            };
        }
        if awaited.is_none() {
            return self.push(Entry::Step);
        }
        let blocking = awaited.getattr_opt(intern!(py, "_asyncio_future_blocking"))?;
        if let Some(blocking) = blocking.filter(|blocking| !blocking.is_none()) {
            let its_loop = future_loop(&awaited)?;
            if !its_loop.is(&self.future().event_loop()?.0) {
                return self.fail_foreign(&awaited);
            }
            if !blocking.is_truthy()? {
                return self.fail_yield(&awaited);
            }
            if awaited.is(&self.0) {
                return self.fail(format!("Task cannot await on itself: {}", self.0.repr()?));
            }
            awaited.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
            let context = PyDict::new(py);
            context.set_item("context", self.context()?)?;
            let wakeup = self.wakeup_callable()?;
            awaited.call_method(intern!(py, "add_done_callback"), (wakeup,), Some(&context))?;
            let old = self
                .fields()
                .borrow_mut()
                .waiter
                .replace(awaited.clone().unbind());
            drop(old);
            return self.cancel_waiter(&awaited);
        }
        // SAFETY: compares a type.
        if unsafe { ffi::PyGen_CheckExact(awaited.as_ptr()) } != 0 {
            let message = "yield was used instead of yield from for generator in task";
            return self.fail(format!("{message} {} with {}", self.0.repr()?, awaited.repr()?));
        }
        self.fail(format!("Task got bad yield: {}", awaited.repr()?))
    }

    /// Passes on a cancellation that came while the coroutine ran.
    fn cancel_waiter(&self, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.fields().borrow().must_cancel && self.cancel_through(waiter, self.cancel_message())? {
            self.fields().borrow_mut().must_cancel = false;
        }
        Ok(())
    }

    fn cancel_message(&self) -> Option<Bound<'py, PyAny>> {
        self.future()
            .fields()
            .borrow()
            .cancel_message
            .as_ref()
            .map(|message| message.bind(self.py()).clone())
    }

    /// Cancels what the task waits for.
    fn cancel_through(
        &self,
        waiter: &Bound<'py, PyAny>,
        message: Option<Bound<'py, PyAny>>,
    ) -> PyResult<bool> {
        let py = self.py();
        if let Some(future) = Future::cast(waiter).filter(|future| future.is_exact()) {
            return match Task::cast(waiter) {
                Some(task) => task.cancel(message),
                None => future.cancel(message),
            };
        }
        let kwargs = PyDict::new(py);
        kwargs.set_item("msg", message)?;
        waiter
            .call_method(intern!(py, "cancel"), (), Some(&kwargs))?
            .is_truthy()
    }

    fn fail_foreign(&self, awaited: &Bound<'py, PyAny>) -> PyResult<()> {
        let (task, future) = (self.0.repr()?, awaited.repr()?);
        self.fail(format!(
            "Task {task} got Future {future} attached to a different loop"
        ))
    }

    fn fail_yield(&self, awaited: &Bound<'py, PyAny>) -> PyResult<()> {
        let message = "yield was used instead of yield from in task";
        self.fail(format!("{message} {} with {}", self.0.repr()?, awaited.repr()?))
    }

    /// Throws a RuntimeError into the coroutine at the next step.
    fn fail(&self, message: String) -> PyResult<()> {
        let exception = PyRuntimeError::new_err(message).into_value(self.py());
        let old = self.fields().borrow_mut().throw.replace(exception);
        drop(old);
        self.push(Entry::Step)
    }

    /// `Task.cancel`.
    fn cancel(&self, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
        // Down the line of tasks that await each other, by a loop: the line may be long, or even a circle.
        let mut last: Option<Bound<'py, PyAny>> = None;
        let mut next = self.0.clone();
        for _ in 0..LONGEST_LINE {
            // SAFETY: `next` is this task or has been cast.
            let task = unsafe { Self::assume(&next) };
            let mut outcome = task.future().fields().borrow_mut();
            outcome.log_traceback = false;
            if outcome.state != State::Pending {
                drop(outcome);
                return match last {
                    // SAFETY: a former `next`.
                    Some(last) => unsafe { Self::assume(&last) }.cancel_soon(message),
                    None => Ok(false),
                };
            }
            drop(outcome);
            let mut fields = task.fields().borrow_mut();
            fields.cancels += 1;
            let waiter = fields
                .waiter
                .as_ref()
                .map(|waiter| waiter.bind(self.py()).clone());
            drop(fields);
            let Some(waiter) = waiter else {
                return task.cancel_soon(message);
            };
            let exact = Future::cast(&waiter).is_some_and(|future| future.is_exact());
            if !exact || Task::cast(&waiter).is_none() {
                return if task.cancel_through(&waiter, message.clone())? {
                    Ok(true)
                } else {
                    task.cancel_soon(message)
                };
            }
            last = Some(std::mem::replace(&mut next, waiter));
        }
        let message = "maximum recursion depth exceeded while cancelling tasks that await each other";
        Err(PyRecursionError::new_err(message))
    }

    /// Throws a CancelledError in at the next step.
    fn cancel_soon(&self, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
        self.fields().borrow_mut().must_cancel = true;
        let mut outcome = self.future().fields().borrow_mut();
        let old = std::mem::replace(&mut outcome.cancel_message, message.map(Bound::unbind));
        drop(outcome);
        drop(old);
        Ok(true)
    }

    fn name(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let mut fields = self.fields().borrow_mut();
        let number = match &fields.name {
            Name::Given(name) => return Ok(name.bind(py).clone()),
            Name::Number(number) => *number,
        };
        let name = PyString::new(py, &format!("Task-{number}")).into_any();
        fields.name = Name::Given(name.clone().unbind());
        Ok(name)
    }

    fn helper(&self, name: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
        Names::get(self.py())?
            .base_tasks
            .bind(self.py())
            .call_method1(name, args)
    }
}

fn links_of<'a>(task: *mut ffi::PyObject) -> &'a Links {
    // SAFETY: only linked tasks are asked for; these are alive, and the part is theirs for life.
    unsafe { &(*task.byte_add(part_offset()).cast::<Part>()).links }
}

fn as_name(name: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    if name.is_exact_instance_of::<PyString>() {
        Ok(name.unbind())
    } else {
        Ok(name.str()?.into_any().unbind())
    }
}

/// The loop of any future-like object.
fn future_loop<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match future.getattr_opt(intern!(future.py(), "get_loop"))? {
        Some(get_loop) => get_loop.call0(),
        None => future.getattr(intern!(future.py(), "_loop")),
    }
}

enum Sent<'py> {
    Yield(Bound<'py, PyAny>),
    Return(Bound<'py, PyAny>),
}

fn send<'py>(coro: &Bound<'py, PyAny>) -> PyResult<Sent<'py>> {
    let py = coro.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: the coroutine is alive; the result is an owned reference unless an exception is set.
    unsafe {
        match ffi::PyIter_Send(coro.as_ptr(), ffi::Py_None(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yield(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Return(Bound::from_owned_ptr(py, result))),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

fn throw<'py>(coro: &Bound<'py, PyAny>, exception: &Bound<'py, PyBaseException>) -> PyResult<Sent<'py>> {
    let py = coro.py();
    match coro.call_method1(intern!(py, "throw"), (exception,)) {
        Ok(awaited) => Ok(Sent::Yield(awaited)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Ok(Sent::Return(error.value(py).getattr(intern!(py, "value"))?))
        }
        Err(error) => Err(error),
    }
}

/// A method definition that callables of tasks point to.
struct Definition(ffi::PyMethodDef);
// SAFETY: never written to.
unsafe impl Sync for Definition {}

/// The step of a task on a foreign loop, called in the task's context.
static STEP: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"task_step".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunction: task_step,
    },
    ml_flags: ffi::METH_NOARGS,
    ml_doc: std::ptr::null(),
});

/// The wake-up of a task by a foreign future, called in the task's context.
static WAKEUP: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"task_wakeup".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunction: task_wakeup,
    },
    ml_flags: ffi::METH_O,
    ml_doc: std::ptr::null(),
});

unsafe extern "C" fn task_step(task: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the callable was made with a task of ours.
    unsafe { as_current(task, |task| task.run_step()) }
}

unsafe extern "C" fn task_wakeup(task: *mut ffi::PyObject, future: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the callable was made with a task of ours; the argument is alive.
    unsafe {
        as_current(task, |task| {
            let future = Bound::from_borrowed_ptr(task.py(), future);
            task.wakeup(&future)
        })
    }
}

/// Runs a step as the loop's current task.
///
/// # Safety
/// `task` is one of ours, and the interpreter calls.
unsafe fn as_current(
    task: *mut ffi::PyObject,
    step: impl for<'py> FnOnce(&Task<'py>) -> PyResult<()>,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller says.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let task = Borrowed::from_ptr(py, task);
            let task = Task::assume(&task);
            let event_loop = task.future().event_loop()?.0;
            let tasks = Names::get(py)?.tasks.bind(py);
            tasks.call_method1(intern!(py, "_enter_task"), (&event_loop, &task.0))?;
            let result = step(task);
            let left = tasks.call_method1(intern!(py, "_leave_task"), (&event_loop, &task.0));
            result?;
            left?;
            Ok(py.None().into_ptr())
        })
    }
}

fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

fn own_methods() -> Vec<ffi::PyMethodDef> {
    let mut all = future::methods();
    all.extend([
        method!(
            Task,
            "set_result",
            |_, _| {
                Err(PyRuntimeError::new_err(
                    "Task does not support set_result operation",
                ))
            },
            "Not for tasks: RuntimeError."
        ),
        method!(
            Task,
            "set_exception",
            |_, _| {
                Err(PyRuntimeError::new_err(
                    "Task does not support set_exception operation",
                ))
            },
            "Not for tasks: RuntimeError."
        ),
        method!(
            Task,
            "cancel",
            |this, args| {
                let [message] = args.bind(["msg"], 1, 0)?;
                this.cancel(message)?.into_bound_py_any(this.py())
            },
            "Throw a CancelledError into the coroutine at its next step; tell whether the task was pending."
        ),
        method!(
            Task,
            "get_name",
            |this, args| {
                args.bind([], 0, 0)?;
                this.name()
            },
            "The task's name."
        ),
        method!(
            Task,
            "set_name",
            |this, args| {
                let [name] = args.bind(["value"], 1, 1)?;
                let name = Name::Given(as_name(name.unwrap_or_else(|| none(this.py())))?);
                let old = std::mem::replace(&mut this.fields().borrow_mut().name, name);
                drop(old);
                Ok(none(this.py()))
            },
            "Give the task a name."
        ),
        method!(
            Task,
            "get_coro",
            |this, args| {
                args.bind([], 0, 0)?;
                let fields = this.fields().borrow();
                Ok(fields
                    .coro
                    .as_ref()
                    .map_or_else(|| none(this.py()), |coro| coro.bind(this.py()).clone()))
            },
            "The coroutine."
        ),
        method!(
            Task,
            "get_stack",
            |this, args| {
                let [limit] = args.bind(["limit"], 0, 0)?;
                this.helper("_task_get_stack", (&this.0, limit))
            },
            "The frames of the coroutine, oldest first."
        ),
        method!(
            Task,
            "print_stack",
            |this, args| {
                let [limit, file] = args.bind(["limit", "file"], 0, 0)?;
                this.helper("_task_print_stack", (&this.0, limit, file))
            },
            "Print the frames of the coroutine, or the traceback of its exception."
        ),
        method!(
            Task,
            "_step",
            |this, args| {
                let [exception] = args.bind(["exc"], 1, 0)?;
                let exception = exception.filter(|exception| !exception.is_none());
                this.step(exception.map(|exception| exception.cast_into()).transpose()?)?;
                Ok(none(this.py()))
            },
            "Run a step now."
        ),
    ]);
    if cfg!(Py_3_11) {
        all.extend([
            method!(
                Task,
                "cancelling",
                |this, args| {
                    args.bind([], 0, 0)?;
                    this.fields().borrow().cancels.into_bound_py_any(this.py())
                },
                "How many cancellations have been asked for and not taken back."
            ),
            method!(
                Task,
                "uncancel",
                |this, args| {
                    args.bind([], 0, 0)?;
                    let mut fields = this.fields().borrow_mut();
                    if fields.cancels > 0 {
                        fields.cancels -= 1;
                        if cfg!(Py_3_13) && fields.cancels == 0 {
                            fields.must_cancel = false;
                        }
                    }
                    fields.cancels.into_bound_py_any(this.py())
                },
                "Take back one cancellation; return how many are left."
            ),
        ]);
    }
    if cfg!(Py_3_12) {
        all.push(method!(
            Task,
            "get_context",
            |this, args| {
                args.bind([], 0, 0)?;
                this.context()
            },
            "The context that the coroutine runs in."
        ));
    }
    all
}

fn own_attributes() -> Vec<ffi::PyGetSetDef> {
    let mut all = future::attributes();
    all.extend([
        attribute!(
            Task,
            "_log_destroy_pending",
            |this| this
                .fields()
                .borrow()
                .log_destroy_pending
                .into_bound_py_any(this.py()),
            |this, value| {
                let value = value.is_truthy()?;
                this.fields().borrow_mut().log_destroy_pending = value;
                Ok(())
            }
        ),
        attribute!(Task, "_must_cancel", |this| this
            .fields()
            .borrow()
            .must_cancel
            .into_bound_py_any(this.py())),
        attribute!(Task, "_coro", |this| {
            let fields = this.fields().borrow();
            Ok(fields
                .coro
                .as_ref()
                .map_or_else(|| none(this.py()), |coro| coro.bind(this.py()).clone()))
        }),
        attribute!(Task, "_fut_waiter", |this| {
            let fields = this.fields().borrow();
            Ok(fields
                .waiter
                .as_ref()
                .map_or_else(|| none(this.py()), |waiter| waiter.bind(this.py()).clone()))
        }),
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
                .byte_add(future::offset())
                .cast::<RefCell<_>>()
                .write(RefCell::new(future::Fields::new()));
            object.byte_add(part_offset()).cast::<Part>().write(Part {
                fields: RefCell::new(Fields::new()),
                links: Links {
                    previous: Cell::new(std::ptr::null_mut()),
                    next: Cell::new(std::ptr::null_mut()),
                    linked: Cell::new(false),
                },
            });
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
            let (args, kwargs) = future::init_arguments(py, args, kwargs);
            let names = ["coro", "loop", "name", "context", "eager_start"];
            let [coro, event_loop, name, context, eager] =
                raw::bind_init("Task", names, 1, 1, &args, kwargs.as_ref())?;
            let eager = eager.is_some_and(|eager| eager.is_truthy().unwrap_or(false));
            let coro = coro.unwrap_or_else(|| none(py));
            let this = Task::assume(&this);
            this.fields().borrow_mut().log_destroy_pending = false; // until the arguments are found good
            this.init(
                event_loop::or_current(py, event_loop)?,
                coro,
                name,
                context,
                eager,
            )?;
            Ok(0)
        })
    }
}

unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector runs with the GIL held and no borrow is alive: none lasts across an allocation of Python's.
    unsafe {
        let status = future::tp_traverse(object, visit, arg);
        if status != 0 {
            return status;
        }
        let part = &*object.byte_add(part_offset()).cast::<Part>();
        let Ok(fields) = part.fields.try_borrow() else {
            return 0;
        };
        let Fields {
            coro,
            context,
            waiter,
            throw,
            name,
            ..
        } = &*fields;
        let name = if let Name::Given(name) = name {
            Some(name)
        } else {
            None
        };
        let own = [coro.as_ref(), context.as_ref(), waiter.as_ref(), name]
            .into_iter()
            .flatten()
            .map(Py::as_ptr);
        for held in own.chain(throw.iter().map(Py::as_ptr)) {
            let status = visit(held, arg);
            if status != 0 {
                return status;
            }
        }
        0
    }
}

unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(0, |py| {
            let this = Borrowed::from_ptr(py, object);
            let this = Task::assume(&this);
            this.unlink();
            let empty = Fields {
                log_destroy_pending: false,
                ..Fields::new()
            };
            let old = this.fields().replace(empty);
            drop(old);
            Ok(0)
        });
        future::tp_clear(object)
    }
}

unsafe extern "C" fn tp_finalize(object: *mut ffi::PyObject) {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe { future::finalize(object, |object| report(Task::assume(object))) }
}

/// Reports a task that is destroyed while pending.
fn report(this: &Task<'_>) -> PyResult<()> {
    let py = this.py();
    // No more one of all tasks, even if the handler keeps it: as its weak reference would be gone by now.
    this.unlink();
    let pending = this.future().state() == State::Pending && this.fields().borrow().log_destroy_pending;
    if !pending || this.future().fields().borrow().event_loop.is_none() {
        return Ok(());
    }
    let context = PyDict::new(py);
    context.set_item("task", &this.0)?;
    context.set_item("message", "Task was destroyed but it is pending!")?;
    let source = this.0.getattr("_source_traceback")?;
    if !source.is_none() {
        context.set_item("source_traceback", source)?;
    }
    this.future()
        .event_loop()?
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
        std::ptr::drop_in_place(object.byte_add(part_offset()).cast::<Part>());
        std::ptr::drop_in_place(
            object
                .byte_add(future::offset())
                .cast::<RefCell<future::Fields>>(),
        );
        raw::free(object);
    }
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            let this = Task::assume(&this);
            let repr = if cfg!(Py_3_11) {
                this.helper("_task_repr", (&this.0,))?
            } else {
                future::repr_of_info(&this.0, &this.helper("_task_repr_info", (&this.0,))?)?
            };
            Ok(repr.into_ptr())
        })
    }
}

/// Makes the type; after that of futures, whose layout it continues.
pub(super) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let mut slots = future::slots();
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
        name: c"ropewalk.asyncio.Task",
        doc: c"A coroutine that runs on an event loop: asyncio.Task, made in Rust.",
        size: part_offset() + size_of::<Part>(),
        subclassable: true,
        slots,
        methods: own_methods(),
        attributes: own_attributes(),
    };
    let class = spec.build(py, Some(Names::get(py)?.task.bind(py)))?;
    // A reference of its own: a type may not go while the process makes instances of it.
    TYPE.store(class.clone().into_ptr().cast(), Relaxed);
    Ok(class)
}
