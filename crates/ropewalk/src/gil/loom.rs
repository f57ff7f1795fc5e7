//! Models: every interleaving of a few threads, under both policies.
//!
//! What the lock guards is a cell that reports any access which the lock failed to order. A model has no
//! clock: a waiter asks as soon as it is the next one, or never.

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use super::{Gil, Policy};

type Counter = Gil<UnsafeCell<u32>>;

/// Runs `model` in all interleavings with at most `preemptions`, with waiters that ask at once and with such
/// as never do.
fn explore(preemptions: usize, model: impl Fn(Arc<Counter>) + Send + Sync + Copy + 'static) {
    for policy in [Policy::Cpython, Policy::IoPriority] {
        for interval in [Duration::from_nanos(1), Duration::MAX] {
            let mut explorer = loom::model::Builder::new();
            explorer.preemption_bound = Some(preemptions);
            explorer.check(move || {
                let gil = Gil::with_policy(UnsafeCell::new(0), policy);
                gil.set_switch_interval(interval).unwrap();
                model(Arc::new(gil));
            });
        }
    }
}

fn count(gil: &Counter) {
    gil.acquire().with_mut(|count| {
        // SAFETY: the model checks that the lock makes this access exclusive.
        unsafe { *count += 1 }
    });
}

fn read(cell: &UnsafeCell<u32>) -> u32 {
    // SAFETY: as in `count`.
    cell.with(|count| unsafe { *count })
}

#[test]
fn one_at_a_time_and_all_get_it() {
    explore(3, |gil| {
        let others: Vec<_> = (0..2)
            .map(|_| {
                let gil = gil.clone();
                thread::spawn(move || count(&gil))
            })
            .collect();
        count(&gil);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(read(&gil.acquire()), 3);
    });
}

#[test]
fn after_a_forced_switch_the_waiter_has_had_the_lock() {
    explore(3, |gil| {
        let mut guard = gil.acquire();
        let waiter = {
            let gil = gil.clone();
            thread::spawn(move || count(&gil))
        };
        if guard.checkpoint() {
            assert_eq!(read(&guard), 1);
        }
        drop(guard);
        waiter.join().unwrap();
        assert_eq!(read(&gil.acquire()), 1);
    });
}

#[test]
fn holders_that_are_forced_out_by_each_other_all_come_back() {
    explore(3, |gil| {
        let run = |gil: Arc<Counter>| {
            move || {
                let mut guard = gil.acquire();
                guard.checkpoint();
                guard.with_mut(|count| {
                    // SAFETY: as in `count`.
                    unsafe { *count += 1 }
                });
            }
        };
        let other = thread::spawn(run(gil.clone()));
        run(gil.clone())();
        other.join().unwrap();
        assert_eq!(read(&gil.acquire()), 2);
    });
}

#[test]
fn a_release_lets_a_waiter_in_and_comes_back() {
    explore(3, |gil| {
        let waiter = {
            let gil = gil.clone();
            thread::spawn(move || {
                let mut guard = gil.acquire();
                guard.release_for(|| ());
            })
        };
        let mut guard = gil.acquire();
        guard.release_for(|| count(&gil));
        drop(guard);
        waiter.join().unwrap();
        assert_eq!(read(&gil.acquire()), 1);
    });
}

#[test]
fn when_the_next_one_has_got_the_lock_the_one_after_it_asks() {
    let model = |gil: Arc<Counter>| {
        let guard = gil.acquire();
        let second = gil.clone();
        let second = thread::spawn(move || {
            let mut guard = second.acquire();
            // Hangs if the third waits without asking.
            while read(&guard) == 0 {
                thread::yield_now();
                guard.checkpoint();
            }
        });
        let third = gil.clone();
        let third = thread::spawn(move || count(&third));
        drop(guard);
        second.join().unwrap();
        third.join().unwrap();
    };
    for policy in [Policy::Cpython, Policy::IoPriority] {
        let mut explorer = loom::model::Builder::new();
        explorer.preemption_bound = Some(2);
        explorer.check(move || model(Arc::new(Gil::with_policy(UnsafeCell::new(0), policy))));
    }
}
