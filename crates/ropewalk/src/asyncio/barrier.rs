//! [`Barrier`].

use std::cell::Cell;
use std::fmt;

use super::cancel::cancellable;
use super::error::Result;
use super::waiters::Waiters;

/// Holds tasks until so many are there, then lets all of them go on, again and again (Python 3.11: `asyncio.Barrier`).
///
/// A task that is cancelled while it waits leaves, and the others wait for another in its place.
///
/// ```
/// use ropewalk::asyncio::{self, Barrier};
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let barrier = Rc::new(Barrier::new(2));
///     let other = barrier.clone();
///     let task = asyncio::create_task(async move { other.wait().await });
///     let mut places = [barrier.wait().await?, task.await?];
///     places.sort();
///     assert_eq!(places, [0, 1]);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Barrier {
    parties: usize,
    phase: Cell<Phase>,
    /// Those who are in: waiting, or on their way out.
    count: Cell<usize>,
    /// The place of the next to go on in this round.
    place: Cell<usize>,
    changed: Waiters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Tasks come in and wait.
    Filling,
    /// All were there, and go; who comes now waits for the next round.
    Draining,
    /// As draining, for those inside fail.
    Resetting,
    Broken,
}

/// The barrier was reset or aborted while, or before, the task waited (Python: `BrokenBarrierError`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBarrier;

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier was reset or aborted")
    }
}

impl std::error::Error for BrokenBarrier {}

impl Barrier {
    /// A barrier for so many tasks.
    ///
    /// # Panics
    /// For zero.
    pub fn new(parties: usize) -> Self {
        assert!(parties > 0, "parties must be greater than 0");
        Self {
            parties,
            phase: Cell::new(Phase::Filling),
            count: Cell::new(0),
            place: Cell::new(0),
            changed: Waiters::default(),
        }
    }

    /// Waits until all are there; returns a number below [`parties`](Barrier::parties), which is another for each: that of its place
    /// among them, of which the last to come has the highest.
    ///
    /// # Errors
    /// The task was cancelled. [`BrokenBarrier`] if the barrier is reset or aborted.
    pub async fn wait(&self) -> Result<usize> {
        while matches!(self.phase.get(), Phase::Draining | Phase::Resetting) {
            cancellable(self.changed.wait(|_| ())).await?;
        }
        if self.broken() {
            return Err(BrokenBarrier.into());
        }
        self.count.set(self.count.get() + 1);
        let _inside = Inside(self);
        if self.count.get() == self.parties {
            self.place.set(0);
            self.enter(Phase::Draining);
            return Ok(self.parties - 1);
        }
        while self.phase.get() == Phase::Filling {
            cancellable(self.changed.wait(|_| ())).await?;
        }
        match self.phase.get() {
            // Counted now: who came before may have left again.
            Phase::Draining => Ok(self.place.replace(self.place.get() + 1)),
            _ => Err(BrokenBarrier.into()),
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.tell_all(true);
    }

    /// Has those who wait fail, and the barrier be as new.
    pub fn reset(&self) {
        match (self.count.get(), self.phase.get()) {
            (0, _) => self.enter(Phase::Filling),
            (_, Phase::Resetting) => {}
            _ => self.enter(Phase::Resetting),
        }
    }

    /// Has those who wait fail, and all who come, until it is reset.
    pub fn abort(&self) {
        self.enter(Phase::Broken);
    }

    /// How many it takes.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait.
    pub fn n_waiting(&self) -> usize {
        match self.phase.get() {
            Phase::Filling => self.count.get(),
            _ => 0,
        }
    }

    /// Whether it was aborted.
    pub fn broken(&self) -> bool {
        self.phase.get() == Phase::Broken
    }
}

/// A task within the barrier; the last one out opens it again.
struct Inside<'a>(&'a Barrier);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 && matches!(self.0.phase.get(), Phase::Draining | Phase::Resetting) {
            self.0.enter(Phase::Filling);
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase.get() {
            Phase::Filling => "filling",
            Phase::Draining => "draining",
            Phase::Resetting => "resetting",
            Phase::Broken => "broken",
        };
        write!(
            f,
            "<Barrier [{phase}, waiters:{}/{}]>",
            self.n_waiting(),
            self.parties
        )
    }
}
