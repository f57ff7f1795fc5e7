use std::ops::Add;
use std::time::Duration;

use crate::sync::thread::Thread;

/// What happened to threads at a lock, as counts and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// How often a thread got the lock that another had had before it.
    pub switches: u64,
    /// How often a thread was made to drop the lock at a checkpoint.
    pub forced: u64,
    /// The time that threads waited for the lock.
    pub waited: Duration,
    /// The time that threads held the lock, in ticks of the kernel's coarse clock (1 to 10 ms on Linux): right
    /// over many holds, not for a single one.
    pub held: Duration,
}

impl Add for Statistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            switches: self.switches + other.switches,
            forced: self.forced + other.forced,
            waited: self.waited + other.waited,
            held: self.held + other.held,
        }
    }
}

/// What happened to one thread at a lock.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadStatistics {
    /// The thread.
    pub thread: Thread,
    /// Its share.
    pub statistics: Statistics,
}
