//! Whose a task is: the pool's, until the worker begins it.
//!
//! ```text
//!   OPEN --worker--> BEGUN --worker--> DONE
//!     \                \
//!      `--pool--> TAKEN `--pool--> CONDEMNED
//! ```
//!
//! Each transition is a compare-exchange, so that one side wins: a task that the pool has taken back never runs, a
//! task that the worker has begun runs once, and a worker is only ever killed for the task that it still runs.

use crate::sync::atomic::{AtomicU32, Ordering};

const OPEN: u32 = 0;
const BEGUN: u32 = 1;
const DONE: u32 = 2;
const TAKEN: u32 = 3;
const CONDEMNED: u32 = 4;

/// The state of one task frame.
#[repr(transparent)]
pub(super) struct Claim(AtomicU32);

impl Claim {
    pub(super) fn open() -> Self {
        Self(AtomicU32::new(OPEN))
    }

    fn step(&self, from: u32, to: u32) -> bool {
        // Acquire and release: what one side wrote before its step (the time at which it began) is seen by the
        // other once it has found the new state. Failure acquires for the same reason.
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The worker begins the task. False: the pool has taken it back.
    pub(super) fn begin(&self) -> bool {
        self.step(OPEN, BEGUN)
    }

    /// The worker has an outcome. False: it is condemned for this task and must not answer.
    pub(super) fn finish(&self) -> bool {
        self.step(BEGUN, DONE)
    }

    /// The pool takes back a task that has not begun. False: it has.
    pub(super) fn take_back(&self) -> bool {
        self.step(OPEN, TAKEN)
    }

    /// The pool gives up a task that is running, before it kills the worker. False: it does not run (any more).
    pub(super) fn condemn(&self) -> bool {
        self.step(BEGUN, CONDEMNED)
    }

    /// Whether the worker has begun it.
    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) != OPEN
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_task_taken_back_never_begins() {
        let claim = Claim::open();
        assert!(claim.take_back());
        assert!(!claim.begin());
    }

    #[test]
    fn a_task_begun_is_not_taken_back() {
        let claim = Claim::open();
        assert!(claim.begin() && claim.has_begun());
        assert!(!claim.take_back());
        assert!(claim.finish());
        assert!(!claim.condemn());
    }

    #[test]
    fn a_condemned_task_has_no_outcome() {
        let claim = Claim::open();
        assert!(claim.begin() && claim.condemn());
        assert!(!claim.finish());
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn one_side_wins_each_step() {
        loom::model(|| {
            let claim = Arc::new(Claim::open());
            let worker = thread::spawn({
                let claim = claim.clone();
                move || (claim.begin(), claim.finish())
            });
            let (taken, condemned) = (claim.take_back(), claim.condemn());
            let (begun, finished) = worker.join().unwrap();
            assert_ne!(taken, begun);
            assert!(!(condemned && finished));
            assert!(!begun || condemned || finished);
        });
    }
}
