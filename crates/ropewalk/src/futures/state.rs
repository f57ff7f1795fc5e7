//! The state machine of a future, and who is told when it is done.
//!
//! One word holds the state and two flags. The transitions:
//!
//! ```text
//!            start            finish
//! PENDING ──────────▶ RUNNING ──────▶ FINISHED
//!    │ cancel          start
//!    └────▶ CANCELLED ──────▶ CANCELLED_AND_NOTIFIED
//! ```
//!
//! `start` decides the race between the one who runs the call and those who cancel it: whoever got `RUNNING` out of
//! it alone may write the outcome, and alone calls `finish`. The outcome itself lives with the owner of the machine.
//!
//! # Orderings
//! - `finish` swaps the word with AcqRel. Its release half pairs with the acquire load in [`StateMachine::state`] and
//!   the acquire half of `sleep`'s `fetch_or`: who sees FINISHED sees the outcome.
//! - The flags travel in the same word as the state, so that a sleeper or watcher that comes too late sees "done" in
//!   the value that its own `fetch_or` returns, and one that comes in time is seen by the swap: there is no gap.

use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::park::{self, Futex, Wake};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// Where a future stands; the names are those of Python's `concurrent.futures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Not begun; can be cancelled.
    Pending = 0,
    /// Being run; can no longer be cancelled.
    Running = 1,
    /// Cancelled before it began.
    Cancelled = 2,
    /// Cancelled, and the executor has taken notice.
    CancelledAndNotified = 3,
    /// Has a result or an exception.
    Finished = 4,
}

impl State {
    /// Whether nothing more will happen: finished or cancelled.
    pub fn is_done(self) -> bool {
        !matches!(self, State::Pending | State::Running)
    }

    fn of(word: u32) -> Self {
        match word & STATE {
            0 => State::Pending,
            1 => State::Running,
            2 => State::Cancelled,
            3 => State::CancelledAndNotified,
            _ => State::Finished,
        }
    }
}

const STATE: u32 = 0b111;
/// A thread sleeps on the word.
const SLEEPERS: u32 = 1 << 3;
/// The list of watchers is not empty.
const WATCHERS: u32 = 1 << 4;

/// Told about many futures at once, each by a number that it chose.
pub trait Notify: Send + Sync {
    /// The future that was given this number is done. Must not block.
    fn notify(&self, number: usize);
}

/// Who is told when a future is done.
pub enum Watcher {
    /// A task of an async runtime.
    Wake(Waker),
    /// A callback.
    Call(Box<dyn FnOnce() + Send>),
    /// Somebody who watches many futures.
    Notify(Arc<dyn Notify>, usize),
}

impl Watcher {
    /// Tells this watcher. A panic of a waker or a callback has been reported by the panic hook and goes no further.
    pub fn tell(self) {
        drop(panic::catch_unwind(AssertUnwindSafe(|| match self {
            Watcher::Wake(waker) => waker.wake(),
            Watcher::Call(call) => call(),
            Watcher::Notify(who, number) => who.notify(number),
        })));
    }
}

/// What whoever made a future done owes to those who wait for it.
///
/// Apart from the transition so that a caller may first let go of what it holds (a lock, the interpreter).
#[must_use = "those who wait for the future must be told"]
pub struct Owed<'a> {
    machine: &'a StateMachine,
    flags: u32,
}

impl Owed<'_> {
    /// Whether nobody waits.
    pub fn is_nothing(&self) -> bool {
        self.flags == 0
    }

    /// Wakes the sleeping threads, then tells the watchers in the order in which they came.
    pub fn pay(self) {
        if self.flags & SLEEPERS != 0 {
            self.machine.word.wake_all();
        }
        if self.flags & WATCHERS != 0 {
            let watchers = mem::take(&mut *lock(&self.machine.watchers));
            watchers.into_iter().for_each(Watcher::tell);
        }
    }
}

/// The state of one call, and those who wait for it.
pub struct StateMachine {
    word: Futex,
    watchers: Mutex<Vec<Watcher>>,
}

impl StateMachine {
    /// A machine in state PENDING.
    pub fn new() -> Self {
        Self::in_state(State::Pending)
    }

    /// A machine in a given state.
    pub fn in_state(state: State) -> Self {
        Self {
            word: Futex::new(state as u32),
            watchers: Mutex::new(Vec::new()),
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        State::of(self.word.load(Ordering::Acquire))
    }

    /// Whether the call is finished or cancelled.
    pub fn is_done(&self) -> bool {
        self.state().is_done()
    }

    /// Begins the call: `Ok(true)` puts the caller in charge of the outcome, `Ok(false)` says that the call was
    /// cancelled and that this is now known to the executor. In any other state nothing changes.
    pub fn start(&self) -> Result<bool, State> {
        let begun = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                match State::of(word) {
                    State::Pending => Some(word & !STATE | State::Running as u32),
                    State::Cancelled => Some(word & !STATE | State::CancelledAndNotified as u32),
                    _ => None,
                }
            });
        match begun {
            Ok(word) => Ok(State::of(word) == State::Pending),
            Err(word) => Err(State::of(word)),
        }
    }

    /// Cancels the call if it has not begun; cancelling twice is no error.
    pub fn cancel(&self) -> Result<Owed<'_>, State> {
        let cancelled = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (State::of(word) == State::Pending).then_some(State::Cancelled as u32)
            });
        match cancelled {
            Ok(word) => Ok(self.owed(word)),
            Err(word) => match State::of(word) {
                State::Cancelled | State::CancelledAndNotified => Ok(self.owed(0)),
                state => Err(state),
            },
        }
    }

    /// Ends the call. Only for whom `start` put in charge, once, after the outcome has been written.
    pub fn finish(&self) -> Owed<'_> {
        let word = self.word.swap(State::Finished as u32, Ordering::AcqRel);
        debug_assert_eq!(State::of(word), State::Running, "only a running call finishes");
        self.owed(word)
    }

    fn owed(&self, word: u32) -> Owed<'_> {
        Owed {
            machine: self,
            flags: word & (SLEEPERS | WATCHERS),
        }
    }

    /// Blocks until the call is done ([`Wake::Woken`]), the deadline has passed or a signal handler has run.
    pub fn wait(&self, deadline: Option<Instant>) -> Wake {
        if park::spin(|| self.is_done().then_some(())).is_some() {
            return Wake::Woken;
        }
        loop {
            let word = self.word.fetch_or(SLEEPERS, Ordering::AcqRel);
            if State::of(word).is_done() {
                return Wake::Woken;
            }
            let wake = self.word.wait(word | SLEEPERS, deadline);
            if self.is_done() {
                return Wake::Woken;
            }
            if wake != Wake::Woken {
                return wake;
            }
        }
    }

    /// Asks that `watcher` be told when the call is done. Gives it back if that is already so: the caller tells it.
    pub fn watch(&self, watcher: Watcher) -> Option<Watcher> {
        let mut watchers = lock(&self.watchers);
        // A task that polls again replaces what it left at its last poll.
        if let Watcher::Wake(waker) = &watcher {
            watchers.retain(|other| !matches!(other, Watcher::Wake(old) if old.will_wake(waker)));
        }
        watchers.push(watcher);
        let word = self.word.fetch_or(WATCHERS, Ordering::AcqRel);
        // Done before our flag was up: whoever owes takes from the list only what had a flag, and our lock keeps
        // him from taking this one.
        if State::of(word).is_done() {
            watchers.pop()
        } else {
            None
        }
    }

    /// Takes back every request of `who`.
    pub fn unwatch(&self, who: &Arc<dyn Notify>) {
        lock(&self.watchers)
            .retain(|other| !matches!(other, Watcher::Notify(other, _) if Arc::ptr_eq(other, who)));
    }
}

impl Default for StateMachine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_cancelled_call_never_starts() {
        let machine = StateMachine::new();
        machine.cancel().expect("pending").pay();
        assert_eq!(machine.state(), State::Cancelled);
        assert_eq!(machine.start(), Ok(false));
        assert_eq!(machine.state(), State::CancelledAndNotified);
        assert_eq!(machine.start(), Err(State::CancelledAndNotified));
        machine.cancel().expect("cancelling twice is no error").pay();
    }

    #[test]
    fn a_running_or_finished_call_cannot_be_cancelled() {
        let machine = StateMachine::new();
        assert_eq!(machine.start(), Ok(true));
        assert_eq!(machine.cancel().map(Owed::pay), Err(State::Running));
        machine.finish().pay();
        assert_eq!(machine.cancel().map(Owed::pay), Err(State::Finished));
    }

    #[test]
    fn nobody_waiting_means_nothing_owed() {
        let machine = StateMachine::new();
        machine.start().expect("pending");
        let owed = machine.finish();
        assert!(owed.is_nothing());
        owed.pay();
    }

    #[test]
    fn watchers_are_told_once_in_order_and_the_late_one_gets_itself_back() {
        let machine = StateMachine::new();
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        for number in 0..3 {
            let told = told.clone();
            let call = move || told.lock().expect("not poisoned").push(number);
            assert!(machine.watch(Watcher::Call(Box::new(call))).is_none());
        }
        machine.start().expect("pending");
        machine.finish().pay();
        assert_eq!(*told.lock().expect("not poisoned"), [0, 1, 2]);
        assert!(machine.watch(Watcher::Call(Box::new(|| ()))).is_some());
    }

    #[test]
    fn who_no_longer_watches_is_not_told() {
        struct Count(AtomicUsize);
        impl Notify for Count {
            fn notify(&self, number: usize) {
                self.0.fetch_add(number, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let machine = StateMachine::new();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let who: Arc<dyn Notify> = count.clone();
        machine.watch(Watcher::Notify(who.clone(), 7));
        machine.unwatch(&who);
        machine.cancel().expect("pending").pay();
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn a_watcher_that_panics_keeps_the_next_from_nothing() {
        let machine = StateMachine::new();
        let told = Arc::new(AtomicUsize::new(0));
        machine.watch(Watcher::Call(Box::new(|| panic!("a callback that fails"))));
        let second = told.clone();
        machine.watch(Watcher::Call(Box::new(move || {
            second.store(1, std::sync::atomic::Ordering::Relaxed)
        })));
        machine.cancel().expect("pending").pay();
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// A loop around a wait has no end of interleavings; three preemptions find what there is to find.
    fn model(run: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(run);
    }

    #[test]
    fn a_sleeper_wakes_and_sees_the_outcome() {
        model(|| {
            let shared = Arc::new((StateMachine::new(), AtomicUsize::new(0)));
            let runner = shared.clone();
            let runs = thread::spawn(move || {
                assert_eq!(runner.0.start(), Ok(true));
                runner.1.store(42, Ordering::Relaxed);
                runner.0.finish().pay();
            });
            while shared.0.wait(None) != Wake::Woken {}
            assert_eq!(shared.1.load(Ordering::Relaxed), 42);
            runs.join().expect("runner");
        });
    }

    #[test]
    fn two_sleepers_wake() {
        model(|| {
            let machine = Arc::new(StateMachine::new());
            let other = machine.clone();
            let sleeps = thread::spawn(move || while other.wait(None) != Wake::Woken {});
            let runner = machine.clone();
            let runs = thread::spawn(move || {
                assert_eq!(runner.start(), Ok(true));
                runner.finish().pay();
            });
            while machine.wait(None) != Wake::Woken {}
            sleeps.join().expect("sleeper");
            runs.join().expect("runner");
        });
    }

    #[test]
    fn cancel_and_start_have_one_winner() {
        model(|| {
            let machine = Arc::new(StateMachine::new());
            let other = machine.clone();
            let cancels = thread::spawn(move || other.cancel().map(Owed::pay).is_ok());
            let started = machine.start().expect("pending or cancelled");
            if started {
                machine.finish().pay();
            }
            assert_ne!(cancels.join().expect("canceller"), started);
            assert!(machine.is_done());
        });
    }

    #[test]
    fn a_watcher_is_told_exactly_once() {
        model(|| {
            let machine = Arc::new(StateMachine::new());
            let told = Arc::new(AtomicUsize::new(0));
            let other = machine.clone();
            let runs = thread::spawn(move || {
                assert_eq!(other.start(), Ok(true));
                other.finish().pay();
            });
            let count = told.clone();
            let call = move || _ = count.fetch_add(1, Ordering::Relaxed);
            if let Some(late) = machine.watch(Watcher::Call(Box::new(call))) {
                late.tell();
            }
            runs.join().expect("runner");
            assert_eq!(told.load(Ordering::Relaxed), 1);
        });
    }
}
