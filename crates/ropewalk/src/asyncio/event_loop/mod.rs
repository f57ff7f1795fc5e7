//! [`EventLoop`]: runs callbacks and tasks, one at a time, in one thread.

mod inner;
mod remote;
pub(super) mod remotes;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

pub(super) use inner::{Entry, Inner, Mail};
pub use remote::Remote;

use super::current::{self, LoopGuard};
use super::engine::Clock;
use super::error::{Error, Result};
use super::handle::{Call, Handle, TimerHandle};
use super::source::Callbacks;
use super::task::{AnyTask, Task, Watch};
use crate::futures;

pub(super) const CLOSED: Error = Error::misuse("the event loop is closed: make a new one");

/// What an exception handler is told.
#[derive(Debug, Clone)]
pub struct ExceptionContext {
    /// What has happened.
    pub message: &'static str,
    /// What failed, if anything did.
    pub exception: Option<Error>,
    /// Whose failure it is.
    pub task: Option<AnyTask>,
}

/// An event loop (Python: `asyncio.AbstractEventLoop`).
///
/// Most programs call [`run`](super::run) and never see it. A handle: clones are the same loop. It belongs to the thread that made it;
/// others reach it by [`remote`](EventLoop::remote).
///
/// Callbacks and tasks run in the order in which they became ready; what becomes ready in a turn runs in the next.
/// Dropping the last handle closes the loop; a task or callback that keeps one keeps the loop, until [`close`](EventLoop::close).
///
/// The child of a fork shares the kernel's part of the loop with its parent: it must not run it, for it would take events from there.
/// Dropping it there is harmless, and so is a loop of the child's own, in another thread if the fork came from within a loop.
///
/// ```
/// use ropewalk::asyncio::EventLoop;
/// use std::{cell::RefCell, rc::Rc, time::Duration};
///
/// let event_loop = EventLoop::new()?;
/// let seen = Rc::new(RefCell::new(Vec::new()));
/// let note = |what| {
///     let seen = seen.clone();
///     move || seen.borrow_mut().push(what)
/// };
/// event_loop.call_later(Duration::from_millis(1), note("later"));
/// event_loop.call_soon(note("soon"));
/// event_loop.call_soon(note("cancelled")).cancel();
/// let stop = event_loop.clone();
/// event_loop.call_later(Duration::from_millis(2), move || stop.stop());
/// event_loop.run_forever()?;
/// assert_eq!(*seen.borrow(), ["soon", "later"]);
/// # Ok::<(), ropewalk::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct EventLoop(pub(super) Rc<Inner>);

impl EventLoop {
    /// A loop on the system's monotonic clock.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn new() -> Result<Self> {
        Ok(Self(Inner::new(None)?))
    }

    pub(super) fn with_clock(clock: Clock) -> Result<Self> {
        Ok(Self(Inner::new(Some(clock))?))
    }

    /// Runs until `future` is done, as a task, and returns its outcome. Other tasks that are not done then stay.
    ///
    /// # Errors
    /// Of the future. One that [`is_misuse`](Error::is_misuse) if a loop runs in this thread, this one is closed, or it was
    /// stopped before the future was done.
    ///
    /// # Panics
    /// If the future does.
    pub fn run_until_complete<T, F>(&self, future: F) -> Result<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.check_runnable()?;
        self.run_task(self.create_task(future))
    }

    pub(super) fn run_task<T>(&self, mut task: Task<T>) -> Result<T> {
        let stop: Rc<dyn Watch> = Rc::new(Stop);
        task.watch(stop.clone(), 0);
        let outcome = self.run_forever();
        task.unwatch(&stop); // one that is not done must not end a later run
        outcome?;
        if !task.done() {
            return Err(Error::misuse(
                "the event loop stopped before the future completed",
            ));
        }
        task.result().map_err(|error| match error.clone().into_panic() {
            Some(payload) => resume_unwind(payload),
            None => error,
        })
    }

    /// Runs until [`stop`](EventLoop::stop) is called. A loop that was stopped before makes one turn.
    ///
    /// # Errors
    /// As [`run_until_complete`](EventLoop::run_until_complete), or the system cannot poll.
    pub fn run_forever(&self) -> Result<()> {
        self.check_runnable()?;
        let _current = LoopGuard::enter(&self.0);
        let _running = Running::set(&self.0.running);
        self.0.start();
        loop {
            self.0.turn()?;
            if self.0.stopping.take() {
                return Ok(());
            }
        }
    }

    pub(super) fn check_runnable(&self) -> Result<()> {
        if self.is_closed() {
            return Err(CLOSED);
        }
        let why = if self.is_running() {
            "this event loop is already running: await the future instead"
        } else if current::loop_id() != 0 {
            "another event loop is running in this thread: await the future there, or use another thread"
        } else {
            return Ok(());
        };
        Err(Error::misuse(why))
    }

    /// Has the loop end its run after this turn.
    pub fn stop(&self) {
        self.0.stopping.set(true);
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.0.running.get()
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Drops every task and callback that is left, and the loop's descriptors. Closing again does nothing.
    ///
    /// Tasks get no chance to clean up but by their destructors: [`run`](super::run) cancels them first.
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) while it runs.
    pub fn close(&self) -> Result<()> {
        if self.is_running() {
            return Err(Error::misuse(
                "a running event loop cannot be closed: stop it first",
            ));
        }
        let _current = LoopGuard::enter(&self.0);
        self.0.close();
        Ok(())
    }

    /// Has `callback` called in the next turn. One that panics is told to the exception handler; the loop goes on.
    ///
    /// # Panics
    /// If the loop is closed.
    pub fn call_soon(&self, callback: impl FnOnce() + 'static) -> Handle {
        self.expect_open();
        Handle(self.0.call_soon(Call::Function(Box::new(callback))))
    }

    /// Has `callback` called after `delay`; those due at the same time are called in the order of these calls.
    ///
    /// # Panics
    /// If the loop is closed.
    pub fn call_later(&self, delay: Duration, callback: impl FnOnce() + 'static) -> TimerHandle {
        self.call_at(self.time().saturating_add(delay), callback)
    }

    /// Has `callback` called at `when` on the loop's clock; see [`time`](EventLoop::time).
    ///
    /// # Panics
    /// If the loop is closed.
    pub fn call_at(&self, when: Duration, callback: impl FnOnce() + 'static) -> TimerHandle {
        self.expect_open();
        let call = Call::Function(Box::new(callback));
        TimerHandle {
            handle: Handle(self.0.call_at(when, call)),
            when,
        }
    }

    /// The time on the loop's clock: since a moment in the past that does not change.
    pub fn time(&self) -> Duration {
        self.0.time()
    }

    /// Makes a task, which begins in the next turn. [`create_task`](super::create_task) does so on the running loop.
    ///
    /// # Panics
    /// If the loop is closed.
    pub fn create_task<T, F>(&self, future: F) -> Task<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.0.create_task(future)
    }

    fn expect_open(&self) {
        assert!(!self.is_closed(), "the event loop is closed");
    }

    /// Has a call made in a thread of the loop's own pool; see [`to_thread`](super::to_thread), which also awaits it. For another pool,
    /// submit the call there and [`wrap_future`](super::wrap_future).
    ///
    /// # Errors
    /// No thread can be started. One that [`is_misuse`](Error::is_misuse) if the loop is closed.
    pub fn run_in_executor<T, F>(&self, call: F) -> Result<futures::Future<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.is_closed() {
            return Err(CLOSED);
        }
        self.0.submit(call)
    }

    /// A way into the loop from any thread.
    pub fn remote(&self) -> Remote {
        Remote::new(self.0.remote.clone())
    }

    /// Has `callback` called in each turn in which `fd` is ready to be read, until [`remove_reader`](EventLoop::remove_reader); replaces
    /// one that is there. To be removed before the descriptor is closed.
    ///
    /// # Errors
    /// The descriptor cannot be polled, such as that of a plain file. One that [`is_misuse`](Error::is_misuse) if a stream of this loop owns it.
    pub fn add_reader(&self, fd: impl AsFd, callback: impl FnMut() + 'static) -> Result<()> {
        let callback = Rc::new(RefCell::new(callback));
        let change = |callbacks: &mut Callbacks| callbacks.reader.replace(callback);
        self.0.change_callbacks(fd.as_fd(), change).map(drop)
    }

    /// As [`add_reader`](EventLoop::add_reader), for a descriptor that is ready to be written.
    ///
    /// # Errors
    /// As [`add_reader`](EventLoop::add_reader).
    pub fn add_writer(&self, fd: impl AsFd, callback: impl FnMut() + 'static) -> Result<()> {
        let callback = Rc::new(RefCell::new(callback));
        let change = |callbacks: &mut Callbacks| callbacks.writer.replace(callback);
        self.0.change_callbacks(fd.as_fd(), change).map(drop)
    }

    /// Takes the callback of [`add_reader`](EventLoop::add_reader) away; says whether there was one.
    ///
    /// # Errors
    /// As [`add_reader`](EventLoop::add_reader).
    pub fn remove_reader(&self, fd: impl AsFd) -> Result<bool> {
        self.0
            .change_callbacks(fd.as_fd(), |callbacks| callbacks.reader.take())
    }

    /// Takes the callback of [`add_writer`](EventLoop::add_writer) away; says whether there was one.
    ///
    /// # Errors
    /// As [`add_reader`](EventLoop::add_reader).
    pub fn remove_writer(&self, fd: impl AsFd) -> Result<bool> {
        self.0
            .change_callbacks(fd.as_fd(), |callbacks| callbacks.writer.take())
    }

    /// Debug mode: what holds the loop up for [`slow_callback_duration`](EventLoop::set_slow_callback_duration) is told to the
    /// exception handler.
    pub fn set_debug(&self, enabled: bool) {
        self.0.debug.set(enabled);
    }

    /// Whether debug mode is on.
    pub fn get_debug(&self) -> bool {
        self.0.debug.get()
    }

    /// From how long on a callback or a step of a task is slow; 100 ms if not set.
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.0.slow_callback_duration.set(duration);
    }

    /// Sets who is told of failures that are nobody's: of callbacks, and of tasks whose outcome nobody asks for. `None`: the
    /// default, which prints them to standard error.
    ///
    /// ```
    /// use ropewalk::asyncio::{EventLoop, ExceptionContext};
    ///
    /// let event_loop = EventLoop::new()?;
    /// event_loop.set_exception_handler(Some(|_: &EventLoop, context: &ExceptionContext| {
    ///     assert_eq!(context.message, "Exception in callback");
    /// }));
    /// let stop = event_loop.clone();
    /// event_loop.call_soon(move || {
    ///     stop.stop();
    ///     panic!("a callback");
    /// });
    /// event_loop.run_forever()?;
    /// event_loop.set_exception_handler(None::<fn(&EventLoop, &ExceptionContext)>);
    /// # Ok::<(), ropewalk::asyncio::Error>(())
    /// ```
    pub fn set_exception_handler(&self, handler: Option<impl Fn(&EventLoop, &ExceptionContext) + 'static>) {
        let handler = handler.map(|handler| Rc::new(handler) as Rc<_>);
        let old = self.0.exception_handler.replace(handler);
        drop(old);
    }

    /// Tells the exception handler. A handler that panics is told of on standard error, with what it was to handle.
    pub fn call_exception_handler(&self, context: &ExceptionContext) {
        let handler = self.0.exception_handler.borrow().clone();
        let Some(handler) = handler else {
            return eprintln!("{context}");
        };
        if panic::catch_unwind(AssertUnwindSafe(|| handler(self, context))).is_err() {
            eprintln!("Unhandled error in exception handler; it was told: {context}");
        }
    }
}

impl fmt::Display for ExceptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        if let Some(task) = &self.task {
            write!(f, ": {task:?}")?;
        } else if let Some(exception) = &self.exception {
            write!(f, ": {exception:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("running", &self.is_running())
            .field("closed", &self.is_closed())
            .field("debug", &self.get_debug())
            .finish()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // The last handle: tasks hold none, but for those whose futures keep one, which `close` drops.
        if Rc::strong_count(&self.0) == 1 && !self.is_closed() {
            let _ = self.close();
        }
    }
}

/// Ends the run of the loop in the turn after the end of a task.
struct Stop;

impl Watch for Stop {
    fn done(&self, _: usize) {
        let stop = || {
            current::with_loop(|inner| inner.stopping.set(true));
        };
        current::with_loop(|inner| inner.call_soon(Call::Function(Box::new(stop))));
    }
}

/// Says that a loop runs, until dropped.
struct Running<'a>(&'a Cell<bool>);

impl<'a> Running<'a> {
    fn set(running: &'a Cell<bool>) -> Self {
        running.set(true);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Calls `f` with the running loop.
///
/// # Panics
/// If there is none.
#[track_caller]
#[inline]
pub(super) fn expect_loop<R>(f: impl FnOnce(&Inner) -> R) -> R {
    match current::with_loop(f) {
        Some(value) => value,
        None => panic!("no running event loop: call it inside `asyncio::run`"),
    }
}
