//! [`TaskGroup`]: tasks that end together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::cancel::cancellable;
use super::error::{Error, Result};
use super::runner::create_task;
use super::task::{AnyTask, Task, Watch};

/// Tasks that are all over when the group is (Python 3.11: `asyncio.TaskGroup`).
///
/// When a task fails, the others and the body of the group are cancelled, and clean up. A task that was cancelled
/// has not failed. A handle: clones are the same group, for tasks that add tasks.
///
/// ```
/// use ropewalk::asyncio::{self, TaskGroup};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let group = TaskGroup::new();
///     let failed = group.run(async |group| {
///         group.create_task(async { Ok("12 flags".parse::<u32>()?) });
///         Ok(asyncio::sleep(Duration::from_secs(3600)).await?) // cancelled
///     });
///     let error = failed.await.unwrap_err();
///     assert!(error.exceptions()[0].downcast_ref::<std::num::ParseIntError>().is_some());
///     Ok(())
/// })
/// # .unwrap();
/// ```
#[derive(Clone, Default)]
pub struct TaskGroup(Rc<Shared>);

#[derive(Default)]
struct Shared {
    phase: Cell<Phase>,
    /// The task that runs the body, while it may be cancelled for a failure.
    parent: RefCell<Option<AnyTask>>,
    /// We have asked it to end.
    parent_cancelled: Cell<bool>,
    /// Everybody has been asked to end.
    aborting: Cell<bool>,
    /// Those that are not over, in the order of their making.
    tasks: RefCell<BTreeMap<usize, AnyTask>>,
    made: Cell<usize>,
    errors: RefCell<Vec<Error>>,
    waiter: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Created,
    Entered,
    Over,
}

impl TaskGroup {
    /// A group that is yet to run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `body` and waits for it and all tasks of the group; returns what the body does.
    ///
    /// A panic of the body is a failure, as a task's is. Dropped before its end, it [aborts](AnyTask::abort) the tasks.
    ///
    /// # Errors
    /// If the body or tasks failed, one error with all their [`exceptions`](Error::exceptions). If this task was cancelled, from
    /// outside, that, once everybody has cleaned up. One that [`is_misuse`](Error::is_misuse) the second time, or outside a task.
    pub async fn run<T>(&self, body: impl AsyncFnOnce(&TaskGroup) -> Result<T>) -> Result<T> {
        let shared = &self.0;
        if shared.phase.get() != Phase::Created {
            return Err(Error::misuse("the task group has already been used"));
        }
        let parent = super::current_task().ok_or(Error::misuse(
            "a task group needs a task: await it inside `asyncio::run`",
        ))?;
        shared.phase.set(Phase::Entered);
        *shared.parent.borrow_mut() = Some(parent.clone());
        let abandoned = Abandoned(shared);
        let outcome = caught(async { body(self).await }).await;

        // From here on a failure cancels the other tasks, and not us, who wait for them.
        shared.parent.take();
        let failure = outcome.as_ref().err();
        let mut cancelled = failure.filter(|error| error.is_cancelled()).cloned();
        if shared.parent_cancelled.get() && parent.uncancel() == 0 {
            cancelled = None; // there was no request but ours
        }
        if failure.is_some() {
            shared.abort();
        }
        while let Err(request) = cancellable(shared.tasks_are_over()).await {
            if !shared.aborting.get() {
                cancelled = Some(request.into());
                shared.abort();
            }
        }
        drop(abandoned);

        let mut errors = shared.errors.take();
        errors.extend(failure.filter(|error| !error.is_cancelled()).cloned());
        if !errors.is_empty() {
            // A request from outside is not lost with the failure: it comes at the next point where this task waits.
            if parent.cancelling() > 0 {
                parent.uncancel();
                parent.cancel();
            }
            return Err(Error::group(errors));
        }
        cancelled.map_or(outcome, Err)
    }

    /// Makes a task of the group. The group looks after its failure; the handle may be dropped.
    ///
    /// In a group that is not entered, that is over, or whose tasks are being cancelled, the task is cancelled and never begins.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn create_task<T, F>(&self, future: F) -> Task<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let shared = &self.0;
        let task = create_task(future);
        if shared.phase.get() != Phase::Entered || shared.aborting.get() {
            task.cancel();
            return task;
        }
        task.set_retrieved();
        let number = shared.made.replace(shared.made.get() + 1);
        shared.tasks.borrow_mut().insert(number, (*task).clone());
        task.watch(shared.clone(), number);
        task
    }
}

/// Makes an error of a panic, so that the tasks of the group can clean up.
async fn caught<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    let mut body = std::pin::pin!(body);
    std::future::poll_fn(|cx| {
        // The body is not polled again once it has panicked.
        match panic::catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(payload) => Poll::Ready(Err(Error::panicked(payload))),
        }
    })
    .await
}

impl Shared {
    /// Asks every task to end, once.
    fn abort(&self) {
        if !self.aborting.replace(true) {
            let tasks: Vec<_> = self.tasks.borrow().values().cloned().collect();
            for task in tasks {
                task.cancel();
            }
        }
    }

    async fn tasks_are_over(&self) {
        std::future::poll_fn(|cx| {
            if self.tasks.borrow().is_empty() {
                return Poll::Ready(());
            }
            let old = self.waiter.replace(Some(cx.waker().clone()));
            drop(old); // outside the borrow
            Poll::Pending
        })
        .await;
    }
}

impl Watch for Shared {
    fn done(&self, number: usize) {
        let task = self.tasks.borrow_mut().remove(&number);
        if let Some(task) = task
            && !task.cancelled()
            && let Some(error) = task.exception()
        {
            self.errors.borrow_mut().push(error);
            if !self.aborting.get() {
                self.abort();
                if let Some(parent) = self.parent.take() {
                    self.parent_cancelled.set(true);
                    parent.cancel();
                }
            }
        }
        if self.tasks.borrow().is_empty() {
            let waiter = self.waiter.take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}

/// Ends the group when it is left, tasks that are not over by then along with it.
struct Abandoned<'a>(&'a Shared);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Over);
        self.0.parent.take();
        for task in self.0.tasks.take().into_values() {
            task.abort();
        }
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.0.phase.get() {
            Phase::Created => "created",
            Phase::Entered if self.0.aborting.get() => "cancelling",
            Phase::Entered => "entered",
            Phase::Over => "over",
        };
        write!(
            f,
            "<TaskGroup {state} tasks={} errors={}>",
            self.0.tasks.borrow().len(),
            self.0.errors.borrow().len()
        )
    }
}
