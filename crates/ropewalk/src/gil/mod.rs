//! A global interpreter lock: one thread at a time, and none for too long.
//!
//! [`Gil<T>`] guards anything that bears one thread at a time: an embedded interpreter, a library that is not
//! thread-safe, or, as `Gil<()>`, no data at all but a right to run. It differs from a mutex in that the
//! holder means to hold it for as long as it runs, and gives it up
//! - around work that does not need it, with [`GilGuard::release_for`], and
//! - when it is asked to, at its next [`GilGuard::checkpoint`]. Who has waited for the switch interval asks.
//!
//! After such a forced switch the holder does not get the lock back before a waiter has had it. Which waiter,
//! and how soon it may ask, is up to the [`Policy`]: CPython's own, or one under which threads that come back
//! from I/O do not queue behind threads that compute.
//!
//! The semantics are those of CPython 3.13's `Python/ceval_gil.c`; PEP 703 tells what a GIL is for.
//!
//! ```
//! use ropewalk::gil::Gil;
//!
//! let interpreter = Gil::new(Vec::new());
//! std::thread::scope(|scope| {
//!     for number in 0..4 {
//!         let interpreter = &interpreter;
//!         scope.spawn(move || {
//!             let mut guard = interpreter.acquire();
//!             let read = guard.release_for(|| number * 10); // blocking work: others run meanwhile
//!             guard.push(read);
//!             guard.checkpoint(); // between two bytecodes
//!         });
//!     }
//! });
//! let mut all = interpreter.into_inner();
//! all.sort();
//! assert_eq!(all, [0, 10, 20, 30]);
//! ```

// # Access rules
//
// - `word` says whether the lock is held, whether threads queue for it, and whether its holder is asked to
//   drop it; see `word.rs`, which names its transitions.
// - `value` belongs to whoever holds the lock: the thread whose transition set `HELD`, or the one to which
//   the holder granted it.
// - `last` (who held the lock last) is read and written by the holder only.
// - `queue` is under its mutex. As long as anybody queues, `word` changes under that mutex only.
// - A `Slot` belongs to one thread. Others set its `signal`, under the queue's mutex, and read its statistics.
//
// # No lost wake-up
//
// A thread queues under the mutex, having seen the lock held *and* having set `QUEUED` in one transition of
// the word. From then on the holder's short release fails, so that it comes to the mutex and finds the queue.
// It then either grants the lock to the next waiter (the word stays held, nobody can come between) or frees
// it and tells the next waiter to look. Whoever leaves the queue with others left behind it rouses the new
// first one, which looks and then watches the clock: one waiter does, the others sleep.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Mutex, lock};

#[cfg(all(test, loom))]
mod loom;
mod queue;
mod slot;
mod statistics;
mod word;

pub use queue::Policy;
pub use statistics::{Statistics, ThreadStatistics};

use queue::{Patience, Queue};
use slot::{Signal, Slot};
use word::Word;

/// CPython's default.
const SWITCH_INTERVAL: Duration = Duration::from_millis(5);

/// A lock under which one thread at a time runs, and which its holder gives up when it is asked to.
///
/// [`acquire`](Self::acquire) waits for it and returns a guard, through which the value is reached. Not
/// reentrant, but a thread may acquire it again inside [`GilGuard::release_for`].
///
/// A forked child must not use a `Gil` that another thread of the parent held: as with any lock, that thread
/// does not exist there.
pub struct Gil<T = ()> {
    word: Word,
    /// The thread that held the lock last.
    last: UnsafeCell<Option<ThreadId>>,
    /// In nanoseconds. A setting on its own: relaxed.
    interval: AtomicU64,
    shared: Mutex<Shared>,
    value: UnsafeCell<T>,
}

/// What is under the mutex: who waits, and who is there at all.
struct Shared {
    queue: Queue,
    /// With the number of each thread's guards.
    threads: HashMap<ThreadId, (Arc<Slot>, usize)>,
    /// The sum over the threads that have left.
    ended: Statistics,
}

// SAFETY: `last` is the holder's. The value is reached through a guard only, and one guard at a time holds the lock; so
// `&Gil<T>` in many threads moves `T` between them, which is what `Send` permits. Nobody gets `&T` in two threads at once
// except by sharing a guard, which asks for `T: Sync` itself.
unsafe impl<T: Send> Sync for Gil<T> {}

impl<T> Gil<T> {
    /// A lock around `value`, under [CPython's policy](Policy::Cpython).
    pub fn new(value: T) -> Self {
        Self::with_policy(value, Policy::default())
    }

    /// A lock around `value`, under `policy`.
    pub fn with_policy(value: T, policy: Policy) -> Self {
        Self {
            word: Word::new(),
            last: UnsafeCell::new(None),
            interval: AtomicU64::new(nanos(SWITCH_INTERVAL)),
            shared: Mutex::new(Shared {
                queue: Queue::new(policy),
                threads: HashMap::new(),
                ended: Statistics::default(),
            }),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until this thread holds the lock.
    ///
    /// A holder that panicked has released it; nothing is poisoned.
    ///
    /// # Panics
    ///
    /// When this thread holds the lock already.
    pub fn acquire(&self) -> GilGuard<'_, T> {
        let attached = lock(&self.shared).attach();
        let Some(slot) = attached else {
            panic!("this thread holds the lock already");
        };
        self.take(&slot);
        GilGuard {
            gil: self,
            slot,
            not_send: PhantomData,
        }
    }

    /// How long a thread waits before it asks the holder to drop the lock. 5 ms unless set.
    pub fn switch_interval(&self) -> Duration {
        Duration::from_nanos(self.interval.load(Ordering::Relaxed))
    }

    /// Sets how long a thread waits before it asks the holder to drop the lock.
    ///
    /// Holds for waits that begin from now on.
    ///
    /// # Errors
    ///
    /// An interval of zero is refused.
    pub fn set_switch_interval(&self, interval: Duration) -> Result<(), SwitchIntervalError> {
        if interval.is_zero() {
            return Err(SwitchIntervalError);
        }
        self.interval.store(nanos(interval), Ordering::Relaxed);
        Ok(())
    }

    /// What all threads together have done and suffered, those that have ended included.
    pub fn statistics(&self) -> Statistics {
        let shared = lock(&self.shared);
        shared
            .threads
            .values()
            .fold(shared.ended, |sum, (slot, _)| sum + slot.statistics())
    }

    /// What each thread that now holds, awaits or has released the lock has done and suffered, in no order.
    pub fn threads(&self) -> Vec<ThreadStatistics> {
        let shared = lock(&self.shared);
        shared.threads.values().map(|(slot, _)| slot.row()).collect()
    }

    /// The value. Nobody can hold the lock, since nobody else has a reference to it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Waits until the thread of `slot` holds the lock.
    #[inline]
    fn take(&self, slot: &Arc<Slot>) {
        if !self.word.take() {
            self.queue_up(slot);
        }
        self.begin(slot);
    }

    #[inline]
    fn release(&self, slot: &Slot) {
        slot.ends();
        if !self.word.release() {
            self.hand_on();
        }
    }

    /// The books of a thread that has just got the lock.
    #[inline]
    fn begin(&self, slot: &Arc<Slot>) {
        // SAFETY: this thread holds the lock, and its holder alone uses `last`.
        let last = unsafe { &mut *self.last.get() };
        slot.begins(last.replace(slot.id) != Some(slot.id));
    }

    /// Gets the lock for a thread that comes from outside and finds it held or wanted.
    #[cold]
    fn queue_up(&self, slot: &Arc<Slot>) {
        let mut shared = lock(&self.shared);
        if self.word.take_or_queue() {
            // Free at this moment, though perhaps somebody is on the way to it. To overtake a sleeper while
            // it wakes up keeps the lock in use, which saves a lock with short holds from a convoy; who is
            // overtaken too long asks.
            shared.queue.overtaken();
            return;
        }
        let arrived = Instant::now();
        slot.wait_again();
        shared.queue.push(slot.clone(), arrived);
        drop(shared);
        self.wait(slot, arrived);
    }

    /// Releases a lock that others want: granted if it is owed to the next one, else free, and that one told
    /// to look.
    #[cold]
    fn hand_on(&self) {
        let mut shared = lock(&self.shared);
        let queue = &mut shared.queue;
        queue.end_of_turn();
        if (self.word.requested() || queue.next_is_owed())
            && let Some(heir) = queue.pop_next()
        {
            self.grant(queue, &heir);
        } else {
            self.word.free();
            queue.rouse_next();
        }
    }

    /// The forced switch: the next waiter has the lock, and this thread waits until it has it again.
    #[cold]
    fn switch(&self, slot: &Arc<Slot>) {
        let mut shared = lock(&self.shared);
        let queue = &mut shared.queue;
        queue.end_of_turn();
        // Whoever has asked stays queued until the lock is his.
        let Some(heir) = queue.exchange(slot.clone(), self.switch_interval()) else {
            return;
        };
        slot.ends();
        slot.is_forced();
        slot.wait_again();
        self.grant(queue, &heir);
        drop(shared);
        self.wait(slot, Instant::now());
        self.begin(slot);
    }

    /// Passes the held lock to `heir`, who has left the queue.
    fn grant(&self, queue: &Queue, heir: &Slot) {
        self.word.pass(!queue.is_empty());
        heir.signal(Signal::Granted);
        queue.rouse_next();
    }

    /// Waits, queued, until the lock is granted or is found free.
    fn wait(&self, slot: &Arc<Slot>, arrived: Instant) {
        while let Some(deadline) = self.patience(slot) {
            if slot.wait(deadline) {
                break;
            }
        }
        slot.has_waited(arrived.elapsed());
    }

    /// One look of a waiter: takes the lock if it is free and returns `None`, else tells until when to wait.
    fn patience(&self, slot: &Arc<Slot>) -> Option<Option<Instant>> {
        let mut shared = lock(&self.shared);
        let queue = &mut shared.queue;
        if slot.is_granted() {
            return None;
        }
        if self.word.take_if_free() {
            queue.remove(slot);
            self.word.pass(!queue.is_empty());
            queue.rouse_next();
            return None;
        }
        slot.wait_again();
        Some(match queue.patience(slot, self.switch_interval()) {
            Patience::Until(due) => Some(due),
            Patience::Sleep => None,
            Patience::Over => {
                self.word.request();
                None
            }
        })
    }
}

impl Shared {
    /// The slot of this thread, and one guard more on it. `None` when the thread holds the lock.
    fn attach(&mut self) -> Option<Arc<Slot>> {
        let (slot, guards) = self
            .threads
            .entry(thread::current().id())
            .or_insert_with(|| (Arc::new(Slot::new()), 0));
        if slot.holds() {
            return None;
        }
        *guards += 1;
        Some(slot.clone())
    }

    /// One guard less.
    fn detach(&mut self) {
        if let Entry::Occupied(mut entry) = self.threads.entry(thread::current().id()) {
            let (slot, guards) = entry.get_mut();
            *guards -= 1;
            if *guards == 0 {
                self.ended = self.ended + slot.statistics();
                entry.remove();
            }
        }
    }
}

/// The lock is held. Made by [`Gil::acquire`]; dropping it releases the lock.
///
/// The value is reached through it. No reference to the value outlives a [`checkpoint`](Self::checkpoint) or a
/// [`release_for`](Self::release_for): what was read before may have changed after.
///
/// ```compile_fail
/// # use ropewalk::gil::Gil;
/// let counter = Gil::new(vec![1]);
/// let mut guard = counter.acquire();
/// let first = &guard[0];
/// guard.checkpoint(); // another thread may run here and clear the vector
/// println!("{first}");
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct GilGuard<'a, T> {
    gil: &'a Gil<T>,
    slot: Arc<Slot>,
    /// The books are a thread's own.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out `&T` and reads atomics, no more.
unsafe impl<T: Sync> Sync for GilGuard<'_, T> {}

impl<T> GilGuard<'_, T> {
    /// Drops the lock for a waiter that has asked for it, and takes it back after that one has had it.
    ///
    /// To be called often, as CPython does between bytecodes: without a request it is one relaxed load. True
    /// when others have run.
    #[inline]
    pub fn checkpoint(&mut self) -> bool {
        let requested = self.gil.word.requested();
        if requested {
            self.gil.switch(&self.slot);
        }
        requested
    }

    /// Gives the lock up, runs `work`, and takes the lock back.
    ///
    /// For whatever blocks or does not need the lock, as CPython does around system calls. `work` may acquire
    /// the lock itself. If it panics the lock is taken back first.
    #[inline]
    pub fn release_for<R>(&mut self, work: impl FnOnce() -> R) -> R {
        struct TakeBack<'a, T>(&'a Gil<T>, &'a Arc<Slot>);
        impl<T> Drop for TakeBack<'_, T> {
            #[inline]
            fn drop(&mut self) {
                self.0.take(self.1);
            }
        }
        self.gil.release(&self.slot);
        let _take_back = TakeBack(self.gil, &self.slot);
        work()
    }

    /// What this thread has done and suffered at this lock.
    pub fn statistics(&self) -> Statistics {
        self.slot.statistics()
    }
}

impl<T> Drop for GilGuard<'_, T> {
    fn drop(&mut self) {
        self.gil.release(&self.slot);
        lock(&self.gil.shared).detach();
    }
}

impl<T> Deref for GilGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard's thread holds the lock except inside `checkpoint` and `release_for`, which
        // borrow the guard mutably for their whole length, so that this reference cannot live across them.
        unsafe { &*self.gil.value.get() }
    }
}

impl<T> DerefMut for GilGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; and the guard is borrowed mutably, so that no other reference came from it.
        unsafe { &mut *self.gil.value.get() }
    }
}

impl<T> fmt::Debug for Gil<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gil")
            .field("switch_interval", &self.switch_interval())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

impl<T: Default> Default for Gil<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// A switch interval of zero: the error of [`Gil::set_switch_interval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwitchIntervalError;

impl fmt::Display for SwitchIntervalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("switch interval must be strictly positive")
    }
}

impl std::error::Error for SwitchIntervalError {}

/// Nanoseconds in a word, which is enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
