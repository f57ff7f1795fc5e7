//! [`Semaphore`] and [`BoundedSemaphore`].

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use super::cancel::cancellable;
use super::error::{Cancelled, Error, Result};
use super::waiters::Waiters;

/// Permits, given in the order in which they were asked for.
///
/// Free ones and waiters are never there at once: a permit that comes back goes to the first who waits. If that one is
/// cancelled before it sees it, to the next.
pub(super) struct Permits {
    free: Cell<usize>,
    /// There are never more that are free.
    bound: usize,
    waiters: Waiters,
    closed: Cell<bool>,
}

impl Permits {
    pub(super) fn new(free: usize) -> Self {
        Self::with_bound(free, usize::MAX)
    }

    fn with_bound(free: usize, bound: usize) -> Self {
        Self {
            free: Cell::new(free),
            bound,
            waiters: Waiters::default(),
            closed: Cell::new(false),
        }
    }

    pub(super) fn free(&self) -> usize {
        self.free.get()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn try_acquire(&self) -> bool {
        let free = self.free.get();
        self.free.set(free.saturating_sub(1));
        free > 0
    }

    pub(super) fn release(&self) {
        if !self.waiters.tell_first(true) {
            self.free.set(self.free.get().saturating_add(1).min(self.bound));
        }
    }

    /// Takes away every free permit.
    pub(super) fn clear(&self) {
        self.free.set(0);
    }

    /// Waits for a permit; false once there is none left and the permits are closed.
    pub(super) async fn acquire(&self) -> Result<bool, Cancelled> {
        match self.try_now() {
            Some(outcome) => Ok(outcome),
            None => cancellable(self.waiters.wait(|granted| self.pass_on(granted))).await,
        }
    }

    /// The same, whoever is cancelled meanwhile.
    pub(super) async fn acquire_in_any_case(&self) -> bool {
        match self.try_now() {
            Some(outcome) => outcome,
            None => self.waiters.wait(|granted| self.pass_on(granted)).await,
        }
    }

    fn try_now(&self) -> Option<bool> {
        let granted = self.try_acquire();
        (granted || self.closed.get()).then_some(granted)
    }

    fn pass_on(&self, granted: bool) {
        if granted {
            self.release();
        }
    }

    /// Ends every wait: nobody waits from now on.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.waiters.tell_all(false);
    }
}

/// Lets a number of tasks in at a time (Python: `asyncio.Semaphore`).
///
/// Fair: permits are given in the order in which they were asked for, and a task that is cancelled loses none.
///
/// ```
/// use ropewalk::asyncio::{self, Semaphore};
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let downloads = Rc::new(Semaphore::new(2));
///     let flags = ["BR", "CN", "IND"].map(|country| {
///         let downloads = downloads.clone();
///         async move {
///             let _permit = downloads.acquire().await?; // two at a time
///             Ok(country.len())
///         }
///     });
///     assert_eq!(asyncio::gather(flags).await?, [2, 2, 3]);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Semaphore(Permits);

impl Semaphore {
    /// A semaphore with so many permits.
    pub fn new(value: usize) -> Self {
        Self(Permits::new(value))
    }

    /// Waits for a permit, which comes back when the guard is dropped.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn acquire(&self) -> Result<Permit<'_>, Cancelled> {
        self.0.acquire().await?;
        Ok(Permit(&self.0))
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.0.try_acquire().then(|| Permit(&self.0))
    }

    /// Whether who asks now has to wait.
    pub fn locked(&self) -> bool {
        self.0.free() == 0
    }

    /// Gives a permit more than there was, or one back that was [forgotten](Permit::forget).
    pub fn release(&self) {
        self.0.release();
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Semaphore {}>", Show(&self.0))
    }
}

struct Show<'a>(&'a Permits);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.free(), self.0.waiting()) {
            (0, 0) => f.write_str("[locked]"),
            (0, waiting) => write!(f, "[locked, waiters:{waiting}]"),
            (free, _) => write!(f, "[unlocked, value:{free}]"),
        }
    }
}

/// A permit of a [`Semaphore`], given back when dropped.
#[must_use = "the permit is given back at once otherwise"]
pub struct Permit<'a>(&'a Permits);

impl Permit<'_> {
    /// Keeps the permit for good.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// A [`Semaphore`] that never has more permits than at first (Python: `asyncio.BoundedSemaphore`).
///
/// ```
/// let downloads = ropewalk::asyncio::BoundedSemaphore::new(1);
/// downloads.try_acquire().unwrap().forget();
/// assert!(downloads.locked());
/// downloads.release()?;
/// assert!(downloads.release().unwrap_err().is_misuse());
/// # Ok::<(), ropewalk::asyncio::Error>(())
/// ```
#[derive(Debug)]
pub struct BoundedSemaphore(Semaphore);

impl BoundedSemaphore {
    /// A semaphore with so many permits.
    pub fn new(value: usize) -> Self {
        Self(Semaphore(Permits::with_bound(value, value)))
    }

    /// Gives a permit back that was [forgotten](Permit::forget).
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) if none is missing (Python: `ValueError`).
    pub fn release(&self) -> Result<()> {
        let Permits { free, bound, .. } = &self.0.0;
        if free.get() >= *bound {
            return Err(Error::misuse("the BoundedSemaphore was released too many times"));
        }
        self.0.release();
        Ok(())
    }
}

impl Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}
