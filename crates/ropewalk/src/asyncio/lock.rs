//! [`Lock`].

use std::fmt;

use super::error::{Cancelled, Result};
use super::semaphore::Permits;

/// Lets one task in at a time, across its awaits (Python: `asyncio.Lock`).
///
/// Fair: tasks enter in the order in which they asked, and one that is cancelled keeps nobody out. Between two awaits no lock
/// is needed: tasks of one loop never run at once.
///
/// ```
/// use ropewalk::asyncio::{self, Lock};
///
/// asyncio::run(async {
///     let lock = Lock::new();
///     {
///         let _guard = lock.acquire().await?;
///         assert!(lock.locked());
///     }
///     assert!(!lock.locked());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Lock(Permits);

impl Lock {
    /// A lock that is free.
    pub fn new() -> Self {
        Self(Permits::new(1))
    }

    /// Waits until the lock is free and takes it, until the guard is dropped.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn acquire(&self) -> Result<LockGuard<'_>, Cancelled> {
        self.0.acquire().await?;
        Ok(LockGuard(self))
    }

    /// Takes the lock if it is free.
    pub fn try_acquire(&self) -> Option<LockGuard<'_>> {
        self.0.try_acquire().then(|| LockGuard(self))
    }

    /// Takes the lock whether or not the task is cancelled meanwhile.
    pub(super) async fn acquire_in_any_case(&self) -> LockGuard<'_> {
        self.0.acquire_in_any_case().await;
        LockGuard(self)
    }

    /// Whether it is taken.
    pub fn locked(&self) -> bool {
        self.0.free() == 0
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.locked() { "locked" } else { "unlocked" };
        match self.0.waiting() {
            0 => write!(f, "<Lock [{state}]>"),
            waiting => write!(f, "<Lock [{state}, waiters:{waiting}]>"),
        }
    }
}

/// A [`Lock`] that is held, until this is dropped.
#[must_use = "the lock is free again at once otherwise"]
pub struct LockGuard<'a>(&'a Lock);

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        self.0.0.release();
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}
