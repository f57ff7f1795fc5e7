use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slot::{Signal, Slot};

/// How long a computing thread keeps the lock, at least, before a thread from outside may ask for it. Without
/// it a flood of I/O would leave computing threads nothing but switches.
const QUANTUM: Duration = Duration::from_micros(100);

/// Who gets the lock next, and how soon a waiter may ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// One queue. A waiter asks once it has waited for the switch interval in which nobody else got the lock.
    /// A thread that comes back from I/O thus waits for the interval behind every thread that computes: the
    /// convoy that CPython is known for (bpo-7946).
    #[default]
    Cpython,
    /// Two queues. Threads that come from outside ([`acquire`](super::Gil::acquire),
    /// [`release_for`](super::GilGuard::release_for)) go ahead of those that were forced out at a checkpoint
    /// and so are known to compute. They ask at once, unless the holder has had the lock for less than 100
    /// µs. They cannot starve the others: those who were there when a computing thread gave the lock up have
    /// their turn, those who come later wait for the next.
    IoPriority,
}

/// How long a waiter is to go on waiting.
pub(super) enum Patience {
    /// Somebody else watches the clock: sleep until told.
    Sleep,
    /// Look again then.
    Until(Instant),
    /// Ask for the lock, then sleep until told.
    Over,
}

struct Waiter {
    slot: Arc<Slot>,
    arrived: Instant,
}

/// Who waits for a lock, in what order. Everything here is under the mutex.
pub(super) struct Queue {
    policy: Policy,
    /// Under `IoPriority` those that were forced out, under `Cpython` all.
    ordinary: VecDeque<Waiter>,
    /// Those that came from outside. Empty under `Cpython`.
    outside: VecDeque<Waiter>,
    /// How many from `outside` may still go ahead of `ordinary`.
    turns: usize,
    /// When the lock last went to somebody who had found it held or wanted.
    tenure: Instant,
    /// Under `IoPriority`: whether it went to one that was forced out before.
    computes: bool,
    /// How much of its switch interval that one had used up before.
    used: Duration,
}

impl Queue {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            ordinary: VecDeque::new(),
            outside: VecDeque::new(),
            turns: 0,
            tenure: Instant::now(),
            computes: false,
            used: Duration::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ordinary.is_empty() && self.outside.is_empty()
    }

    /// Puts a thread from outside in the queue.
    pub(super) fn push(&mut self, slot: Arc<Slot>, arrived: Instant) {
        let queue = match self.policy {
            Policy::Cpython => &mut self.ordinary,
            Policy::IoPriority => &mut self.outside,
        };
        queue.push_back(Waiter { slot, arrived });
    }

    /// Puts the holder, which is forced out, in the queue and takes its heir out.
    pub(super) fn exchange(&mut self, holder: Arc<Slot>, interval: Duration) -> Option<Arc<Slot>> {
        let now = Instant::now();
        let used = self.used + (now - self.tenure);
        let unfinished = self.computes && used < interval;
        // The heir leaves before the holder comes: nobody is his own heir.
        let heir = self.pop_next()?;
        let waiter = Waiter {
            slot: holder,
            arrived: now,
        };
        if unfinished {
            self.used = used;
            self.ordinary.push_front(waiter);
        } else {
            self.used = Duration::ZERO;
            self.ordinary.push_back(waiter);
        }
        Some(heir)
    }

    /// The holder lets go: those from outside who are here now have their turn, before those who come later.
    pub(super) fn end_of_turn(&mut self) {
        if self.ordinary.is_empty() {
            self.turns = usize::MAX;
        }
        self.turns = self.turns.min(self.outside.len());
    }

    /// Takes the next one out: the lock is his now.
    pub(super) fn pop_next(&mut self) -> Option<Arc<Slot>> {
        let slot = self.next()?.slot.clone();
        self.remove(&slot);
        Some(slot)
    }

    /// Takes out one that has the lock now.
    pub(super) fn remove(&mut self, slot: &Arc<Slot>) {
        let is_slot = |waiter: &Waiter| Arc::ptr_eq(&waiter.slot, slot);
        if let Some(place) = self.outside.iter().position(is_slot) {
            self.outside.remove(place);
            self.goes_outside();
        } else if let Some(place) = self.ordinary.iter().position(is_slot) {
            self.ordinary.remove(place);
            self.turns = usize::MAX;
            self.tenure = Instant::now();
            self.computes = self.policy == Policy::IoPriority;
        }
    }

    /// One from outside who never queued has taken the lock.
    pub(super) fn overtaken(&mut self) {
        self.goes_outside();
        // That was one of their turns, perhaps the last: then the next one is somebody who sleeps.
        self.rouse_next();
    }

    /// The lock goes to one from outside.
    fn goes_outside(&mut self) {
        self.turns = self.turns.saturating_sub(1);
        self.tenure = Instant::now();
        self.computes = false;
    }

    /// Whether the next one must be given the lock rather than told that it is free. A computing thread that
    /// gave way to I/O would else lose it again and again to threads that are awake already.
    pub(super) fn next_is_owed(&self) -> bool {
        self.policy == Policy::IoPriority && !self.ordinary.is_empty() && !self.outside_is_next()
    }

    /// Tells the next one to look whether the lock is free, and else to watch the clock.
    pub(super) fn rouse_next(&self) {
        if let Some(next) = self.next() {
            next.slot.signal(Signal::Look);
        }
    }

    /// How long the waiter `slot` is to wait.
    pub(super) fn patience(&self, slot: &Arc<Slot>, interval: Duration) -> Patience {
        // A model has no clock: its waiters ask at once or, under the longest interval, never.
        if cfg!(loom) && interval.as_nanos() == u64::MAX.into() {
            return Patience::Sleep;
        }
        let Some(next) = self.next().filter(|next| Arc::ptr_eq(&next.slot, slot)) else {
            return Patience::Sleep;
        };
        let at_once = self.policy == Policy::IoPriority && (self.outside_is_next() || !self.computes);
        let due = if at_once {
            self.tenure + QUANTUM.min(interval)
        } else {
            self.tenure.max(next.arrived) + interval
        };
        if cfg!(loom) || Instant::now() >= due {
            Patience::Over
        } else {
            Patience::Until(due)
        }
    }

    fn next(&self) -> Option<&Waiter> {
        if self.outside_is_next() {
            self.outside.front()
        } else {
            self.ordinary.front()
        }
    }

    fn outside_is_next(&self) -> bool {
        !self.outside.is_empty() && (self.turns > 0 || self.ordinary.is_empty())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn queue_with(ordinary: &Arc<Slot>, outside: &[&Arc<Slot>]) -> Queue {
        let mut queue = Queue::new(Policy::IoPriority);
        let now = Instant::now();
        queue.ordinary.push_back(Waiter {
            slot: ordinary.clone(),
            arrived: now,
        });
        for slot in outside {
            queue.push((*slot).clone(), now);
        }
        queue.turns = usize::MAX;
        queue
    }

    fn slots() -> [Arc<Slot>; 3] {
        std::array::from_fn(|_| Arc::new(Slot::new()))
    }

    #[test]
    fn those_from_outside_who_are_there_have_one_turn_each_and_later_ones_wait() {
        let [computes, first, late] = slots();
        let mut queue = queue_with(&computes, &[&first]);
        queue.end_of_turn();
        queue.push(late.clone(), Instant::now());
        let order = [&first, &computes, &late];
        for expected in order {
            queue.end_of_turn();
            assert!(queue.pop_next().is_some_and(|next| Arc::ptr_eq(&next, expected)));
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn one_who_overtakes_uses_up_a_turn_and_whoever_is_then_the_next_is_roused() {
        let [computes, sleeps, _] = slots();
        let mut queue = queue_with(&computes, &[&sleeps]);
        queue.end_of_turn();
        assert!(!queue.next_is_owed());
        assert!(!computes.is_roused());
        queue.overtaken();
        assert!(queue.next_is_owed());
        assert!(computes.is_roused());
    }

    #[test]
    fn a_computing_thread_comes_back_to_the_front_until_its_interval_is_used_up() {
        let interval = Duration::from_secs(3600);
        for (used, comes_back) in [(Duration::ZERO, true), (interval, false)] {
            let [holder, other, outside] = slots();
            let mut queue = queue_with(&other, &[&outside]);
            (queue.computes, queue.used) = (true, used);
            queue.end_of_turn();
            let heir = queue.exchange(holder.clone(), interval);
            assert!(heir.is_some_and(|heir| Arc::ptr_eq(&heir, &outside)));
            assert_eq!(Arc::ptr_eq(&queue.ordinary[0].slot, &holder), comes_back);
        }
    }
}
