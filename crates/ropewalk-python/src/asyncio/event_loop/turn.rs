//! A turn of the loop: what it polls, and how it runs what is ready.

use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Entry, Loop};
use crate::asyncio::context;
use crate::asyncio::future::Future;
use crate::asyncio::gathering::Gathering;
use crate::asyncio::names::{Names, is_fatal};
use crate::asyncio::task::Task;

impl Loop {
    /// A run of turns. What an exception has cut short is brought to its end.
    pub(super) fn run(&self, this: &Bound<'_, Self>, turns: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        let running = &self.state.get(this.py()).running;
        self.engine(this.py())?.start();
        running.set(true);
        let result = turns();
        running.set(false);
        self.hide(this)?;
        if result.is_err() {
            self.flush_left(this)?;
        }
        result
    }

    /// One turn.
    pub(super) fn turn(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let flags = self.state.get(py);
        if !self.dirty.get(py).borrow().is_empty() {
            self.hide(this)?;
            self.flush_left(this)?;
        }
        if self.engine(py)?.ready() == 0 {
            self.hide(this)?;
            // A signal that came while no Python code ran has interrupted nothing: its handler runs before we sleep.
            py.check_signals()?;
        }
        let wait = self.engine(py)?.wait(!flags.stopping.get());
        if let Some(wait) = wait {
            let woken = if wait.may_sleep() {
                let woken = py.detach(|| wait.block());
                let result = py.check_signals();
                if let Err(error) = result {
                    self.engine(py)?.woke(woken)?;
                    return Err(error);
                }
                woken
            } else {
                wait.block()
            };
            self.engine(py)?.woke(woken)?;
            loop {
                let event = self.engine(py)?.next_event();
                let Some(event) = event else { break };
                self.fire(py, event);
            }
        }
        let ready = {
            let mut engine = self.engine(py)?;
            engine.expire();
            engine.ready()
        };
        for _ in 0..ready {
            let Some(entry) = self.engine(py)?.pop() else {
                break;
            };
            if flags.debug.get() {
                self.run_slowly(this, entry)?
            } else {
                self.run_entry(this, entry)?
            }
        }
        if self.dirty.get(py).borrow().is_empty() {
            return Ok(());
        }
        self.hide(this)?;
        self.flush(this)
    }

    fn run_entry(&self, this: &Bound<'_, Self>, entry: Entry) -> PyResult<()> {
        let py = this.py();
        match entry {
            Entry::Handle(pending) => {
                let handle = pending.handle(py);
                handle.unscheduled();
                if let Some((future, result)) = handle.as_set_result() {
                    // No code of Python's runs, so that the last task may stay where it is shown.
                    // SAFETY: a future of ours.
                    let done = unsafe { Future::assume(&future) }.set_result(result);
                    return done.or_else(|error| {
                        self.hide(this)?;
                        handle.report(error)
                    });
                }
                self.hide(this)?;
                handle.run()
            }
            Entry::Foreign(handle) => {
                self.hide(this)?;
                let handle = handle.bind(py);
                if !handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
                    handle.call_method0(intern!(py, "_run"))?;
                }
                Ok(())
            }
            Entry::Gather(gathering) => {
                self.hide(this)?;
                Gathering::run(gathering.bind(py))
            }
            Entry::Step(task) => self.run_task(this, &task.into_bound(py), Task::run_step),
            Entry::Wakeup(task) => self.run_task(this, &task.into_bound(py), Task::run_wakeup),
        }
    }

    #[inline]
    fn run_task<'py>(
        &self,
        this: &Bound<'py, Self>,
        task: &Bound<'py, PyAny>,
        step: impl FnOnce(&Task<'py>) -> PyResult<()>,
    ) -> PyResult<()> {
        self.show(this, task)?;
        // SAFETY: entries hold tasks of ours.
        let task = unsafe { Task::assume(task) };
        let result = task.context().and_then(|context| {
            context::enter(&context)?; // refused when someone has entered it already
            let result = step(task);
            context::exit(&context)?;
            result
        });
        match result {
            Err(error) if !is_fatal(error.value(this.py())) => {
                self.hide(this)?;
                let context = PyDict::new(this.py());
                context.set_item(
                    "message",
                    format!("Exception in callback {}", task.object().repr()?),
                )?;
                context.set_item("exception", error.into_value(this.py()))?;
                this.call_method1("call_exception_handler", (context,))?;
                Ok(())
            }
            result => result,
        }
    }

    /// Runs an entry in debug mode: warns when it takes long.
    #[cold]
    fn run_slowly(&self, this: &Bound<'_, Self>, entry: Entry) -> PyResult<()> {
        let py = this.py();
        let subject = match &entry {
            Entry::Handle(handle) => handle.object().clone_ref(py),
            Entry::Gather(gathering) => gathering.clone_ref(py).into_any(),
            Entry::Foreign(task) | Entry::Step(task) | Entry::Wakeup(task) => task.clone_ref(py),
        };
        let is_handle = !matches!(entry, Entry::Step(_) | Entry::Wakeup(_) | Entry::Gather(_));
        let shown = is_handle.then(|| subject.clone_ref(py));
        let old = self.current_handle.get(py).replace(shown);
        drop(old);
        let start = self.time(py);
        let result = self.run_entry(this, entry);
        let taken = self.time(py) - start;
        let old = self.current_handle.get(py).replace(None);
        drop(old);
        result?;
        self.hide(this)?;
        if taken >= self.state.get(py).slow_callback_duration.get() {
            let subject = subject.bind(py);
            let base = py.import("asyncio.base_events")?;
            let text = match is_handle {
                true => base.call_method1("_format_handle", (subject,))?,
                false => subject.repr()?.into_any(),
            };
            let warning = ("Executing %s took %.3f seconds", text, taken);
            base.getattr("logger")?.call_method1("warning", warning)?;
        }
        Ok(())
    }

    /// Shows `task` as the current one, as `asyncio.current_task` looks it up. It stays there until another takes its
    /// place, or code may run that belongs to no task ([`Loop::hide`]).
    #[inline]
    fn show(&self, this: &Bound<'_, Self>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let shown = self.shown.get(this.py()).borrow();
        if shown.as_ref().is_some_and(|shown| shown.is(task)) {
            return Ok(());
        }
        drop(shown);
        self.put_up(this, task)
    }

    fn put_up(&self, this: &Bound<'_, Self>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = this.py();
        let old = self.shown.get(py).replace(Some(task.into()));
        drop(old);
        match &Names::get(py)?.current_tasks {
            Some(tasks) => tasks.bind(py).set_item(this, task),
            None => {
                Names::get(py)?
                    .tasks
                    .bind(py)
                    .call_method1(intern!(py, "_swap_current_task"), (this, task))?;
                Ok(())
            }
        }
    }

    #[inline]
    fn hide(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        match self.shown.get(this.py()).take() {
            Some(_) => Self::take_away(this),
            None => Ok(()),
        }
    }

    fn take_away(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        match &Names::get(py)?.current_tasks {
            Some(tasks) => {
                match tasks.bind(py).del_item(this) {
                    // Someone else has taken it away.
                    Err(error) if error.is_instance_of::<PyKeyError>(py) => Ok(()),
                    result => result,
                }
            }
            None => {
                Names::get(py)?
                    .tasks
                    .bind(py)
                    .call_method1(intern!(py, "_swap_current_task"), (this, py.None()))?;
                Ok(())
            }
        }
    }
}
