//! Calls in threads, and from threads: [`to_thread`], [`wrap_future`], [`Remote::run_coroutine_threadsafe`].

use std::future::Future;

use super::cancel::cancellable;
use super::error::{Cancelled, Error, Result};
use super::event_loop::Remote;
use super::runner::create_task;
use super::task::SendTask;
use crate::futures::{self, Promise};

/// Makes a call in a thread of the loop's own pool, for what would hold the loop up (Python: `asyncio.to_thread`).
///
/// The call is queued when this is first polled. The pool, of `min(32, cpus + 4)` threads, ends with the loop, which waits
/// for calls that have begun.
///
/// # Errors
/// The task was cancelled: a call that has not begun is not made then, one that has is not waited for. One that
/// [`is_panic`](Error::is_panic) if the call panicked, that [`is_misuse`](Error::is_misuse) outside a loop.
///
/// ```
/// use ropewalk::asyncio;
///
/// asyncio::run(async {
///     let name = asyncio::to_thread(|| std::thread::current().name().map(str::to_owned)).await?;
///     assert_eq!(name.as_deref(), Some("asyncio_0"));
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn to_thread<T, F>(call: F) -> Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let future = super::get_running_loop()?.run_in_executor(call)?;
    wrap_future(future).await
}

/// Awaits a future of a thread or process pool as one of the loop's own (Python: `asyncio.wrap_future`).
///
/// # Errors
/// Of the call. If the task is cancelled, so is the future, unless it has begun, which is not waited for.
///
/// ```
/// use ropewalk::asyncio;
/// use ropewalk::futures::{Executor, ThreadPoolExecutor};
///
/// asyncio::run(async {
///     let pool = ThreadPoolExecutor::new();
///     assert_eq!(asyncio::wrap_future(pool.submit(|| 6 * 7)?).await?, 42);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn wrap_future<T>(future: futures::Future<T>) -> Result<T> {
    match cancellable(future.clone()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.is_cancelled() => Err(Cancelled::default().into()),
        Ok(Err(error)) if error.is_panic() => Err(match error.clone().into_panic() {
            Some(payload) => Error::panicked(payload),
            None => error.into(),
        }),
        Ok(Err(error)) => Err(error.into()),
        Err(cancelled) => {
            future.cancel();
            Err(cancelled.into())
        }
    }
}

impl Remote {
    /// Makes a coroutine, on the loop's thread, and runs it as a task there (Python: `asyncio.run_coroutine_threadsafe`).
    ///
    /// The future can be waited for in any thread, or awaited on any loop. Cancelling it cancels the task. If the task is
    /// cancelled, or the loop closed, so is the future.
    ///
    /// # Errors
    /// The loop is closed. The future's are the coroutine's, as a [`failure`](futures::Error::failure); `?` in a coroutine makes of it what
    /// it was.
    ///
    /// ```
    /// use ropewalk::asyncio;
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let remote = asyncio::get_running_loop()?.remote();
    ///     let answer = asyncio::to_thread(move || {
    ///         let coroutine = || async {
    ///             asyncio::sleep(Duration::from_millis(1)).await?;
    ///             Ok(42)
    ///         };
    ///         remote.run_coroutine_threadsafe(coroutine).unwrap().result()
    ///     });
    ///     let answer: Result<u32, ropewalk::futures::Error> = answer.await?;
    ///     assert_eq!(answer?, 42);
    ///     Ok(())
    /// })
    /// # .unwrap();
    /// ```
    pub fn run_coroutine_threadsafe<T, F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<futures::Future<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (promise, future) = Promise::new();
        let (remote, watched) = (self.clone(), future.clone());
        self.call_soon_threadsafe(move || {
            let task = create_task(async move {
                // A task of its own, so that a panic is an outcome as well. One that never begins drops the promise.
                match create_task(async move { make().await }).await {
                    Ok(value) => promise.set_result(value),
                    Err(error) if error.is_cancelled() => drop(promise),
                    Err(error) => promise.set_exception(error.into()),
                }
                Ok(())
            });
            let task = SendTask::new(&task);
            watched.add_done_callback(move |future| {
                if future.cancelled() {
                    // Refused by a loop that is closed, whose tasks are gone.
                    let _ = remote.call_soon_threadsafe(move || task.cancel());
                }
            });
        })?;
        Ok(future)
    }
}
