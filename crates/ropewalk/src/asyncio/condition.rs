//! [`Condition`].

use std::fmt;
use std::rc::Rc;

use super::cancel::cancellable;
use super::error::{Cancelled, Result};
use super::lock::{Lock, LockGuard};
use super::waiters::Waiters;

/// A lock whose holder can wait until another holder says that something has changed (Python: `asyncio.Condition`).
///
/// ```
/// use ropewalk::asyncio::{self, Condition};
/// use std::{cell::Cell, rc::Rc};
///
/// asyncio::run(async {
///     let shared = Rc::new((Condition::new(), Cell::new(0)));
///     let (other, count) = (shared.clone(), 3);
///     let waiter = asyncio::create_task(async move {
///         let (changed, number) = &*other;
///         let mut guard = changed.acquire().await?;
///         guard.wait_for(|| number.get() == count).await?;
///         Ok(number.get())
///     });
///     for _ in 0..count {
///         let _guard = shared.0.acquire().await?;
///         shared.1.set(shared.1.get() + 1);
///         shared.0.notify_all();
///     }
///     assert_eq!(waiter.await?, count);
///     Ok(())
/// })
/// # .unwrap();
/// ```
#[derive(Default)]
pub struct Condition {
    lock: Rc<Lock>,
    waiters: Waiters,
}

impl Condition {
    /// A condition with a lock of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A condition with a lock that others may have as well, conditions or tasks (Python: `Condition(lock)`).
    ///
    /// ```
    /// use ropewalk::asyncio::{Condition, Lock};
    /// use std::rc::Rc;
    ///
    /// let lock = Rc::new(Lock::new());
    /// let [not_empty, not_full] = [(); 2].map(|()| Condition::with_lock(lock.clone()));
    /// let _held = lock.try_acquire();
    /// assert!(not_empty.locked() && not_full.locked());
    /// ```
    pub fn with_lock(lock: Rc<Lock>) -> Self {
        Self {
            lock,
            waiters: Waiters::default(),
        }
    }

    /// Takes the lock, until the guard is dropped.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn acquire(&self) -> Result<ConditionGuard<'_>, Cancelled> {
        let held = Some(self.lock.acquire().await?);
        Ok(ConditionGuard {
            condition: self,
            held,
        })
    }

    /// Whether the lock is taken.
    pub fn locked(&self) -> bool {
        self.lock.locked()
    }

    /// Wakes the first `count` of those who wait.
    ///
    /// They go on one after the other as they get the lock. Unlike Python's, it may be called without the lock, too: nothing comes
    /// between the look at what has changed and the wait for it.
    pub fn notify(&self, count: usize) {
        let _ = (0..count).take_while(|_| self.waiters.tell_first(true)).count();
    }

    /// Wakes all who wait; otherwise as [`notify`](Condition::notify).
    pub fn notify_all(&self) {
        self.waiters.tell_all(true);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.locked() { "locked" } else { "unlocked" };
        match self.waiters.len() {
            0 => write!(f, "<Condition [{state}]>"),
            waiting => write!(f, "<Condition [{state}, waiters:{waiting}]>"),
        }
    }
}

/// The lock of a [`Condition`], held until this is dropped.
#[must_use = "the lock is free again at once otherwise"]
pub struct ConditionGuard<'a> {
    condition: &'a Condition,
    /// None only within `wait`, and after a `wait` that was dropped.
    held: Option<LockGuard<'a>>,
}

impl ConditionGuard<'_> {
    /// Gives the lock up, waits to be notified and takes it again; it is held when this returns, cancelled or not.
    ///
    /// A notification that comes together with a cancellation goes to another task.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn wait(&mut self) -> Result<(), Cancelled> {
        let condition = self.condition;
        let notified = condition.waiters.wait(|_| {
            condition.waiters.tell_first(true);
        });
        self.held = None;
        let outcome = cancellable(notified).await;
        // A request that comes here stays pending: the caller's clean-up needs the lock.
        self.held = Some(condition.lock.acquire_in_any_case().await);
        outcome.map(drop)
    }

    /// Waits until `predicate` holds; it is asked first, and after each notification.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn wait_for(&mut self, mut predicate: impl FnMut() -> bool) -> Result<(), Cancelled> {
        while !predicate() {
            self.wait().await?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConditionGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConditionGuard")
    }
}
