//! [`shield`].

use std::future::Future;

use super::cancel::cancellable;
use super::error::Result;
use super::task::Task;

/// Awaits a task without passing a cancellation on to it (Python: `asyncio.shield`).
///
/// The task stays with the caller, who may await it again when this was cancelled.
///
/// # Errors
/// Of the task; the cancellation of the awaiting task, even if the outcome came in the same turn, which then stays in the task.
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let mut saving = asyncio::create_task(async {
///         asyncio::sleep(Duration::from_millis(1)).await?;
///         Ok("saved")
///     });
///     asyncio::current_task().unwrap().cancel();
///     assert!(asyncio::shield(&mut saving).await.unwrap_err().is_cancelled());
///     assert_eq!(saving.await?, "saved");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn shield<T: 'static>(task: &mut Task<T>) -> impl Future<Output = Result<T>> {
    let outcome = cancellable(std::future::poll_fn(|cx| task.join(cx)));
    async { outcome.await? }
}
