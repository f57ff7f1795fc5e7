//! [`Event`].

use std::cell::Cell;
use std::fmt;

use super::cancel::cancellable;
use super::error::{Cancelled, Result};
use super::waiters::Waiters;

/// A flag that tasks of one loop wait for (Python: `asyncio.Event`).
///
/// Across threads, use [`threading::Event`](crate::threading::Event).
///
/// ```
/// use ropewalk::asyncio::{self, Event};
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let ready = Rc::new(Event::new());
///     let waiter = ready.clone();
///     let task = asyncio::create_task(async move { Ok(waiter.wait().await?) });
///     ready.set();
///     task.await
/// })
/// # .unwrap();
/// ```
#[derive(Default)]
pub struct Event {
    set: Cell<bool>,
    waiters: Waiters,
}

impl Event {
    /// An event that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Sets it and wakes all who wait, even if it is cleared before they run.
    pub fn set(&self) {
        self.set.set(true);
        self.waiters.tell_all(true);
    }

    /// Has those who come from now on wait.
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn wait(&self) -> Result<(), Cancelled> {
        if !self.is_set() {
            cancellable(self.waiters.wait(|_| ())).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_set() { "set" } else { "unset" };
        match self.waiters.len() {
            0 => write!(f, "<Event [{state}]>"),
            waiting => write!(f, "<Event [{state}, waiters:{waiting}]>"),
        }
    }
}
