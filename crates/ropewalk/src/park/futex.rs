use std::ops::Deref;
use std::time::Instant;

use crate::sync::atomic::AtomicU32;

/// Why [`Futex::wait`] returned.
///
/// `Woken` says nothing about the word: the caller reads it again, as after any wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke this thread, or the word no longer held the expected value.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran in this thread; the caller decides whether to go on waiting.
    Interrupted,
}

/// A word that threads can sleep on.
///
/// It is an `AtomicU32` (by `Deref`) with a queue of sleepers: the kernel's own on Linux, where the struct is
/// nothing but the word, a mutex and a condition variable elsewhere and in loom models.
///
/// Does not survive a fork as a meeting point: sleepers of the parent do not exist in the child.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use ropewalk::park::{Futex, Wake};
///
/// static DOOR: Futex = Futex::new(0);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         DOOR.store(1, Ordering::Release);
///         DOOR.wake_all();
///     });
///     while DOOR.load(Ordering::Acquire) == 0 {
///         DOOR.wait(0, None);
///     }
/// });
/// assert_eq!(DOOR.wait(0, None), Wake::Woken); // the word is no longer 0: returns at once
/// ```
#[derive(Debug)]
pub struct Futex {
    word: AtomicU32,
    queue: sys::Queue,
}

impl Futex {
    /// A word that holds `value`.
    #[cfg(not(loom))]
    pub const fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            queue: sys::Queue::new(),
        }
    }

    /// A word that holds `value`.
    #[cfg(loom)]
    pub fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            queue: sys::Queue::new(),
        }
    }

    /// Sleeps if the word still holds `expected`, until a wake-up, a signal or `deadline`.
    ///
    /// May also return [`Wake::Woken`] for no reason.
    pub fn wait(&self, expected: u32, deadline: Option<Instant>) -> Wake {
        self.queue.wait(&self.word, expected, deadline)
    }

    /// Wakes one sleeper, if there is one. The word must have been changed before.
    pub fn wake_one(&self) {
        self.queue.wake(&self.word, 1);
    }

    /// Wakes all sleepers. The word must have been changed before.
    pub fn wake_all(&self) {
        self.queue.wake(&self.word, i32::MAX as u32);
    }
}

impl Deref for Futex {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.word
    }
}

/// A [`Futex`] in memory that several processes map: whoever changes the word wakes sleepers in all of them.
#[cfg(all(target_os = "linux", not(loom)))]
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct SharedFutex(AtomicU32);

#[cfg(all(target_os = "linux", not(loom)))]
impl SharedFutex {
    /// As [`Futex::wait`].
    pub(crate) fn wait(&self, expected: u32, deadline: Option<Instant>) -> Wake {
        sys::wait(&self.0, sys::BETWEEN_PROCESSES, expected, deadline)
    }

    /// As [`Futex::wake_one`].
    pub(crate) fn wake_one(&self) {
        sys::wake(&self.0, sys::BETWEEN_PROCESSES, 1);
    }
}

#[cfg(all(target_os = "linux", not(loom)))]
impl Deref for SharedFutex {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.0
    }
}

/// Models know one process.
#[cfg(all(target_os = "linux", loom))]
pub(crate) type SharedFutex = Futex;

#[cfg(all(target_os = "linux", not(loom)))]
mod sys {
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    use rustix::io::Errno;
    use rustix::thread::futex::{self, Flags, Timespec};

    use super::Wake;

    pub(super) const BETWEEN_PROCESSES: Flags = Flags::empty();

    #[derive(Debug)]
    pub(super) struct Queue;

    impl Queue {
        pub(super) const fn new() -> Self {
            Self
        }

        pub(super) fn wait(&self, word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Wake {
            wait(word, Flags::PRIVATE, expected, deadline)
        }

        pub(super) fn wake(&self, word: &AtomicU32, count: u32) {
            wake(word, Flags::PRIVATE, count);
        }
    }

    pub(super) fn wait(word: &AtomicU32, flags: Flags, expected: u32, deadline: Option<Instant>) -> Wake {
        let timeout = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Wake::TimedOut;
                }
                // A time that the kernel's clock cannot express is as good as no limit.
                Timespec::try_from(left).ok()
            }
        };
        match futex::wait(word, flags, expected, timeout.as_ref()) {
            Err(Errno::INTR) => Wake::Interrupted,
            Err(Errno::TIMEDOUT) => Wake::TimedOut,
            // EAGAIN: the word has changed. Nothing else can be told to a caller that reads the word again.
            Ok(()) | Err(_) => Wake::Woken,
        }
    }

    pub(super) fn wake(word: &AtomicU32, flags: Flags, count: u32) {
        // Fails only for an address that is none.
        let _ = futex::wake(word, flags, count);
    }
}

#[cfg(any(not(target_os = "linux"), loom))]
mod sys {
    use std::time::Instant;

    #[cfg(loom)]
    use loom::sync::{Condvar, Mutex};
    #[cfg(not(loom))]
    use std::sync::{Condvar, Mutex};

    use super::Wake;
    use crate::sync::atomic::{AtomicU32, Ordering};
    use crate::sync::lock;

    /// How long a sleeper may miss a signal where condition variables do not report any.
    #[cfg(not(loom))]
    const SIGNAL_CHECK: std::time::Duration = std::time::Duration::from_millis(50);

    #[derive(Debug)]
    pub(super) struct Queue {
        mutex: Mutex<()>,
        condvar: Condvar,
    }

    impl Queue {
        #[cfg(not(loom))]
        pub(super) const fn new() -> Self {
            Self {
                mutex: Mutex::new(()),
                condvar: Condvar::new(),
            }
        }

        #[cfg(loom)]
        pub(super) fn new() -> Self {
            Self {
                mutex: Mutex::new(()),
                condvar: Condvar::new(),
            }
        }

        /// The word is compared under the mutex that a waker takes after it has changed the word: that is the
        /// kernel's guarantee, rebuilt.
        #[cfg(not(loom))]
        pub(super) fn wait(&self, word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Wake {
            let guard = lock(&self.mutex);
            if word.load(Ordering::Relaxed) != expected {
                return Wake::Woken;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Wake::TimedOut;
            }
            let chunk = left.map_or(SIGNAL_CHECK, |left| left.min(SIGNAL_CHECK));
            match self.condvar.wait_timeout(guard, chunk) {
                Ok((_, outcome)) if outcome.timed_out() && left.is_some_and(|left| left <= chunk) => {
                    Wake::TimedOut
                }
                Ok((_, outcome)) if outcome.timed_out() => Wake::Interrupted,
                _ => Wake::Woken,
            }
        }

        /// Models have no clock: a wait with a deadline is one that times out at once, which the caller must bear.
        #[cfg(loom)]
        pub(super) fn wait(&self, word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Wake {
            let guard = lock(&self.mutex);
            if word.load(Ordering::Relaxed) != expected {
                return Wake::Woken;
            }
            if deadline.is_some() {
                return Wake::TimedOut;
            }
            drop(self.condvar.wait(guard));
            Wake::Woken
        }

        pub(super) fn wake(&self, _word: &AtomicU32, count: u32) {
            let _guard = lock(&self.mutex);
            if count == 1 {
                self.condvar.notify_one();
            } else {
                self.condvar.notify_all();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::atomic::Ordering;

    #[test]
    fn a_word_that_has_changed_does_not_put_to_sleep() {
        assert_eq!(Futex::new(1).wait(0, None), Wake::Woken);
    }

    #[test]
    fn a_deadline_in_the_past_times_out() {
        assert_eq!(Futex::new(0).wait(0, Some(Instant::now())), Wake::TimedOut);
    }

    #[test]
    fn a_deadline_ends_the_sleep() {
        let futex = Futex::new(0);
        let deadline = Instant::now() + Duration::from_millis(5);
        while futex.wait(0, Some(deadline)) != Wake::TimedOut {}
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_change_and_a_wake_end_the_sleep() {
        let futex = Futex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while futex.load(Ordering::Acquire) == 0 {
                        futex.wait(0, None);
                    }
                });
            }
            futex.store(1, Ordering::Release);
            futex.wake_all();
        });
    }
}
