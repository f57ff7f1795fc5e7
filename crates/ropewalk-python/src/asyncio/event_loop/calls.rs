//! What schedules: `call_soon`, its siblings and `create_future`. They are hot enough to take their arguments as the
//! interpreter passes them, and so methods made by hand, added to the class that PyO3 makes.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};
use ropewalk::asyncio::engine::Nanos;

use super::{Entry, Loop};
use crate::asyncio::future::Future;
use crate::asyncio::handle::{Arguments, Handle};
use crate::asyncio::raw::{self, Args, hot_method, method, wrapper};
use crate::asyncio::task::Task;

wrapper!(
    /// A loop of ours.
    Scheduler
);

impl<'py> Scheduler<'py> {
    fn event_loop(&self) -> &Bound<'py, Loop> {
        // SAFETY: the interpreter calls the methods below on instances of the class that they were added to.
        unsafe { self.0.cast_unchecked() }
    }

    /// `call_soon`, `call_soon_threadsafe`.
    fn soon(&self, args: Args<'_, 'py>, threadsafe: bool) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (self.py(), self.event_loop());
        let event_loop = this.get();
        let method = args.function();
        let call = args.call(["callback"])?;
        let [callback] = &call.named;
        if threadsafe {
            event_loop.check_closed(py)?;
        } else {
            event_loop.check(this)?;
        }
        event_loop.check_callback(this, callback, method)?;
        // SAFETY: arguments live as long as the call.
        let arguments = unsafe { Arguments::new(py, call.rest)? };
        let handle = Handle::create(this, callback, arguments, call.context.as_deref(), None)?;
        event_loop.engine(py)?.push(Entry::Handle(handle.pending()));
        if threadsafe {
            event_loop.ring(py);
        }
        Ok(handle.into_any())
    }

    /// `call_later`, `call_at`; `when` makes a time of the loop's clock of the first argument.
    fn at(
        &self,
        args: Args<'_, 'py>,
        first: &'static str,
        when: impl FnOnce(&Loop, &Bound<'py, PyAny>) -> PyResult<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (self.py(), self.event_loop());
        let event_loop = this.get();
        let method = args.function();
        let call = args.call([first, "callback"])?;
        let [time, callback] = &call.named;
        if time.is_none() {
            let is = if first == "when" {
                "cannot be"
            } else {
                "must not be"
            };
            return Err(PyTypeError::new_err(format!("{first} {is} None")));
        }
        event_loop.check(this)?;
        event_loop.check_callback(this, callback, method)?;
        let when = when(event_loop, time)?;
        // SAFETY: arguments live as long as the call.
        let arguments = unsafe { Arguments::new(py, call.rest)? };
        let handle = Handle::create(this, callback, arguments, call.context.as_deref(), Some(when))?;
        let entry = Entry::Handle(handle.pending());
        event_loop.engine(py)?.push_at(nanos(when), entry);
        Ok(handle.into_any())
    }

    fn create_task(&self, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (self.py(), self.event_loop());
        let factory = this.get().task_factory.get(py).borrow();
        let factory = factory.as_ref().map(|factory| factory.bind(py).clone());
        let (coro, kwargs) = args.one_and_others("coro")?;
        if factory.is_none() {
            let known = |name| match &kwargs {
                Some(kwargs) => kwargs.get_item(name),
                None => Ok(None),
            };
            let (name, context) = (known(intern!(py, "name"))?, known(intern!(py, "context"))?);
            let found = usize::from(name.is_some()) + usize::from(context.is_some());
            if kwargs.as_ref().is_none_or(|kwargs| kwargs.len() == found) {
                this.get().check_closed(py)?;
                return Task::create(this, &coro, name.as_ref(), context.as_ref());
            }
        }
        let base = py.import("asyncio.base_events")?.getattr("BaseEventLoop")?;
        base.call_method("create_task", (this, coro), kwargs.as_ref())
    }
}

/// Adds the methods to the class.
pub(crate) fn add_hot_methods(py: Python<'_>) -> PyResult<()> {
    let methods = vec![
        hot_method!(
            Scheduler,
            "call_soon",
            |this, args| this.soon(args, false),
            "call_soon($self, /, callback, *args, context=None)\n--\n\n\
             Arrange for a callback to be called at the next turn, after those already waiting."
        ),
        hot_method!(
            Scheduler,
            "call_soon_threadsafe",
            |this, args| this.soon(args, true),
            "call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\n\
             The same from any thread: wakes the loop if it sleeps."
        ),
        hot_method!(
            Scheduler,
            "call_later",
            |this, args| this.at(args, "delay", |event_loop, delay| {
                Ok(event_loop.time(delay.py()) + delay.extract::<f64>()?)
            }),
            "call_later($self, /, delay, callback, *args, context=None)\n--\n\n\
             Arrange for a callback to be called after `delay` seconds."
        ),
        hot_method!(
            Scheduler,
            "call_at",
            |this, args| this.at(args, "when", |_, when| when.extract()),
            "call_at($self, /, when, callback, *args, context=None)\n--\n\n\
             Arrange for a callback to be called at a time of the loop's clock."
        ),
        hot_method!(
            Scheduler,
            "create_task",
            |this, args| this.create_task(args),
            "create_task($self, /, coro, *, name=None, context=None, **kwargs)\n--\n\n\
             A task of this loop, made by the task factory if there is one."
        ),
        method!(
            Scheduler,
            "create_future"(),
            |this| Future::create(this.event_loop()),
            "create_future($self, /)\n--\n\nA future bound to this loop."
        ),
    ];
    raw::add_methods(&py.get_type::<Loop>(), methods)
}

/// Seconds of the loop's clock as the engine counts them. What is not a number is now; infinity never comes.
fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9).ceil() as Nanos
}

/// `loop.call_soon(callback, argument, context=context)`, on whatever loop.
pub(crate) fn call_soon<'py>(
    event_loop: &Bound<'py, PyAny>,
    native: bool,
    callback: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
) -> PyResult<()> {
    if !native {
        return call_soon_foreign(event_loop, callback, Some(argument), context);
    }
    // SAFETY: the flag says that the loop is ours.
    let event_loop = unsafe { event_loop.cast_unchecked::<Loop>() };
    event_loop.get().check_closed(event_loop.py())?;
    let arguments = Arguments::Few([Some(argument.into()), None, None]);
    let handle = Handle::create(event_loop, callback, arguments, Some(context), None)?;
    event_loop.get().push(event_loop, Entry::Handle(handle.pending()))
}

/// The same on a loop that is not ours.
pub(crate) fn call_soon_foreign<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    argument: Option<&Bound<'py, PyAny>>,
    context: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let kwargs = PyDict::new(py);
    kwargs.set_item(intern!(py, "context"), context)?;
    let call_soon = event_loop.getattr(intern!(py, "call_soon"))?;
    match argument {
        Some(argument) => call_soon.call((callback, argument), Some(&kwargs))?,
        None => call_soon.call((callback,), Some(&kwargs))?,
    };
    Ok(())
}
