//! `Task`: a coroutine that runs on a loop, step by step. Semantics are those of `asyncio.Task` of the interpreter in
//! use.
//!
//! A task on a loop of ours has no handles: what is ready is the task itself ([`Entry::Step`], [`Entry::Wakeup`]). On
//! any other loop it goes through `loop.call_soon`, like the standard library's.

mod all;
mod class;
mod step;

use std::cell::{Cell, RefCell};

use pyo3::exceptions::{PyBaseException, PyRecursionError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{ffi, intern};

use super::context;
use super::event_loop::{Entry, Loop};
use super::future::{self, Future, State};
use super::gil::Gil;
use super::names::Names;
use super::raw::{Class, Part, Ref, Visit, Visited, wrapper};
use all::Links;
pub(super) use class::build;

/// A line of tasks that await each other and is longer than this is taken for a circle.
const LONGEST_LINE: usize = 1_000_000;

enum Name {
    /// `Task-N`, made into a string when it is asked for.
    Number(u64),
    Given(Ref),
}

/// What a task holds besides a future's fields; see `raw` for the rules.
struct Fields {
    /// None before `__init__` and after the coroutine has ended.
    coro: Option<Ref>,
    context: Option<Ref>,
    name: Name,
    /// What it waits for.
    waiter: Option<Ref>,
    /// An exception that the next step throws in.
    throw: Option<Ref<PyBaseException>>,
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

impl Fields {
    #[inline]
    fn of_coro(coro: &Bound<'_, PyAny>, name: Name, context: Bound<'_, PyAny>) -> Self {
        Self {
            coro: Some(coro.into()),
            context: Some(context.into()),
            name,
            ..Self::new()
        }
    }
}

/// What a constructor makes of its arguments.
#[inline]
fn check_arguments<'py>(
    coro: &Bound<'py, PyAny>,
    name: Option<&Bound<'py, PyAny>>,
    context: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Name, Bound<'py, PyAny>)> {
    let py = coro.py();
    // SAFETY: compares a type.
    let native = unsafe { ffi::PyCoro_CheckExact(coro.as_ptr()) != 0 };
    if !native && !Names::get(py)?.iscoroutine.bind(py).call1((coro,))?.is_truthy()? {
        let message = format!("a coroutine was expected, got {}", coro.repr()?);
        return Err(PyTypeError::new_err(message));
    }
    let context = match context.filter(|context| !context.is_none()) {
        Some(context) => context.clone(),
        None => context::copy(py)?,
    };
    let name = match name.filter(|name| !name.is_none()) {
        Some(name) => Name::Given(as_name(name)?),
        None => {
            let number = NUMBER.get(py);
            number.set(number.get() + 1);
            Name::Number(number.get())
        }
    };
    Ok((name, context))
}

/// The part of a task behind the future's fields.
struct Own {
    fields: RefCell<Fields>,
    links: Links,
}

impl Own {
    const fn new(fields: Fields) -> Self {
        Self {
            fields: RefCell::new(fields),
            links: Links::new(),
        }
    }
}

// SAFETY: `tp_new` writes it.
unsafe impl Part for Own {
    fn class() -> &'static Class {
        &CLASS
    }

    fn offset() -> usize {
        const { assert!(align_of::<Own>() <= align_of::<RefCell<future::Fields>>()) };
        RefCell::<future::Fields>::offset() + size_of::<RefCell<future::Fields>>()
    }

    fn traverse(&self, visit: Visit) -> Visited {
        // None is borrowed while the collector runs: no borrow lasts across an allocation of Python's.
        let Ok(fields) = self.fields.try_borrow() else {
            return Visited::Continue(());
        };
        visit.field(&fields.coro)?;
        visit.field(&fields.context)?;
        visit.field(&fields.waiter)?;
        visit.field(&fields.throw)?;
        match &fields.name {
            Name::Given(name) => visit.object(name.as_ptr()),
            Name::Number(_) => Visited::Continue(()),
        }
    }

    fn clear(&self, _: Python<'_>) {
        let old = self.fields.replace(Fields {
            log_destroy_pending: false,
            ..Fields::new()
        });
        drop(old);
    }
}

pub(super) static CLASS: Class = Class::new();
static NUMBER: Gil<Cell<u64>> = Gil::new(Cell::new(0));

wrapper!(
    /// A task of ours.
    Task
);

impl<'py> Task<'py> {
    /// The object as a task, if it is one of ours.
    pub(super) fn cast<'a>(object: &'a Bound<'py, PyAny>) -> Option<&'a Self> {
        // SAFETY: just found to be an instance.
        CLASS.holds(object).then(|| unsafe { Self::assume(object) })
    }

    pub(super) fn object(&self) -> &Bound<'py, PyAny> {
        &self.0
    }

    fn future(&self) -> &Future<'py> {
        // SAFETY: a task is a future.
        unsafe { Future::assume(&self.0) }
    }

    #[inline]
    fn part(&self) -> &Own {
        // SAFETY: every instance of our type has it from `tp_new` to `tp_dealloc`.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    #[inline]
    fn fields(&self) -> &RefCell<Fields> {
        &self.part().fields
    }

    /// Makes a task of a loop of ours, as `loop.create_task()` does without a factory.
    pub(super) fn create(
        event_loop: &Bound<'py, Loop>,
        coro: &Bound<'py, PyAny>,
        name: Option<&Bound<'py, PyAny>>,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (name, context) = check_arguments(coro, name, context)?;
        let task = class::new(event_loop, coro, name, context)?;
        // SAFETY: just made.
        unsafe { Self::assume(&task) }.start()?;
        Ok(task)
    }

    /// Makes the first step ready.
    fn start(&self) -> PyResult<()> {
        self.push(Entry::Step)?;
        self.link();
        Ok(())
    }

    fn init(&self, event_loop: &Bound<'py, PyAny>, fields: Fields, eager: bool) -> PyResult<()> {
        self.future().init(event_loop)?;
        let old = self.fields().replace(fields);
        drop(old);
        if eager && self.is_running_loop(event_loop)? {
            return self.start_eagerly(event_loop);
        }
        self.start()
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
        context::enter(&context)?;
        let result = self.step(None);
        context::exit(&context)?;
        result
    }

    pub(super) fn context(&self) -> PyResult<Bound<'py, PyAny>> {
        let fields = self.fields().borrow();
        match &fields.context {
            Some(context) => Ok(context.bind(self.py()).clone()),
            None => Err(PyRuntimeError::new_err("Task object is not initialized.")),
        }
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
        if let Some(future) = Future::exact(waiter) {
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
            if Future::exact(&waiter).is_none() || Task::cast(&waiter).is_none() {
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
        let old = std::mem::replace(&mut outcome.cancel_message, message.map(Ref::from));
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
        fields.name = Name::Given(Ref::from(&name));
        Ok(name)
    }

    fn helper(&self, name: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
        Names::get(self.py())?
            .base_tasks
            .bind(self.py())
            .call_method1(name, args)
    }
}

fn as_name(name: &Bound<'_, PyAny>) -> PyResult<Ref> {
    if name.is_exact_instance_of::<PyString>() {
        Ok(name.into())
    } else {
        Ok(name.str()?.into_any().into())
    }
}
