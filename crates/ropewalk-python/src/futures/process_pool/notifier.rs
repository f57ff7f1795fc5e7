//! The thread that tells Python code what has become of calls.
//!
//! Outcomes come in without the GIL. Whoever waits for one takes it himself; only callbacks and the standard library's
//! waiters need a thread that has the GIL, and it must not be one that moves bytes. It is started for the first of
//! them: a `threading.Thread` that runs [`Notifier::work`].

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use pyo3::prelude::*;
use ropewalk::park::{Futex, Wake};

use super::super::future::Future;

/// What a pool's futures owe to Python code.
pub(crate) struct Notifier {
    parts: Mutex<Parts>,
    /// Changes with each thing to do.
    word: Futex,
    /// Changes when nothing is owed any more.
    told: Futex,
}

#[derive(Default)]
struct Parts {
    done: VecDeque<Py<Future>>,
    /// Futures of which Python code has not been told yet.
    owed: usize,
    started: bool,
    closed: bool,
    /// The notifier's own.
    thread: Option<ThreadId>,
}

impl Notifier {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            parts: Mutex::default(),
            word: Futex::new(0),
            told: Futex::new(0),
        })
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A future is going to be handed over. Starts the thread if it does not run.
    pub(crate) fn expect(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let start = {
            let mut parts = self.parts();
            parts.owed += 1;
            !std::mem::replace(&mut parts.started, true)
        };
        if start {
            let handle = NotifierThread(self.clone());
            let started = py
                .import("ropewalk.futures.process")
                .and_then(|module| module.call_method1("_start_notifier", (handle,)));
            if let Err(error) = started {
                self.parts().started = false;
                self.is_told();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The expected future was done already.
    pub(crate) fn never_mind(&self) {
        self.is_told();
        self.wake();
    }

    /// One future less is owed.
    fn is_told(&self) {
        let mut parts = self.parts();
        parts.owed -= 1;
        if parts.owed == 0 {
            drop(parts);
            // Release: pairs with the load in `wait_until_told`.
            self.told.fetch_add(1, Ordering::Release);
            self.told.wake_all();
        }
    }

    /// Whether Python code is still to be told of something; in a callback, which is being told, never.
    pub(super) fn owes(&self) -> bool {
        let parts = self.parts();
        parts.owed > 0 && parts.thread != Some(thread::current().id())
    }

    /// Waits until nothing is owed, a signal or `deadline`.
    pub(super) fn wait_until_told(&self, deadline: Option<Instant>) -> Wake {
        // Acquire, and before the look: what is told after it changes the word that the kernel compares.
        let seen = self.told.load(Ordering::Acquire);
        if !self.owes() {
            return Wake::Woken;
        }
        self.told.wait(seen, deadline)
    }

    /// Hands a future over that is done. Needs no GIL.
    pub(crate) fn push(&self, future: Py<Future>) {
        self.parts().done.push_back(future);
        self.wake();
    }

    /// Nothing more will be expected: the thread ends when it has done its duty.
    pub(super) fn close(&self) {
        self.parts().closed = true;
        self.wake();
    }

    fn wake(&self) {
        self.word.fetch_add(1, Ordering::Release);
        self.word.wake_one();
    }

    /// The next future; None when the thread is to end.
    fn next(&self) -> Option<Py<Future>> {
        loop {
            let seen = self.word.load(Ordering::Acquire);
            {
                let mut parts = self.parts();
                if let Some(future) = parts.done.pop_front() {
                    return Some(future);
                }
                if parts.closed && parts.owed == 0 {
                    return None;
                }
            }
            self.word.wait(seen, None);
        }
    }
}

/// A notifier's thread, for Python to run.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct NotifierThread(Arc<Notifier>);

#[pymethods]
impl NotifierThread {
    /// Tell callbacks and waiters until there is nothing more to tell: the body of the thread.
    fn work(&self, py: Python<'_>) {
        self.0.parts().thread = Some(thread::current().id());
        while let Some(future) = py.detach(|| self.0.next()) {
            if let Err(error) = Future::settle_from_pool(future.bind(py)) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
            self.0.is_told();
        }
    }
}
