//! [`run`] and [`Runner`].

use std::future::Future;

use super::error::Result;
use super::event_loop::{EventLoop, ExceptionContext, expect_loop};
use super::task::Task;

/// Runs a coroutine on a loop of its own and returns its outcome (Python: `asyncio.run`).
///
/// The tasks that are not done at the end are cancelled, and have the time that their clean-up takes.
///
/// # Errors
/// Of the coroutine. One that [`is_misuse`](super::Error::is_misuse) inside a loop.
///
/// # Panics
/// If the coroutine does, after the other tasks have cleaned up.
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// async fn say_after(delay: Duration, what: &str) -> asyncio::Result<String> {
///     asyncio::sleep(delay).await?;
///     Ok(what.to_owned())
/// }
///
/// let said = asyncio::run(async {
///     let hello = asyncio::create_task(say_after(Duration::from_millis(2), "hello"));
///     let world = asyncio::create_task(say_after(Duration::from_millis(1), "world"));
///     Ok(format!("{} {}", hello.await?, world.await?)) // 2 ms, not 3
/// })?;
/// assert_eq!(said, "hello world");
/// # Ok::<(), asyncio::Error>(())
/// ```
pub fn run<T, F>(main: F) -> Result<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    Runner::new()?.run(main)
}

/// Makes a task on the running loop (Python: `asyncio.create_task`). It begins when the loop gets control.
///
/// # Panics
/// Outside a loop, or if that is being closed.
pub fn create_task<T, F>(future: F) -> Task<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    expect_loop(|inner| {
        assert!(!inner.is_closed(), "the event loop is closed");
        inner.create_task(future)
    })
}

/// Runs several coroutines one after the other on one loop (Python 3.11: `asyncio.Runner`).
///
/// Dropping it cancels the tasks that are left, waits for their clean-up and closes the loop.
///
/// ```
/// use ropewalk::asyncio::Runner;
///
/// let runner = Runner::new()?;
/// assert_eq!(runner.run(async { Ok(1) })? + runner.run(async { Ok(2) })?, 3);
/// # Ok::<(), ropewalk::asyncio::Error>(())
/// ```
#[derive(Debug)]
pub struct Runner(EventLoop);

impl Runner {
    /// A runner with a loop of its own.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn new() -> Result<Self> {
        Ok(Self(EventLoop::new()?))
    }

    /// A runner of this loop, which it will close.
    pub fn with_loop(event_loop: EventLoop) -> Self {
        Self(event_loop)
    }

    /// The loop.
    pub fn get_loop(&self) -> &EventLoop {
        &self.0
    }

    /// Runs a coroutine until it is done.
    ///
    /// # Errors
    /// As [`run`].
    ///
    /// # Panics
    /// If the coroutine does.
    pub fn run<T, F>(&self, main: F) -> Result<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        self.0.run_until_complete(main)
    }

    /// Cancels the tasks that are left and runs until they are done; their failures go to the exception handler.
    fn cancel_all_tasks(&self) -> Result<()> {
        let tasks = self.0.0.all_tasks();
        for task in &tasks {
            task.cancel();
        }
        while let Some(task) = tasks.iter().find(|task| !task.done()) {
            let stop = self.0.clone();
            task.add_done_callback(move |_| stop.stop());
            self.0.run_forever()?;
        }
        for task in tasks {
            if let (false, Some(exception)) = (task.cancelled(), task.exception()) {
                self.0.call_exception_handler(&ExceptionContext {
                    message: "unhandled exception during asyncio.run() shutdown",
                    exception: Some(exception),
                    task: Some(task),
                });
            }
        }
        Ok(())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if !self.0.is_closed() {
            // What cannot be cancelled, since the loop cannot run here, is dropped.
            let _ = self.cancel_all_tasks();
            let _ = self.0.close();
        }
    }
}
