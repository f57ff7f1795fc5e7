//! Who is told when a future is done, and how.

use pyo3::prelude::*;

use super::{Future, State};
use crate::asyncio::context;
use crate::asyncio::event_loop;
use crate::asyncio::gathering::Gathering;
use crate::asyncio::raw::{Ref, Visit, Visited};
use crate::asyncio::task::Task;

/// Who is told when a future is done.
pub(crate) enum Callback {
    /// A task of ours that awaits it: no handle, no call.
    Wakeup(Ref),
    /// A gathering that counts it.
    Gather(Ref<Gathering>),
    /// A callable and the context that it runs in.
    Call(Ref, Ref),
}

/// Who is to be told, in order.
#[derive(Default)]
pub(super) struct Callbacks {
    /// The first is apart, since most futures have just one.
    first: Option<Callback>,
    rest: Vec<Callback>,
}

impl Callbacks {
    pub(super) const fn new() -> Self {
        Self {
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

    fn iter(&self) -> impl Iterator<Item = &Callback> {
        self.first.iter().chain(&self.rest)
    }

    fn into_iter(self) -> impl Iterator<Item = Callback> {
        self.first.into_iter().chain(self.rest)
    }

    pub(super) fn traverse(&self, visit: Visit) -> Visited {
        self.iter().try_for_each(|callback| match callback {
            Callback::Wakeup(task) => visit.object(task.as_ptr()),
            Callback::Gather(gathering) => visit.object(gathering.as_ptr()),
            Callback::Call(callable, context) => {
                visit.object(callable.as_ptr())?;
                visit.object(context.as_ptr())
            }
        })
    }
}

/// A callback as Python sees it.
pub(super) struct Shown<'py> {
    pub(super) callable: Bound<'py, PyAny>,
    pub(super) context: Bound<'py, PyAny>,
    /// The task, if it is a wake-up of one.
    task: Option<Bound<'py, PyAny>>,
}

impl<'py> Future<'py> {
    /// Adds a callback. A future that is done makes it ready at once.
    pub(crate) fn add_callback(&self, callback: Callback) -> PyResult<()> {
        let mut fields = self.fields().borrow_mut();
        if fields.state == State::Pending {
            fields.callbacks.push(callback);
            return Ok(());
        }
        drop(fields);
        self.schedule(callback)
    }

    fn schedule(&self, callback: Callback) -> PyResult<()> {
        let py = self.py();
        match callback {
            Callback::Wakeup(task) => {
                let task = task.into_bound(py);
                // SAFETY: only tasks of ours are put into a wake-up.
                unsafe { Task::assume(&task) }.wake(&self.0)
            }
            Callback::Gather(gathering) => Gathering::child_done(gathering.bind(py), self),
            Callback::Call(callable, context) => {
                let (event_loop, native) = self.event_loop()?;
                event_loop::call_soon(&event_loop, native, callable.bind(py), &self.0, context.bind(py))
            }
        }
    }

    pub(super) fn schedule_all(&self, callbacks: Callbacks) -> PyResult<()> {
        if let Some(first) = callbacks.first {
            self.schedule(first)?;
        }
        callbacks
            .rest
            .into_iter()
            .try_for_each(|callback| self.schedule(callback))
    }

    pub(super) fn add_done_callback(
        &self,
        callable: Bound<'py, PyAny>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let (event_loop, native) = self.event_loop()?;
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context,
            None => context::copy(self.py())?,
        };
        let mut fields = self.fields().borrow_mut();
        if fields.state == State::Pending {
            fields
                .callbacks
                .push(Callback::Call(callable.into(), context.into()));
            return Ok(());
        }
        drop(fields);
        event_loop::call_soon(&event_loop, native, &callable, &self.0, &context)
    }

    pub(super) fn remove_done_callback(&self, callable: &Bound<'py, PyAny>) -> PyResult<usize> {
        let py = self.py();
        self.check_alive()?;
        // Comparing calls Python code, which may do anything to this future: it is done outside the borrow, on a
        // snapshot of the callables, and what compared equal is taken out by identity.
        let snapshot = self.callbacks()?;
        let mut equal = Vec::new();
        for shown in &snapshot {
            if shown.callable.eq(callable)? {
                equal.push(shown.callable.as_ptr());
            }
        }
        let mut removed = Vec::new();
        let mut fields = self.fields().borrow_mut();
        for callback in std::mem::take(&mut fields.callbacks).into_iter() {
            let gone = match &callback {
                Callback::Call(callable, _) => equal.contains(&callable.as_ptr()),
                Callback::Gather(gathering) => equal.contains(&gathering.as_ptr()),
                // Its callable is made anew for each snapshot.
                Callback::Wakeup(task) => snapshot.iter().any(|shown| {
                    shown.task.as_ref().is_some_and(|t| t.is(task.bind(py)))
                        && equal.contains(&shown.callable.as_ptr())
                }),
            };
            if gone {
                removed.push(callback);
            } else {
                fields.callbacks.push(callback);
            }
        }
        drop(fields);
        Ok(removed.len())
    }

    /// The callbacks as Python sees them.
    pub(super) fn callbacks(&self) -> PyResult<Vec<Shown<'py>>> {
        let py = self.py();
        let fields = self.fields().borrow();
        let shown = fields.callbacks.iter().map(|callback| {
            let (callable, context, task) = match callback {
                Callback::Call(callable, context) => (&**callable, context.clone_ref(py), None),
                Callback::Gather(gathering) => (gathering.as_any(), py.None(), None),
                Callback::Wakeup(task) => (&**task, py.None(), Some(task.bind(py).clone())),
            };
            Shown {
                callable: callable.bind(py).clone(),
                context: context.into_bound(py),
                task,
            }
        });
        let mut shown: Vec<_> = shown.collect();
        drop(fields);
        for Shown {
            callable,
            context,
            task,
        } in &mut shown
        {
            if let Some(task) = task {
                // SAFETY: only tasks of ours are put into a wake-up.
                let task = unsafe { Task::assume(task) };
                *callable = task.wakeup_callable()?;
                *context = task.context()?;
            }
        }
        Ok(shown)
    }
}
