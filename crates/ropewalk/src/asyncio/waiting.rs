//! [`wait`] and [`as_completed`].

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::cancel::cancellable;
use super::completions::Watched;
use super::error::{Cancelled, Result};
use super::event_loop::expect_loop;
use super::runner::ensure_future;
use super::sleep::sleep;
use super::task::{FOREIGN, Task};
use super::timeouts::timeout_at;
use crate::futures::ReturnWhen;

/// Waits for tasks until what `return_when` names has come about, or for `timeout` at most; moves those that are done out of
/// `tasks`, and leaves the others in it (Python: `asyncio.wait`).
///
/// A time that is over is no error, and cancels nothing.
///
/// # Errors
/// This task was cancelled; then nothing has moved. One that [`is_misuse`](super::Error::is_misuse) if a task belongs to another loop.
///
/// # Panics
/// Outside a loop, with a timeout.
///
/// ```
/// use ropewalk::asyncio::{self, ReturnWhen};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = |millis| asyncio::create_task(async move {
///         asyncio::sleep(Duration::from_millis(millis)).await?;
///         Ok(millis)
///     });
///     let mut pending = vec![task(60_000), task(1)];
///     let mut done = asyncio::wait(&mut pending, None, ReturnWhen::FirstCompleted).await?;
///     assert_eq!(done[0].result()?, 1);
///     assert_eq!(pending.len(), 1);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn wait<T: 'static>(
    tasks: &mut Vec<Task<T>>,
    timeout: impl Into<Option<Duration>>,
    return_when: ReturnWhen,
) -> Result<Vec<Task<T>>> {
    if tasks.iter().any(Task::is_foreign) {
        return Err(FOREIGN);
    }
    let watched = Watched::new(tasks.iter().map(|task| (**task).clone()));
    let all = async {
        for _ in 0..watched.tasks.len() {
            let task = &watched.tasks[watched.completions.next().await];
            let enough = match return_when {
                ReturnWhen::FirstCompleted => true,
                ReturnWhen::FirstException => !task.cancelled() && task.failure().is_some(),
                ReturnWhen::AllCompleted => false,
            };
            if enough {
                break;
            }
        }
    };
    match timeout.into() {
        None => cancellable(all).await?,
        Some(timeout) => {
            let (all, timer) = (std::pin::pin!(all), std::pin::pin!(sleep(timeout)));
            either(all, timer).await?;
        }
    }
    Ok(tasks.extract_if(.., |task| task.done()).collect())
}

/// Waits for the first of two.
async fn either(
    mut all: std::pin::Pin<&mut impl Future<Output = ()>>,
    mut timer: std::pin::Pin<&mut impl Future<Output = Result<(), Cancelled>>>,
) -> Result<(), Cancelled> {
    std::future::poll_fn(|cx| match timer.as_mut().poll(cx) {
        // Cancelled, or the time is over.
        std::task::Poll::Ready(outcome) => std::task::Poll::Ready(outcome),
        std::task::Poll::Pending => all.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// Gives futures as they are done, those that are done already first (Python 3.13: `async for` over `asyncio.as_completed`).
///
/// Each becomes a task at once, unless it is one. Futures of the pools may be among them, by
/// [`wrap_future`](super::wrap_future).
///
/// # Panics
/// Outside a loop.
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let probe = async |millis| {
///         asyncio::sleep(Duration::from_millis(millis)).await?;
///         Ok(millis)
///     };
///     let mut completed = asyncio::as_completed([probe(20), probe(1)], None);
///     let mut seen = Vec::new();
///     while let Some(task) = completed.next().await? {
///         seen.push(task.await?);
///     }
///     assert_eq!(seen, [1, 20]);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn as_completed<T, F>(
    futures: impl IntoIterator<Item = F>,
    timeout: impl Into<Option<Duration>>,
) -> AsCompleted<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    let tasks: Vec<_> = futures
        .into_iter()
        .map(|future| Some(ensure_future(future)))
        .collect();
    let deadline = timeout
        .into()
        .map(|timeout| expect_loop(|inner| inner.time()).saturating_add(timeout));
    AsCompleted {
        watched: Watched::new(tasks.iter().flatten().map(|task| (**task).clone())),
        left: tasks.len(),
        tasks,
        deadline,
    }
}

/// What [`as_completed`] returns. Dropped, it leaves the tasks running.
#[must_use = "the tasks run, but nobody sees their outcomes"]
pub struct AsCompleted<T: 'static> {
    tasks: Vec<Option<Task<T>>>,
    watched: Watched,
    left: usize,
    deadline: Option<Duration>,
}

impl<T: 'static> AsCompleted<T> {
    /// The next task that is done; none after the last.
    ///
    /// # Errors
    /// This task was cancelled. One that [`is_timeout`](super::Error::is_timeout) when the time, counted from the call of
    /// [`as_completed`], is over. The tasks run on, and `next` can be called again.
    pub async fn next(&mut self) -> Result<Option<Task<T>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let next = async { Ok(cancellable(self.watched.completions.next()).await?) };
        let number = timeout_at(self.deadline).run(next).await?;
        self.left -= 1;
        Ok(self.tasks[number].take())
    }
}

impl<T: 'static> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<AsCompleted {} of {} left>", self.left, self.tasks.len())
    }
}
