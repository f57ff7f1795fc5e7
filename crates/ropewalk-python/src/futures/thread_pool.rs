//! `_native.ThreadPoolExecutor`: the queue of `ropewalk::futures::thread_pool`, worked on by Python's own threads.
//!
//! Threads are `threading.Thread` objects, so that names, thread-locals, tracing and `threading.enumerate` are what Python
//! programs expect. A worker keeps the GIL while calls are queued and gives it up to wait.

use std::cell::Cell;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use ropewalk::futures::State;
use ropewalk::futures::thread_pool::{Queue, Refused};

use super::future::{Future, Outcome};
use crate::waits;

import_exception!(concurrent.futures.thread, BrokenThreadPool);
import_exception!(queue, Full);

const BROKEN: &str = "A thread initializer failed, the thread pool is not usable anymore";

/// How long a worker makes calls that may be C functions before it looks whether another thread has asked for the GIL.
const BREATH: Duration = Duration::from_millis(1);

thread_local! {
    /// The pool that this thread works for: the address of its `Shared`, never dereferenced.
    static POOL: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

/// A call on its way to a worker.
struct Job {
    future: Py<Future>,
    function: Py<PyAny>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

impl Job {
    fn run(self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.into_bound(py);
        if !Future::start(&future)? {
            return Ok(());
        }
        let outcome = self.function.bind(py).call(
            self.args.bind(py),
            self.kwargs.as_ref().map(|kwargs| kwargs.bind(py)),
        );
        // The call's objects go before its waiters are told, as in the standard library.
        drop((self.function, self.args, self.kwargs));
        let outcome = match outcome {
            Ok(value) => Outcome::Result(value.unbind()),
            Err(error) => Outcome::Exception(error.into_value(py).into_any()),
        };
        Future::finish(&future, outcome)
    }
}

struct Shared {
    queue: Queue<Job>,
    /// Why nothing is accepted any more.
    refusal: Mutex<Option<Refusal>>,
}

#[derive(Clone, Copy)]
enum Refusal {
    Broken,
    InterpreterExit,
}

impl Shared {
    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self) -> PyErr {
        match *self.refusal() {
            Some(Refusal::Broken) => BrokenThreadPool::new_err(BROKEN),
            Some(Refusal::InterpreterExit) => {
                PyRuntimeError::new_err("cannot schedule new futures after interpreter shutdown")
            }
            None => PyRuntimeError::new_err("cannot schedule new futures after shutdown"),
        }
    }

    /// Ends all that is queued with an exception, or by cancelling it; then raises what the first to object raised.
    fn end_queued(&self, py: Python<'_>, exception: Option<&dyn Fn() -> PyErr>) -> PyResult<()> {
        let mut ended = Ok(());
        for job in self.queue.drain() {
            ended = ended.and(Self::end(job.future.bind(py), exception));
        }
        ended
    }

    fn end(future: &Bound<'_, Future>, exception: Option<&dyn Fn() -> PyErr>) -> PyResult<()> {
        let py = future.py();
        match exception {
            None => {
                let cancelled = future.call_method0("cancel");
                // Takes notice, or `wait` would wait for a worker to do so.
                if future.get().machine().state() == State::Cancelled {
                    Future::start(future)?;
                }
                cancelled?;
            }
            Some(exception) => {
                if Future::start(future)? {
                    let error = exception().into_value(py).into_any();
                    Future::finish(future, Outcome::Exception(error))?;
                }
            }
        }
        Ok(())
    }

    fn work(
        &self,
        py: Python<'_>,
        initializer: &Bound<'_, PyAny>,
        initargs: &Bound<'_, PyAny>,
        breathe: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        POOL.set(self);
        let mut worker = self.queue.worker();
        if !initializer.is_none()
            && let Err(error) = initialize(initializer, initargs)
        {
            if let Err(failure) = log_failed_initializer(py, &error) {
                failure.write_unraisable(py, Some(initializer));
            }
            *self.refusal() = Some(Refusal::Broken);
            self.queue.close();
            return self.end_queued(py, Some(&|| BrokenThreadPool::new_err(BROKEN)));
        }
        let mut last_breath = Instant::now();
        loop {
            let job = match worker.try_pop() {
                Some(job) => {
                    // C functions never look whether somebody waits for the GIL; calling a Python function does.
                    if last_breath.elapsed() > BREATH {
                        if let Err(error) = breathe.call0() {
                            error.write_unraisable(py, None);
                        }
                        last_breath = Instant::now();
                    }
                    job
                }
                None => {
                    let job = py.detach(|| worker.pop());
                    last_breath = Instant::now();
                    let Some(job) = job else { return Ok(()) };
                    job
                }
            };
            if let Err(error) = job.run(py) {
                // Not the call's own exception: the future was meddled with, or a waiter of the standard library failed.
                error.write_unraisable(py, None);
            }
        }
    }
}

fn initialize(initializer: &Bound<'_, PyAny>, initargs: &Bound<'_, PyAny>) -> PyResult<()> {
    let args = initargs.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    initializer.call1(PyTuple::new(initializer.py(), args)?)?;
    Ok(())
}

fn log_failed_initializer(py: Python<'_>, error: &PyErr) -> PyResult<()> {
    let logger = py.import("concurrent.futures._base")?.getattr("LOGGER")?;
    let kwargs = PyDict::new(py);
    kwargs.set_item("exc_info", error.value(py))?;
    logger.call_method("critical", ("Exception in initializer:",), Some(&kwargs))?;
    Ok(())
}

/// What the threads of a pool share. Keeps neither the pool nor its futures' users alive.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct WorkQueue {
    shared: Arc<Shared>,
    /// Whether a thread has come to work here, or its starter has given up the thread: whoever is first.
    claimed: AtomicBool,
}

impl WorkQueue {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            claimed: AtomicBool::new(false),
        }
    }

    /// True for the first who asks. Relaxed: both sides hold the GIL.
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }
}

#[pymethods]
impl WorkQueue {
    /// Make the calls that are queued until the queue is closed: the body of a worker thread.
    ///
    /// `breathe` is any function written in Python: calling it lets a thread that has asked for the GIL have it.
    fn work(
        &self,
        py: Python<'_>,
        initializer: Bound<'_, PyAny>,
        initargs: Bound<'_, PyAny>,
        breathe: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if self.claim() {
            self.shared.work(py, &initializer, &initargs, &breathe)
        } else {
            Ok(())
        }
    }

    /// Accept no more calls because the interpreter exits.
    fn close_at_exit(&self) {
        *self.shared.refusal() = Some(Refusal::InterpreterExit);
        self.shared.queue.close();
    }

    /// Return the number of calls that wait for a thread.
    fn qsize(&self) -> usize {
        self.shared.queue.len()
    }
}

/// The native part of `ropewalk.futures.ThreadPoolExecutor`.
#[pyclass(module = "ropewalk._native", subclass, frozen)]
pub(crate) struct ThreadPoolExecutor {
    /// Behind a lock for the sake of `_set_up` and `_after_fork`, which put another in its place.
    shared: Mutex<Arc<Shared>>,
}

impl ThreadPoolExecutor {
    fn shared(&self) -> Arc<Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, max_workers: usize, max_pending: usize) -> Arc<Shared> {
        let shared = Shared {
            queue: Queue::new(max_workers, max_pending),
            refusal: Mutex::new(None),
        };
        mem::replace(
            &mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner),
            Arc::new(shared),
        )
    }
}

#[pymethods]
impl ThreadPoolExecutor {
    /// A subclass may take other arguments: they are `__init__`'s, which calls `_set_up`.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let shared = Shared {
            queue: Queue::new(0, 0),
            refusal: Mutex::new(None),
        };
        shared.queue.close();
        Self {
            shared: Mutex::new(Arc::new(shared)),
        }
    }

    /// Make a fresh queue for at most `max_workers` threads, in which at most `max_pending` calls may wait.
    fn _set_up(&self, max_workers: usize, max_pending: Option<usize>) {
        self.replace(max_workers, max_pending.unwrap_or(usize::MAX));
    }

    /// Begin anew in the child of a fork, where no thread of the pool exists; the parent's queued calls are cancelled.
    fn _after_fork(&self, py: Python<'_>, max_workers: usize, max_pending: Option<usize>) {
        let parents = self.replace(max_workers, max_pending.unwrap_or(usize::MAX));
        // A thread of the parent may have held its lock at the moment of the fork; then nobody can look inside any more.
        if parents.queue.is_locked() {
            mem::forget(parents);
            return;
        }
        for job in parents.queue.drain() {
            Future::cancel_in_child(job.future.bind(py));
        }
    }

    /// Why the pool is broken, or False.
    #[getter]
    fn _broken(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match *self.shared().refusal() {
            Some(Refusal::Broken) => Ok(BROKEN.into_pyobject(py)?.into_any().unbind()),
            _ => Ok(false.into_pyobject(py)?.to_owned().into_any().unbind()),
        }
    }

    /// What worker threads work on.
    #[getter]
    fn _work_queue(&self) -> WorkQueue {
        WorkQueue::new(self.shared())
    }

    /// Have `fn(*args, **kwargs)` called by a thread of the pool and return its future.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, Future>> {
        let py = slf.py();
        let shared = slf.get().shared();
        let future = Future::create(py)?;
        let mut job = Job {
            future: future.clone().unbind(),
            function: r#fn.unbind(),
            args: args.unbind(),
            kwargs: kwargs.map(Bound::unbind),
        };
        let start = loop {
            match shared.queue.push(job) {
                Ok(start) => break start,
                Err(Refused::Closed(_)) => return Err(shared.refuse()),
                Err(Refused::Full(_)) if POOL.get() == Arc::as_ptr(&shared) => {
                    return Err(Full::new_err(
                        "a call of this thread pool cannot wait for room in its own queue",
                    ));
                }
                Err(Refused::Full(back)) => job = back,
            }
            waits::wait(py, None, |until| shared.queue.wait_for_room(until))?;
        };
        if start {
            let place = Bound::new(py, WorkQueue::new(shared.clone()))?;
            if let Err(error) = slf.call_method1("_start_thread", (&place,)) {
                // Where the system has no more threads those that run make do; without any, nothing would ever run.
                // A thread whose start was interrupted may run all the same.
                let stranded = place.get().claim() && !shared.queue.not_started();
                if stranded {
                    shared.end_queued(py, None)?;
                }
                if stranded || !error.is_instance_of::<PyException>(py) {
                    return Err(error);
                }
            }
        }
        Ok(future)
    }

    /// Accept no more calls, and with `cancel_futures` cancel those that have not begun.
    fn _close(&self, py: Python<'_>, cancel_futures: bool) -> PyResult<()> {
        let shared = self.shared();
        shared.queue.close();
        if cancel_futures {
            shared.end_queued(py, None)
        } else {
            Ok(())
        }
    }

    /// Wait until all threads have left the closed queue, those being started included. Not in one of them.
    fn _wait_for_threads(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.shared();
        if POOL.get() != Arc::as_ptr(&shared) {
            waits::wait(py, None, |until| shared.queue.wait_for_workers(until))?;
        }
        Ok(())
    }
}

impl Drop for ThreadPoolExecutor {
    /// A pool that nobody can reach any more ends its threads once they have made the calls that are queued.
    fn drop(&mut self) {
        self.shared().queue.close();
    }
}
