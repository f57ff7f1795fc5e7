use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::park::{Futex, Wake, spin};
use crate::sync::atomic::Ordering;
use crate::sync::{Mutex, lock};

// # The word
//
// `SET`, `SLEEPERS` (somebody may sleep on the word), `WAKERS` (the list of wakers may not be empty), and above
// them the number of times that the event went from unset to set. A wait is over when the event is set *or that
// number has changed*: so a waiter is let go by a `set` even if a `clear` comes before it wakes up. The number
// has 29 bits; a waiter would have to sleep through 500 million changes, each of which wakes it, to miss them.
//
// # No lost wake-up
//
// A waiter adds `SLEEPERS` to a word that is not set, in one transition, and sleeps only on that very word.
// `set` changes the word and learns by the same transition whether anybody sleeps. So either the waiter's
// transition comes first, and `set` wakes it, or it fails. `WAKERS` is added under the list's mutex, with the
// waker following before the mutex is let go; `set` empties the list after its transition, under the mutex.
//
// # Orderings
//
// What a thread did before `set` is seen by whoever finds a wait over: the release in `set` pairs with the
// acquire loads in `is_set` and `is_over`. All other transitions are read-modify-writes, so that they carry
// the release on. `clear` releases as well, for whoever sees by `is_set` that a consumer is done.

const SET: u32 = 1;
const SLEEPERS: u32 = 2;
const WAKERS: u32 = 4;
const TIMES: u32 = 8;

/// How long the first sleep of a wait is at most.
const FIRST_SLEEP: Duration = Duration::from_millis(20);

/// A flag that threads and coroutines can wait for.
///
/// Unset at first; [`set`](Self::set) sets it and lets go all who wait, [`clear`](Self::clear) unsets it.
/// Clones are the same event.
///
/// A wait that has begun ends with the next `set`, also when a `clear` follows at once: that is what CPython's
/// `threading.Event` does (3.13, gh-57711), whose semantics these are.
///
/// After a fork a child may go on using the event; the waiters of the parent do not exist in it.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
/// use ropewalk::threading::Event;
///
/// let done = Event::new();
/// let spinner = thread::spawn({
///     let done = done.clone();
///     move || while !done.wait(Duration::from_millis(100)) {
///         print!(".");
///     }
/// });
/// done.set();
/// spinner.join().unwrap();
/// ```
#[derive(Clone)]
pub struct Event(Arc<Inner>);

struct Inner {
    word: Futex,
    wakers: Mutex<Wakers>,
}

/// The wakers of coroutines, in the order of their arrival.
#[derive(Default)]
struct Wakers {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Event {
    /// An event that is not set.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            word: Futex::new(0),
            wakers: Mutex::default(),
        }))
    }

    /// Whether the event is set.
    pub fn is_set(&self) -> bool {
        self.0.word.load(Ordering::Acquire) & SET != 0
    }

    /// Sets the event and lets go all who wait for it.
    ///
    /// # Panics
    ///
    /// When a coroutine's waker panics, after all the others have been woken.
    pub fn set(&self) {
        let mut word = self.0.word.load(Ordering::Relaxed);
        loop {
            // Also written when it is set already: whoever sees that sees what came before this call.
            let set = if word & SET == 0 {
                (word & !(SLEEPERS | WAKERS)).wrapping_add(TIMES) | SET
            } else {
                word
            };
            match self
                .0
                .word
                .compare_exchange_weak(word, set, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if word & SET == 0 {
            if word & SLEEPERS != 0 {
                self.0.word.wake_all();
            }
            if word & WAKERS != 0 {
                self.wake_coroutines();
            }
        }
    }

    /// Unsets the event. Waits that have been let go already are over none the less.
    pub fn clear(&self) {
        self.0.word.fetch_and(!SET, Ordering::Release);
    }

    /// Blocks this thread until the event is set, or until `timeout` is over; tells whether the event was set.
    ///
    /// Looks for a few microseconds before it sleeps (see [`park::spin`](crate::park::spin)). Signals do not end it.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> bool {
        match self.wait_interruptible(timeout, || Ok::<(), Infallible>(())) {
            Ok(set) => set,
            Err(never) => match never {},
        }
    }

    /// As [`wait`](Self::wait), but calls `interrupted` whenever this thread has handled a signal.
    ///
    /// Also a few milliseconds after the beginning, since the kernel reports no signal that came just before a
    /// sleep. So `interrupted` must find out by itself whether there is anything to do.
    ///
    /// # Errors
    ///
    /// That of `interrupted`, which ends the wait.
    pub fn wait_interruptible<E>(
        &self,
        timeout: impl Into<Option<Duration>>,
        mut interrupted: impl FnMut() -> Result<(), E>,
    ) -> Result<bool, E> {
        let futex = &self.0.word;
        let begun = futex.load(Ordering::Acquire);
        if begun & SET != 0 {
            return Ok(true);
        }
        let timeout = timeout.into();
        if timeout == Some(Duration::ZERO) {
            return Ok(false);
        }
        let now = Instant::now();
        // A time that the clock cannot express is as good as no limit.
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let mut first = Some(now + FIRST_SLEEP);
        if spin(|| is_over(futex.load(Ordering::Acquire), begun).then_some(())).is_some() {
            return Ok(true);
        }
        loop {
            let word = futex.load(Ordering::Acquire);
            if is_over(word, begun) {
                return Ok(true);
            }
            let asleep = word | SLEEPERS;
            if word != asleep
                && futex
                    .compare_exchange(word, asleep, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            let until = first.filter(|first| deadline.is_none_or(|deadline| *first < deadline));
            match futex.wait(asleep, until.or(deadline)) {
                Wake::Woken => {}
                Wake::TimedOut if until.is_none() => {
                    return Ok(is_over(futex.load(Ordering::Acquire), begun));
                }
                Wake::TimedOut | Wake::Interrupted => {
                    first = None;
                    interrupted()?;
                }
            }
        }
    }

    /// Waits in a coroutine, on any runtime, until the event is set. The wait begins with the first poll.
    ///
    /// Cancel-safe: dropping it ends the wait and changes nothing else.
    ///
    /// ```
    /// # use std::future::Future;
    /// # use std::pin::pin;
    /// # use std::task::{Context, Poll, Waker};
    /// use ropewalk::threading::Event;
    ///
    /// let event = Event::new();
    /// let mut wait = pin!(event.wait_async());
    /// let mut context = Context::from_waker(Waker::noop());
    /// assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
    /// event.set();
    /// assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(()));
    /// ```
    pub fn wait_async(&self) -> Wait {
        Wait {
            event: self.clone(),
            begun: None,
            place: None,
        }
    }

    /// Wakes every coroutine, whatever their wakers do.
    #[cold]
    fn wake_coroutines(&self) {
        let woken = mem::take(&mut lock(&self.0.wakers).waiting);
        let mut panic = None;
        for waker in woken.into_values() {
            // Wakers are made to be used from anywhere: nothing is seen half-done.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                panic.get_or_insert(payload);
            }
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

#[cfg(all(test, loom))]
impl Event {
    pub(super) fn has_sleepers(&self) -> bool {
        self.0.word.load(Ordering::Relaxed) & SLEEPERS != 0
    }

    pub(super) fn waiting(&self) -> usize {
        lock(&self.0.wakers).waiting.len()
    }
}

/// Whether a wait that began at `begun` is over at `word`.
fn is_over(word: u32, begun: u32) -> bool {
    word & SET != 0 || word / TIMES != begun / TIMES
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event")
            .field(&if self.is_set() { "set" } else { "unset" })
            .finish()
    }
}

/// A coroutine's wait for an [`Event`]. Made by [`Event::wait_async`].
#[must_use = "waits only when it is polled"]
#[derive(Debug)]
pub struct Wait {
    event: Event,
    /// The word at the first poll.
    begun: Option<u32>,
    /// The key of our waker.
    place: Option<u64>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let inner = self.event.0.clone();
        let mut word = inner.word.load(Ordering::Acquire);
        let begun = *self.begun.get_or_insert(word);
        // Cloned and dropped outside the mutex: a waker may be anybody's code.
        let waker = context.waker().clone();
        let mut wakers = lock(&inner.wakers);
        loop {
            if is_over(word, begun) {
                drop(wakers);
                return Poll::Ready(());
            }
            match inner
                .word
                .compare_exchange(word, word | WAKERS, Ordering::Relaxed, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let place = *self.place.get_or_insert_with(|| {
            wakers.next += 1;
            wakers.next
        });
        let replaced = wakers.waiting.insert(place, waker);
        drop(wakers);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waker = lock(&self.event.0.wakers).waiting.remove(&place);
            drop(waker);
        }
    }
}
