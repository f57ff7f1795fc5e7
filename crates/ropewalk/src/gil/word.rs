use crate::sync::atomic::{AtomicU32, Ordering};

/// Somebody holds the lock.
const HELD: u32 = 1;
/// The queue is not empty: the holder may not release without looking there.
const QUEUED: u32 = 2;
/// The holder is asked to drop the lock. Implies the other two.
const REQUEST: u32 = 4;

/// The state of a lock: free or held, wanted or not, asked for or not.
///
/// `take` and `release` are the short ways, open while nobody queues. Every other transition happens under
/// the queue's mutex; while `QUEUED` is set the word changes there only, so that those may load and store.
///
/// Orderings: on the short way the value is handed to the next holder by the release in `release`, with the
/// acquire in `take` and `take_or_queue`. Where threads queue, the mutex orders `free` before `take_or_queue`
/// and `take_if_free`, and a grant (`pass`) hands the value over by the heir's signal. `requested` orders
/// nothing: seen late, it is obeyed one checkpoint later.
#[derive(Debug)]
pub(super) struct Word(AtomicU32);

impl Word {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Free and unwanted → held. False: the caller has to go the long way.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.0
            .compare_exchange(0, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Held and unwanted → free. False: the caller has to go the long way, and still holds.
    #[inline]
    pub(super) fn release(&self) -> bool {
        self.0
            .compare_exchange(HELD, 0, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether the holder is asked to drop the lock.
    #[inline]
    pub(super) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed) & REQUEST != 0
    }

    /// Free → held: true. Held → held and wanted: false, and the caller must queue before it lets the mutex go.
    pub(super) fn take_or_queue(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let free = word & HELD == 0;
            let next = word | if free { HELD } else { QUEUED };
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return free,
                Err(now) => word = now,
            }
        }
    }

    /// Free → held, for a thread that is queued.
    pub(super) fn take_if_free(&self) -> bool {
        let free = self.0.load(Ordering::Relaxed) & HELD == 0;
        if free {
            self.0.store(HELD | QUEUED, Ordering::Relaxed);
        }
        free
    }

    /// Held → held by another. A request is fulfilled by it.
    pub(super) fn pass(&self, queued: bool) {
        self.0
            .store(if queued { HELD | QUEUED } else { HELD }, Ordering::Relaxed);
    }

    /// Held and wanted → free and wanted.
    pub(super) fn free(&self) {
        self.0.store(QUEUED, Ordering::Relaxed);
    }

    /// Held → held, and asked for.
    pub(super) fn request(&self) {
        self.0.store(HELD | QUEUED | REQUEST, Ordering::Relaxed);
    }
}
