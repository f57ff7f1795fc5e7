//! `_native.ProcessPoolExecutor`: the pool, as seen from the program.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyList, PyTuple};
use ropewalk::futures::process_pool::{Config, Definition, Job, Limits, Message, Pool, Refused, Signal};
use ropewalk::park::Wake;

use super::super::future::Future;
use super::call::{Call, InPool};
use super::notifier::Notifier;
use super::pickling;
use crate::waits;

import_exception!(concurrent.futures.process, BrokenProcessPool);

/// The native part of `ropewalk.futures.ProcessPoolExecutor`.
#[pyclass(module = "ropewalk._native", subclass, frozen)]
pub(crate) struct ProcessPoolExecutor {
    /// Set by `_set_up`.
    parts: OnceLock<Parts>,
}

struct Parts {
    pool: Arc<Pool>,
    notifier: Arc<Notifier>,
    /// Functions that workers are sent once, by address.
    functions: Mutex<HashMap<usize, Sent>>,
}

/// A function that workers are sent once. It is kept alive, so that the address stays its own.
struct Sent {
    function: Py<PyAny>,
    definition: Arc<Definition>,
}

fn refused(refused: Refused) -> PyErr {
    match refused {
        Refused::Shutdown => PyRuntimeError::new_err("cannot schedule new futures after shutdown"),
        Refused::Broken(why) => BrokenProcessPool::new_err(why.to_string()),
        Refused::Full => PyRuntimeError::new_err("the queue is full"),
        Refused::Forked => BrokenProcessPool::new_err(
            "a process pool cannot be used in a child that was forked from its process",
        ),
    }
}

impl ProcessPoolExecutor {
    fn parts(&self) -> PyResult<&Parts> {
        self.parts
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("ProcessPoolExecutor.__init__() was not called"))
    }
}

impl Parts {
    /// What workers are sent once for `function`; None if it is to be sent with each call.
    fn definition(&self, function: &Bound<'_, PyAny>) -> PyResult<Option<Arc<Definition>>> {
        static DEFINE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = function.py();
        if !function.is_exact_instance_of::<PyFunction>() && !function.is_exact_instance_of::<PyCFunction>() {
            return Ok(None);
        }
        let address = function.as_ptr() as usize;
        let functions = || self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = functions().get(&address) {
            return Ok(Some(sent.definition.clone()));
        }
        let define = DEFINE.get_or_try_init(py, || {
            Ok::<_, PyErr>(py.import("ropewalk._pickling")?.getattr("define")?.unbind())
        })?;
        let defined = define.bind(py).call1((function,))?;
        if defined.is_none() {
            return Ok(None);
        }
        let bytes = defined.cast::<PyBytes>()?;
        let definition = Definition::new(Message::new(&[bytes.as_bytes()])?);
        let sent = Sent {
            function: function.clone().unbind(),
            definition: definition.clone(),
        };
        functions().insert(address, sent);
        Ok(Some(definition))
    }

    fn submit<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        limits: Limits,
    ) -> PyResult<Bound<'py, Future>> {
        let py = function.py();
        let future = Future::create(py)?;
        let call = Call::default();
        let job = match self.message(function, args, kwargs) {
            Ok((message, definition)) => Job::new(message, definition, limits, call),
            // As in the standard library: what cannot be sent fails its own future.
            Err(error) => {
                Future::finish(
                    &future,
                    super::super::future::Outcome::Exception(error.into_value(py).into_any()),
                )?;
                return Ok(future);
            }
        };
        let in_pool = InPool {
            pool: self.pool.clone(),
            job: job.clone(),
            notifier: self.notifier.clone(),
        };
        future.get().put_in_pool(in_pool);
        loop {
            match self.pool.submit(job.clone()) {
                Ok(()) => return Ok(future),
                Err(Refused::Full) => {
                    waits::wait(py, None, |until| self.pool.wait_for_room(until))?;
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }

    fn message(
        &self,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(Message, Option<Arc<Definition>>)> {
        let py = function.py();
        let args = pickling::lift_large(args)?;
        let definition = self.definition(function)?;
        let kwargs = kwargs.filter(|kwargs| !kwargs.is_empty());
        // A tuple of arguments, or a list of arguments, keyword arguments and function: the common case is short.
        let message = match (&definition, kwargs) {
            (Some(_), None) => pickling::dump(&args, None)?,
            (Some(_), Some(kwargs)) => {
                let call = PyList::new(py, [args.as_any(), kwargs.as_any()])?;
                pickling::dump(&call, None)?
            }
            (None, kwargs) => {
                let kwargs = match kwargs {
                    Some(kwargs) => kwargs.clone(),
                    None => PyDict::new(py),
                };
                let call = PyList::new(py, [args.as_any(), kwargs.as_any(), function])?;
                pickling::dump(&call, None)?
            }
        };
        Ok((message, definition))
    }
}

fn limits(timeout: Option<f64>, retries: u32) -> PyResult<Limits> {
    let timeout = match timeout {
        None => None,
        Some(seconds) if seconds > 0.0 => Duration::try_from_secs_f64(seconds).ok(),
        Some(_) => return Err(PyValueError::new_err("timeout must be greater than 0")),
    };
    Ok(Limits { timeout, retries })
}

#[pymethods]
impl ProcessPoolExecutor {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            parts: OnceLock::new(),
        }
    }

    /// Make the pool, whose workers `command` starts and get `setup` first.
    #[allow(clippy::too_many_arguments)]
    fn _set_up(
        &self,
        command: Vec<String>,
        setup: &[u8],
        max_workers: usize,
        max_tasks_per_child: Option<u64>,
        max_memory_per_child: Option<u64>,
        max_pending: Option<usize>,
    ) -> PyResult<()> {
        let start = move || {
            let mut start = Command::new(&command[0]);
            start.args(&command[1..]);
            start
        };
        let pool = Pool::new(Config {
            max_workers,
            command: Box::new(start),
            setup: Message::new(&[setup])?,
            max_tasks_per_child,
            max_memory_per_child,
            max_pending,
        })?;
        let parts = Parts {
            pool: Arc::new(pool),
            notifier: Notifier::new(),
            functions: Mutex::default(),
        };
        self.parts
            .set(parts)
            .map_err(|_| PyRuntimeError::new_err("ProcessPoolExecutor.__init__() was called twice"))
    }

    /// Have `fn(*args, **kwargs)` called by a worker process and return its future.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        &self,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Future>> {
        self.parts()?
            .submit(&r#fn, &args, kwargs.as_ref(), Limits::default())
    }

    /// As `submit`, with limits.
    fn _submit_with<'py>(
        &self,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
        timeout: Option<f64>,
        retries: u32,
    ) -> PyResult<Bound<'py, Future>> {
        let limits = limits(timeout, retries)?;
        self.parts()?.submit(&r#fn, &args, kwargs.as_ref(), limits)
    }

    /// Start all workers and wait for at most `timeout` seconds until they are ready: whether they are.
    fn _warm_up(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let pool = &self.parts()?.pool;
        let deadline = waits::deadline(timeout)?;
        pool.warm_up().map_err(refused)?;
        let mut outcome = Ok(false);
        let in_time = waits::wait(py, deadline, |until| {
            outcome = pool.wait_until_ready(until);
            match outcome {
                Ok(false) if until.is_some_and(|until| Instant::now() >= until) => Wake::TimedOut,
                Ok(false) => Wake::Interrupted,
                _ => Wake::Woken,
            }
        })?;
        let ready = outcome.map_err(refused)?;
        Ok(in_time && ready)
    }

    /// Accept no more calls; with `wait`, return when all workers have exited and callbacks have been called.
    fn _shutdown(&self, py: Python<'_>, wait: bool, cancel_futures: bool) -> PyResult<()> {
        let Some(parts) = self.parts.get() else {
            return Ok(());
        };
        if parts.pool.is_forked() {
            // Nothing here is this process's; even a lock may be held by a thread that only the parent has.
            return Ok(());
        }
        parts.pool.shutdown(cancel_futures);
        if wait {
            while !parts.pool.has_ended() {
                waits::wait(py, None, |until| parts.pool.wait_for_end(until))?;
            }
            while parts.notifier.owes() {
                waits::wait(py, None, |until| parts.notifier.wait_until_told(until))?;
            }
        }
        parts.notifier.close();
        Ok(())
    }

    /// End all workers with a signal; what is pending fails.
    fn _kill(&self, signal: i32) -> PyResult<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(PyValueError::new_err("no such signal"));
        };
        self.parts()?.pool.kill(signal);
        Ok(())
    }

    /// Send a signal to all workers.
    fn _signal(&self, signal: i32) -> PyResult<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(PyValueError::new_err("no such signal"));
        };
        self.parts()?.pool.signal(signal);
        Ok(())
    }

    /// Return the processes of the workers.
    fn _pids(&self) -> PyResult<Vec<u32>> {
        Ok(self.parts()?.pool.pids())
    }

    /// Return why the pool cannot make calls any more, or None.
    fn _why_broken(&self) -> PyResult<Option<String>> {
        Ok(self.parts()?.pool.why_broken().map(|why| why.to_string()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(parts) = self.parts.get() else {
            return Ok(());
        };
        // Nobody holds the lock while the collector runs: it is never held across a call into Python.
        let Ok(functions) = parts.functions.try_lock() else {
            return Ok(());
        };
        for sent in functions.values() {
            visit.call(&sent.function)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        if let Some(parts) = self.parts.get() {
            let functions =
                std::mem::take(&mut *parts.functions.lock().unwrap_or_else(PoisonError::into_inner));
            drop(functions);
        }
    }

    /// Return (workers, queued, pending, done, restarts, bytes_sent, bytes_received).
    fn _statistics(&self) -> PyResult<(usize, usize, usize, u64, u64, u64, u64)> {
        let all = self.parts()?.pool.statistics();
        Ok((
            all.workers,
            all.queued,
            all.pending,
            all.done,
            all.restarts,
            all.bytes_sent,
            all.bytes_received,
        ))
    }
}

impl Drop for ProcessPoolExecutor {
    /// A pool that nobody can reach any more ends its workers when the calls that are pending are over.
    fn drop(&mut self) {
        if let Some(parts) = self.parts.get()
            && !parts.pool.is_forked()
        {
            parts.pool.shutdown(false);
            parts.notifier.close();
        }
    }
}
