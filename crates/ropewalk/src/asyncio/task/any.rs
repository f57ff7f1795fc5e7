//! [`AnyTask`]: what can be done with a task whatever its outcome is.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::header::{Callback, Watch};
use super::{LocalRef, SharedRef};
use crate::asyncio::current;
use crate::asyncio::error::{Cancelled, Error};
use crate::asyncio::event_loop::{ExceptionContext, expect_loop};
use crate::asyncio::handle::Call;

/// A task whatever its outcome is: what [`current_task`](crate::asyncio::current_task) and [`all_tasks`](crate::asyncio::all_tasks) give.
///
/// Clones are the same task. They belong to the loop's thread.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(ropewalk::asyncio::current_task());
/// ```
#[derive(Clone)]
pub struct AnyTask(LocalRef);

impl AnyTask {
    pub(in crate::asyncio) fn new(task: LocalRef) -> Self {
        Self(task)
    }

    pub(super) fn task(&self) -> &LocalRef {
        &self.0
    }

    /// Asks the task to end: [`Cancelled`] comes out of the point at which it waits.
    ///
    /// A task that waits for another passes the request on to that one. A task that has not begun never begins. False if
    /// the task is done. The rules are those of Python 3.13.
    pub fn cancel(&self) -> bool {
        self.request(None)
    }

    /// As [`cancel`](AnyTask::cancel), with a word on why.
    pub fn cancel_with(&self, message: impl Into<Arc<str>>) -> bool {
        self.request(Some(message.into()))
    }

    pub(in crate::asyncio) fn request(&self, message: Option<Arc<str>>) -> bool {
        if self.done() {
            return false;
        }
        self.0.request(message);
        self.0.wake();
        true
    }

    /// Takes one request back, for who asked for it and has seen it take effect; returns how many are left.
    pub fn uncancel(&self) -> u32 {
        self.0.requests.uncancel()
    }

    /// How many requests there were that nobody took back.
    pub fn cancelling(&self) -> u32 {
        self.0.requests.count()
    }

    /// Ends the task at the next turn by dropping its future, as other runtimes do: clean-up cannot wait.
    pub fn abort(&self) {
        if !self.done() {
            self.0.aborted.set(true);
            self.0.wake();
        }
    }

    /// Whether the task is over.
    pub fn done(&self) -> bool {
        self.0.done()
    }

    /// Whether the task is over because it was cancelled.
    pub fn cancelled(&self) -> bool {
        self.done() && self.0.cancelled.get()
    }

    /// The task's name; if none was given `Task-N`, counted in each loop.
    pub fn name(&self) -> Arc<str> {
        let mut name = self.0.extra().name.borrow_mut();
        name.get_or_insert_with(|| format!("Task-{}", self.0.number).into())
            .clone()
    }

    /// Gives the task another name.
    pub fn set_name(&self, name: impl Into<Arc<str>>) {
        *self.0.extra().name.borrow_mut() = Some(name.into());
    }

    /// Has `callback` called when the task is over: in the turn after, or in the next one if it is over already.
    ///
    /// # Panics
    /// If the task is over and no loop runs.
    pub fn add_done_callback(&self, callback: impl FnOnce(&AnyTask) + 'static) {
        if self.done() {
            let this = self.clone();
            expect_loop(|inner| {
                inner.call_soon(Call::Function(Box::new(move || callback(&this))));
            });
        } else {
            let callback = Callback::Function(Box::new(callback));
            self.0.extra().callbacks.borrow_mut().push(callback);
        }
    }

    /// Has `who` told the number when the task is over: at once if it is.
    pub(in crate::asyncio) fn watch(&self, who: Rc<dyn Watch>, number: usize) {
        if self.done() {
            who.done(number);
        } else {
            let callback = Callback::Watch(who, number);
            self.0.extra().callbacks.borrow_mut().push(callback);
        }
    }

    /// Takes `who` back.
    pub(in crate::asyncio) fn unwatch(&self, who: &Rc<dyn Watch>) {
        if self.done() {
            return;
        }
        self.0
            .extra()
            .callbacks
            .borrow_mut()
            .retain(|callback| !matches!(callback, Callback::Watch(other, _) if Rc::ptr_eq(other, who)));
    }

    /// Says that somebody looks after the task's failure.
    pub(in crate::asyncio) fn set_retrieved(&self) {
        self.0.retrieved.set(true);
    }

    /// Makes it the loop's own work: no task of the program's, which is shown and asked to end with the others.
    pub(in crate::asyncio) fn hide(&self) {
        self.0.hidden.set(true);
    }

    /// Tells the loop's exception handler of a failure that nobody will ask for.
    pub(super) fn report(&self) {
        let Some(error) = self.failure() else { return };
        if self.cancelled() || self.0.retrieved.replace(true) {
            return;
        }
        if let Ok(event_loop) = current::get_running_loop() {
            event_loop.call_exception_handler(&ExceptionContext {
                message: "Task exception was never retrieved",
                exception: Some(error),
                task: Some(self.clone()),
            });
        }
    }

    pub(in crate::asyncio) fn failure(&self) -> Option<Error> {
        self.0.failure().cloned()
    }

    /// What the task failed with, if it is over and has failed or was cancelled. Leaves the outcome in its place.
    pub fn exception(&self) -> Option<Error> {
        if self.done() {
            self.set_retrieved();
        }
        self.failure()
    }

    /// Whether both are the same task.
    pub fn is(&self, other: &AnyTask) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }

    /// Ends a task that is not done as cancelled, by dropping its future. In the loop's thread, not from within the task.
    pub(in crate::asyncio) fn drop_future(&self) {
        if !self.done() {
            // SAFETY: the task is not done and nobody polls it, so the future is there; a handle is in the loop's thread.
            unsafe { (self.0.methods().fail)(self.0.as_ptr(), Cancelled::default().into()) };
        }
    }
}

/// A task on its way through other threads, which can do nothing with it.
pub(in crate::asyncio) struct SendTask(SharedRef);

impl SendTask {
    pub(in crate::asyncio) fn new(task: &AnyTask) -> Self {
        Self(SharedRef::new(&task.0))
    }

    /// Cancels the task; called on the loop's thread, and without effect elsewhere.
    pub(in crate::asyncio) fn cancel(self) {
        if let Some(task) = self.0.unfinished() {
            AnyTask::new(task).cancel();
        }
    }
}

/// As Python's `repr`.
impl fmt::Debug for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.done() {
            true if self.cancelled() => "cancelled",
            true => "finished",
            false if self.cancelling() > 0 => "cancelling",
            false => "pending",
        };
        write!(f, "<Task {state} name='{}'", self.name())?;
        if let Some(error) = self.failure()
            && !self.cancelled()
        {
            write!(f, " exception={error:?}")?;
        }
        f.write_str(">")
    }
}
