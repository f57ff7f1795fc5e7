//! `_native.wait` and `_native.AsCompleted`: many futures, ours and foreign ones, waited for through one queue.
//!
//! A future of ours is watched by its state machine. A future of the standard library gets a [`Waiter`] into its
//! `_waiters`, under its `_condition`, which is how the library's own `wait` does it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PySet;
use ropewalk::futures::state::{Notify, Watcher};
use ropewalk::futures::{Completions, State};
use ropewalk::park::Wake;

use super::future::{Future, TimeoutError};
use crate::waits;

/// What the standard library's futures tell of their end.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct Waiter {
    completions: Arc<Completions>,
    number: usize,
}

#[pymethods]
impl Waiter {
    fn add_result(&self, _future: &Bound<'_, PyAny>) {
        self.completions.notify(self.number);
    }

    fn add_exception(&self, _future: &Bound<'_, PyAny>) {
        self.completions.notify(self.number);
    }

    fn add_cancelled(&self, _future: &Bound<'_, PyAny>) {
        self.completions.notify(self.number);
    }
}

/// A future, and the waiter that was left in it if it is a foreign one.
type Entry = (Py<PyAny>, Option<Py<Waiter>>);

/// Futures that are watched until they are done or this is taken down.
struct Watched {
    completions: Arc<Completions>,
    /// By number; None once it was seen to be done.
    futures: Vec<Option<Entry>>,
}

impl Watched {
    fn new() -> Self {
        Self {
            completions: Arc::new(Completions::new()),
            futures: Vec::new(),
        }
    }

    fn add(&mut self, future: Bound<'_, PyAny>) -> PyResult<()> {
        let number = self.futures.len();
        let waiter = match future.cast::<Future>() {
            // A cancelled one is done when its executor has taken notice; our state machine does not tell of that.
            Ok(ours) if ours.get().machine().state() != State::Cancelled => {
                if let Some(done) = ours
                    .get()
                    .machine()
                    .watch(Watcher::Notify(self.completions.clone(), number))
                {
                    done.tell();
                }
                None
            }
            _ => leave_waiter(&self.completions, &future, number)?,
        };
        self.futures.push(Some((future.unbind(), waiter)));
        Ok(())
    }

    /// Stops watching.
    fn take_down(&mut self, py: Python<'_>) {
        let who: Arc<dyn Notify> = self.completions.clone();
        for (future, waiter) in mem::take(&mut self.futures).into_iter().flatten() {
            let future = future.bind(py);
            match waiter {
                None => {
                    if let Ok(ours) = future.cast::<Future>() {
                        ours.get().machine().unwatch(&who);
                    }
                }
                // What a foreign future says to that is not our error.
                Some(waiter) => drop(remove_waiter(future, waiter)),
            }
        }
    }
}

/// Leaves a waiter in a future, as the standard library does; none if the future is done, which is told at once.
fn leave_waiter(
    completions: &Arc<Completions>,
    future: &Bound<'_, PyAny>,
    number: usize,
) -> PyResult<Option<Py<Waiter>>> {
    let py = future.py();
    let condition = future.getattr(intern!(py, "_condition"))?;
    condition.call_method0(intern!(py, "acquire"))?;
    let added = (|| {
        let state: String = future.getattr(intern!(py, "_state"))?.extract()?;
        if matches!(state.as_str(), "CANCELLED_AND_NOTIFIED" | "FINISHED") {
            completions.notify(number);
            return Ok(None);
        }
        let waiter = Bound::new(
            py,
            Waiter {
                completions: completions.clone(),
                number,
            },
        )?;
        future
            .getattr(intern!(py, "_waiters"))?
            .call_method1(intern!(py, "append"), (&waiter,))?;
        Ok(Some(waiter.unbind()))
    })();
    condition.call_method0(intern!(py, "release"))?;
    added
}

/// Takes a waiter back; under the condition, since whoever goes through the list would else miss the next one.
fn remove_waiter(future: &Bound<'_, PyAny>, waiter: Py<Waiter>) -> PyResult<()> {
    let py = future.py();
    let condition = future.getattr(intern!(py, "_condition"))?;
    condition.call_method0(intern!(py, "acquire"))?;
    let removed = future
        .getattr(intern!(py, "_waiters"))
        .and_then(|waiters| waiters.call_method1(intern!(py, "remove"), (waiter,)));
    condition.call_method0(intern!(py, "release"))?;
    removed.map(drop)
}

/// Which future it is that has told of its end; or, if it is cancelled and its executor has not noticed yet, the entry to put
/// back: we shall be told again.
fn settle(
    py: Python<'_>,
    completions: &Arc<Completions>,
    (future, waiter): Entry,
    number: usize,
) -> PyResult<Result<Py<PyAny>, Entry>> {
    let bound = future.bind(py);
    if let Some(waiter) = waiter {
        remove_waiter(bound, waiter)?;
        return Ok(Ok(future));
    }
    if bound
        .cast::<Future>()
        .is_ok_and(|ours| ours.get().machine().state() == State::Cancelled)
    {
        let waiter = leave_waiter(completions, bound, number)?;
        return Ok(Err((future, waiter)));
    }
    Ok(Ok(future))
}

/// Take a snapshot of which are done, waiting for as long as `return_when` asks.
///
/// `return_when` is 1 for the first completed, 2 for the first exception, 3 for all.
#[pyfunction]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    futures: &Bound<'py, PySet>,
    timeout: Option<f64>,
    return_when: u8,
) -> PyResult<(Bound<'py, PySet>, Bound<'py, PySet>)> {
    let deadline = waits::deadline(timeout)?;
    let mut watched = Watched::new();
    for future in futures.iter() {
        if let Err(error) = watched.add(future) {
            watched.take_down(py);
            return Err(error);
        }
    }
    let outcome = wait_watched(py, &mut watched, deadline, return_when);
    watched.take_down(py);
    let done = outcome?;
    let not_done = futures
        .call_method1(intern!(py, "difference"), (&done,))?
        .cast_into()?;
    Ok((done, not_done))
}

fn wait_watched<'py>(
    py: Python<'py>,
    watched: &mut Watched,
    deadline: Option<Instant>,
    return_when: u8,
) -> PyResult<Bound<'py, PySet>> {
    let done = PySet::empty(py)?;
    let mut enough = false;
    let mut left = watched.futures.len();
    while left > 0 {
        let number = match watched.completions.try_next() {
            Some(number) => number,
            // What is done already counts even when enough are.
            None if enough => break,
            None => match next(py, &watched.completions, deadline)? {
                Some(number) => number,
                None => break,
            },
        };
        let Some(entry) = watched.futures[number].take() else {
            continue;
        };
        let future = match settle(py, &watched.completions, entry, number)? {
            Ok(future) => future,
            Err(entry) => {
                watched.futures[number] = Some(entry);
                continue;
            }
        };
        left -= 1;
        enough = enough || return_when == 1 || return_when == 2 && failed(future.bind(py))?;
        done.add(future)?;
    }
    Ok(done)
}

fn failed(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(ours) = future.cast::<Future>() {
        return Ok(ours.get().failed());
    }
    let py = future.py();
    Ok(!future.call_method0(intern!(py, "cancelled"))?.is_truthy()?
        && !future.call_method0(intern!(py, "exception"))?.is_none())
}

/// The next number, or None when the time is over.
fn next(py: Python<'_>, completions: &Completions, deadline: Option<Instant>) -> PyResult<Option<usize>> {
    let mut number = None;
    waits::wait(py, deadline, |until| match completions.next(until) {
        Ok(next) => {
            number = Some(next);
            Wake::Woken
        }
        Err(wake) => wake,
    })?;
    Ok(number)
}

/// The iterator of `ropewalk.futures.as_completed`.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct AsCompleted {
    parts: Mutex<Parts>,
    deadline: Option<Instant>,
    total: usize,
}

struct Parts {
    watched: Watched,
    left: usize,
    /// A thread is in `__next__`.
    executing: bool,
}

impl AsCompleted {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            let completions = {
                let parts = self.parts();
                if parts.left == 0 {
                    return Ok(None);
                }
                parts.watched.completions.clone()
            };
            let number = match completions.try_next() {
                Some(number) => Some(number),
                None => next(py, &completions, self.deadline)?,
            };
            let Some(number) = number else {
                let left = mem::take(&mut self.parts().left);
                return Err(TimeoutError::new_err(format!(
                    "{left} (of {}) futures unfinished",
                    self.total
                )));
            };
            let entry = self
                .parts()
                .watched
                .futures
                .get_mut(number)
                .and_then(Option::take);
            let Some(entry) = entry else { continue };
            self.parts().left -= 1;
            let entry = match settle(py, &completions, entry, number)? {
                Ok(future) => return Ok(Some(future)),
                Err(entry) => entry,
            };
            let mut parts = self.parts();
            if let Some(place) = parts.watched.futures.get_mut(number) {
                *place = Some(entry);
                parts.left += 1;
            }
        }
    }
}

#[pymethods]
impl AsCompleted {
    #[new]
    fn new(futures: &Bound<'_, PySet>, timeout: Option<f64>) -> PyResult<Self> {
        let py = futures.py();
        let deadline = waits::deadline(timeout)?;
        let mut watched = Watched::new();
        for future in futures.iter() {
            if let Err(error) = watched.add(future) {
                watched.take_down(py);
                return Err(error);
            }
        }
        let total = watched.futures.len();
        Ok(Self {
            parts: Mutex::new(Parts {
                watched,
                left: total,
                executing: false,
            }),
            deadline,
            total,
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if mem::replace(&mut self.parts().executing, true) {
            // What the standard library's generator says; two who wait for the last future would wait for ever.
            return Err(PyValueError::new_err("generator already executing"));
        }
        let outcome = self.next(py);
        self.parts().executing = false;
        outcome
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(parts) = self.parts.try_lock() else {
            return Ok(());
        };
        for (future, waiter) in parts.watched.futures.iter().flatten() {
            visit.call(future)?;
            visit.call(waiter)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut watched = mem::replace(&mut self.parts().watched, Watched::new());
        watched.take_down(py);
    }
}

impl Drop for AsCompleted {
    fn drop(&mut self) {
        let mut watched = mem::replace(&mut self.parts().watched, Watched::new());
        if !watched.futures.iter().all(Option::is_none) {
            Python::attach(|py| watched.take_down(py));
        }
    }
}
