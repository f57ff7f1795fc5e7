//! `gather`: waits for many futures of ours at the cost of a counter.
//!
//! A child that is done counts at once; only the last one, or the first that fails, takes a place in the ready ring,
//! where `asyncio.gather` has a callback for each. The outer future is done in the turn in which asyncio's would be.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, ffi, intern};

use super::event_loop::{Entry, Loop};
use super::future::{Callback, Future, State};
use super::gil::Gil;
use super::names::Names;
use super::raw::Ref;
use super::task::Task;

struct Inner {
    /// What was asked for, in order; a future may stand in several places. Emptied when the outer future is done.
    children: Vec<Ref>,
    /// Different children that are not done.
    left: usize,
    outer: Option<Ref>,
    /// The first child that failed.
    failed: Option<Ref>,
}

/// A gathering under way.
#[pyclass(frozen, name = "Gathering", module = "ropewalk.asyncio")]
pub(crate) struct Gathering {
    inner: Gil<RefCell<Inner>>,
    return_exceptions: bool,
}

impl Gathering {
    /// A child is done.
    pub(super) fn child_done(this: &Bound<'_, Self>, child: &Future<'_>) -> PyResult<()> {
        let py = this.py();
        let mut outcome = child.fields().borrow_mut();
        outcome.log_traceback = false; // whoever awaits the outer future sees it, or has gone
        let failed = outcome.state == State::Cancelled || outcome.exception.is_some();
        drop(outcome);
        let mut inner = this.get().inner.get(py).borrow_mut();
        inner.left = inner.left.saturating_sub(1);
        let first = failed && !this.get().return_exceptions && inner.failed.is_none();
        if first {
            inner.failed = Some(child.object().into());
        }
        let due = first || inner.left == 0;
        drop(inner);
        if due {
            let (event_loop, native) = child.event_loop()?;
            if !native {
                return Ok(()); // no child: `__call__` takes any future
            }
            // SAFETY: the flag says that the loop is ours.
            let event_loop = unsafe { event_loop.cast_unchecked::<Loop>() };
            event_loop.get().push(event_loop, Entry::Gather(this.into()))?;
        }
        Ok(())
    }

    /// Makes the outer future done.
    pub(super) fn run(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let mut inner = this.get().inner.get(py).borrow_mut();
        let failed = inner.failed.as_ref().map(|failed| failed.bind(py).clone());
        let (Some(outer), children) = (inner.outer.take(), std::mem::take(&mut inner.children)) else {
            return Ok(());
        };
        drop(inner);
        let outer = outer.into_bound(py);
        // SAFETY: made by `gather`.
        let future = unsafe { Future::assume(&outer) };
        if future.state() != State::Pending {
            return Ok(());
        }
        if let Some(failed) = failed {
            // SAFETY: children are futures of ours.
            let error = match unsafe { Future::assume(&failed) }.result() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            return future.set_error(error.into_value(py).into_bound(py));
        }
        let mut results = Vec::with_capacity(children.len());
        for child in &children {
            // SAFETY: children are futures of ours.
            let child = unsafe { Future::assume(child.bind(py)) };
            if child.state() == State::Cancelled {
                // A new error: the child's own is still to be raised where the child is awaited.
                let fields = child.fields().borrow();
                let message = fields
                    .cancel_message
                    .as_ref()
                    .map(|message| message.bind(py).clone());
                drop(fields);
                let message = message.filter(|message| !message.is_none());
                let message = message.unwrap_or_else(|| PyString::new(py, "").into_any());
                results.push(Names::get(py)?.cancelled_error.bind(py).call1((message,))?);
                continue;
            }
            results.push(match child.result() {
                Ok(result) => result,
                Err(error) => error.into_value(py).into_bound(py).into_any(),
            });
        }
        if outer.getattr(intern!(py, "_cancel_requested"))?.is_truthy()?
            && let Some(last) = children.last()
        {
            // SAFETY: as above.
            let error = unsafe { Future::assume(last.bind(py)) }.make_cancelled_error()?;
            return future.set_error(error);
        }
        future.set_result(PyList::new(py, results)?.into_any())
    }
}

#[pymethods]
impl Gathering {
    /// What a child calls back, as its `_callbacks` show it.
    fn __call__(this: &Bound<'_, Self>, child: &Bound<'_, PyAny>) -> PyResult<()> {
        Future::cast(child).map_or(Ok(()), |child| Self::child_done(this, child))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation of Python's.
        let Ok(inner) = unsafe { self.inner.traversed() }.try_borrow() else {
            return Ok(());
        };
        let own = [&inner.outer, &inner.failed];
        let mut held = inner.children.iter().chain(own.into_iter().flatten());
        held.try_for_each(|object| visit.call(&**object))
    }

    fn __clear__(&self, py: Python<'_>) {
        let empty = Inner {
            children: Vec::new(),
            left: 0,
            outer: None,
            failed: None,
        };
        let old = self.inner.get(py).replace(empty);
        drop(old);
    }
}

/// Gather coroutines and futures of ours on the running loop into `outer_class(children, loop)`; None when one of them
/// or the loop is not ours, and nothing has been done.
#[pyfunction]
pub(crate) fn gather<'py>(
    py: Python<'py>,
    outer_class: &Bound<'py, PyAny>,
    awaitables: &Bound<'py, PyTuple>,
    return_exceptions: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let running = Names::get(py)?
        .events
        .bind(py)
        .call_method0(intern!(py, "_get_running_loop"))?;
    let event_loop = match running.cast::<Loop>() {
        Ok(event_loop) if event_loop.get().is_direct() => event_loop,
        _ => return Ok(None),
    };
    let mut futures = 0;
    for awaitable in awaitables.iter_borrowed() {
        // SAFETY: compares a type.
        if unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } != 0 {
            continue;
        }
        match Future::exact(&awaitable) {
            Some(future) if future.event_loop()?.0.is(&running) => futures += 1,
            _ => return Ok(None),
        }
    }
    let mut children: Vec<Ref> = Vec::with_capacity(awaitables.len());
    if futures == awaitables.len() {
        children.extend(awaitables.iter().map(Ref::from));
    } else {
        // A coroutine given twice is one child, as a future given twice is. One that only the tuple has is given once.
        let made = PyDict::new(py);
        for awaitable in awaitables.iter_borrowed() {
            // SAFETY: reads the count of a live object.
            let alone = unsafe { ffi::Py_REFCNT(awaitable.as_ptr()) } == 1;
            if Future::cast(&awaitable).is_some() {
                children.push((&*awaitable).into());
            } else if !alone && let Some(task) = made.get_item(awaitable.as_ptr().addr())? {
                children.push(task.into());
            } else {
                let task = event_loop.call_method1(intern!(py, "create_task"), (awaitable,))?;
                if Task::cast(&task).is_none() {
                    // A factory's: asyncio goes on with the tasks that there are.
                    return gather_rest(py, awaitables, children, task, return_exceptions).map(Some);
                }
                task.setattr(intern!(py, "_log_destroy_pending"), false)?;
                if !alone {
                    made.set_item(awaitable.as_ptr().addr(), &task)?;
                }
                children.push(task.into());
            }
        }
    }
    let unique = unique(py, &children)?;
    let outer = outer_class.call1((&unique, event_loop))?;
    let gathering = Gathering {
        inner: Gil::new(RefCell::new(Inner {
            children,
            left: unique.len(),
            outer: Some((&outer).into()),
            failed: None,
        })),
        return_exceptions,
    };
    let gathering = Bound::new(py, gathering)?;
    for child in &unique {
        // SAFETY: children are futures of ours.
        unsafe { Future::assume(&child) }.add_callback(Callback::Gather((&gathering).into()))?;
    }
    Ok(Some(outer))
}

/// The different ones among futures of ours, in order. Each is marked, which is cheaper than a set.
fn unique<'py>(py: Python<'py>, children: &[Ref]) -> PyResult<Bound<'py, PyList>> {
    let mark = |child: &Ref, marked| {
        // SAFETY: children are futures of ours.
        let child = unsafe { Future::assume(child.bind(py)) };
        std::mem::replace(&mut child.fields().borrow_mut().marked, marked)
    };
    let new = children.iter().filter(|child| !mark(child, true));
    let different: Vec<_> = new.map(|child| child.bind(py)).collect();
    for child in children {
        mark(child, false);
    }
    PyList::new(py, different)
}

/// Leaves it to asyncio: `children` and `task` stand for the first of `awaitables`.
fn gather_rest<'py>(
    py: Python<'py>,
    awaitables: &Bound<'py, PyTuple>,
    children: Vec<Ref>,
    task: Bound<'py, PyAny>,
    return_exceptions: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let begun = children.len() + 1;
    let all = children
        .into_iter()
        .map(|child| child.into_bound(py))
        .chain([task]);
    let all = PyTuple::new(py, all.chain(awaitables.iter().skip(begun)).collect::<Vec<_>>())?;
    let kwargs = PyDict::new(py);
    kwargs.set_item("return_exceptions", PyBool::new(py, return_exceptions))?;
    py.import("asyncio.tasks")?
        .getattr("gather")?
        .call(all, Some(&kwargs))
}
