//! [`run`] and [`Runner`].

use std::any::Any;
use std::future::Future;

use super::error::Result;
use super::event_loop::{EventLoop, ExceptionContext, expect_loop};
use super::interrupt::Interrupt;
use super::task::Task;

/// Runs a coroutine on a loop of its own and returns its outcome (Python: `asyncio.run`).
///
/// The tasks that are not done at the end are cancelled, and have the time that their clean-up takes.
///
/// Ctrl-C, in the process's main thread, cancels the coroutine, so that it can clean up as well; pressed again, it ends the
/// process at once. Where SIGINT is handled or ignored when this is called, by whomever, that stays so, and a handler that
/// [`add_signal_handler`](super::EventLoop::add_signal_handler) adds meanwhile comes instead. The rules are those of
/// Python 3.11 and later.
///
/// # Errors
/// Of the coroutine. One that [`is_keyboard_interrupt`](super::Error::is_keyboard_interrupt) if Ctrl-C cancelled it, or came too late for that.
/// One that [`is_misuse`](super::Error::is_misuse) inside a loop.
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
    expect_loop(|inner| inner.create_task(future))
}

/// Makes a task of a coroutine, and gives one that is a task already back as it is (Python: `asyncio.ensure_future`): for
/// functions that take either. A task of another loop becomes one whose outcome is the error of awaiting it.
///
/// # Panics
/// As [`create_task`], of what is no task.
///
/// ```
/// use ropewalk::asyncio::{self, ensure_future};
///
/// asyncio::run(async {
///     let task = asyncio::create_task(async { Ok(1) });
///     let same = (*task).clone();
///     assert!(ensure_future(task).is(&same));
///     assert_eq!(ensure_future(async { Ok(2) }).await?, 2);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn ensure_future<T, F>(future: F) -> Task<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    // No trait says "a task or another future" without overlap; the types do, and this is decided when they are compiled.
    let mut future = Some(future);
    match (&mut future as &mut dyn Any).downcast_mut::<Option<Task<T>>>() {
        Some(task) if !task.as_ref().is_some_and(Task::is_foreign) => task.take(),
        _ => future.take().map(create_task),
    }
    .expect("was put there above")
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
        self.0.check_runnable()?;
        let task = self.0.create_task(main);
        match Interrupt::new(&self.0, &task)? {
            None => self.0.run_task(task),
            Some(interrupt) => {
                let outcome = self.0.run_task(task);
                interrupt.end(outcome)
            }
        }
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
