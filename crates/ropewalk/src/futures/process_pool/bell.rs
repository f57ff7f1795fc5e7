//! How one process wakes another: a word in shared memory that says whether, and on what, the other one sleeps.
//!
//! # No lost wake-up
//! The sleeper stores *asleep*, then looks for work; the ringer publishes work, then looks whether the other sleeps.
//! A sequentially consistent fence between the two steps on each side forbids that both look too early: either the
//! sleeper sees the work, or the ringer sees the sleeper. A ringer that does see it sets the word to *awake* and
//! wakes, and the futex compares the word again before it sleeps.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::park::{SharedFutex, Wake};
use crate::sync::atomic::{Ordering, fence};

/// Nobody sleeps.
const AWAKE: u32 = 0;
/// Somebody sleeps on the word.
const ON_WORD: u32 = 1;
/// Somebody sleeps in a poll that an eventfd ends.
const IN_POLL: u32 = 2;

/// A bell with one sleeper at a time and any number of ringers.
#[repr(transparent)]
pub(super) struct Bell(SharedFutex);

impl Bell {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(SharedFutex::new(AWAKE))
    }

    /// Says that this thread is about to sleep on the word. It must look for work once more before it does.
    pub(super) fn expect(&self) {
        self.announce(ON_WORD);
    }

    /// Says that this thread is about to poll the eventfd. It must look for work once more before it does.
    pub(super) fn expect_in_poll(&self) {
        self.announce(IN_POLL);
    }

    fn announce(&self, how: u32) {
        self.0.store(how, Ordering::Relaxed);
        // Pairs with the fence in `ring`: see above.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back: there was work.
    pub(super) fn never_mind(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// Sleeps until it is rung, after [`expect`](Self::expect).
    pub(super) fn sleep(&self, deadline: Option<Instant>) -> Wake {
        self.0.wait(ON_WORD, deadline)
    }

    /// Wakes the sleeper if there is one. Whatever it is to find must have been published before.
    pub(super) fn ring(&self, eventfd: impl AsFd) {
        // Pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) == AWAKE {
            return;
        }
        // The first of several ringers wakes. Relaxed: the fence orders, the woken one acquires what it reads.
        match self.0.swap(AWAKE, Ordering::Relaxed) {
            ON_WORD => self.0.wake_one(),
            IN_POLL => poke(eventfd),
            _ => {}
        }
    }

    /// Wakes a sleeper on the word, and leaves a poll alone: for bells without an eventfd, and for what a poll need
    /// not know.
    pub(super) fn ring_word(&self) {
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) == ON_WORD
            && self
                .0
                .compare_exchange(ON_WORD, AWAKE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.0.wake_one();
        }
    }
}

/// Ends the poll of an eventfd.
pub(super) fn poke(eventfd: impl AsFd) {
    // Fails only if the counter is full, in which case the poll ends as well.
    let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    use super::*;

    #[test]
    fn a_sleeper_is_never_left_beside_its_work() {
        loom::model(|| {
            let shared = Arc::new((Bell::new(), AtomicU32::new(0)));
            let ringer = thread::spawn({
                let shared = shared.clone();
                move || {
                    shared.1.store(1, Ordering::Release);
                    shared.0.ring_word();
                }
            });
            while shared.1.load(Ordering::Acquire) == 0 {
                shared.0.expect();
                if shared.1.load(Ordering::Acquire) != 0 {
                    shared.0.never_mind();
                    break;
                }
                shared.0.sleep(None);
            }
            ringer.join().unwrap();
        });
    }
}
