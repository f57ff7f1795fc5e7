//! `ropewalk::gil`: what a user may rely on.
#![allow(missing_docs, clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ropewalk::gil::{Gil, GilGuard, Policy};

const POLICIES: [Policy; 2] = [Policy::Cpython, Policy::IoPriority];
const NEVER: Duration = Duration::from_secs(3600);

/// Computes until somebody else has had the lock.
fn run_until_switched<T>(guard: &mut GilGuard<'_, T>) {
    while !guard.checkpoint() {
        std::hint::spin_loop();
    }
}

#[test]
fn one_thread_at_a_time_holds_the_value() {
    for policy in POLICIES {
        let gil = Gil::with_policy(0_u64, policy);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut guard = gil.acquire();
                    for turn in 0..2_000 {
                        let before = std::hint::black_box(*guard);
                        *guard = before + 1;
                        guard.checkpoint();
                        if turn % 10 == 0 {
                            guard.release_for(thread::yield_now);
                        }
                    }
                });
            }
        });
        assert_eq!(gil.into_inner(), 8_000);
    }
}

#[test]
fn many_threads_that_acquire_and_drop_all_get_it() {
    for policy in POLICIES {
        let gil = Gil::with_policy(0, policy);
        thread::scope(|scope| {
            for _ in 0..300 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        *gil.acquire() += 1;
                    }
                });
            }
        });
        assert_eq!(*gil.acquire(), 3_000);
        assert_eq!(gil.threads().len(), 0);
    }
}

#[test]
fn a_checkpoint_that_nobody_asked_for_keeps_the_lock() {
    let gil = Gil::new(());
    let mut guard = gil.acquire();
    assert!(!guard.checkpoint());
    assert_eq!(guard.statistics().forced, 0);
}

#[test]
fn after_a_forced_switch_a_waiter_has_had_the_lock() {
    for policy in POLICIES {
        let gil = Gil::with_policy(0, policy);
        gil.set_switch_interval(Duration::from_micros(50)).unwrap();
        thread::scope(|scope| {
            let mut guard = gil.acquire();
            for turn in 1..=50 {
                let waiter = scope.spawn(|| *gil.acquire() += 1);
                run_until_switched(&mut guard);
                assert_eq!(*guard, turn);
                guard.release_for(|| waiter.join().unwrap());
            }
            assert_eq!(guard.statistics().forced, 50);
        });
    }
}

#[test]
fn two_computing_threads_take_turns() {
    for policy in POLICIES {
        let gil = Gil::with_policy(String::new(), policy);
        gil.set_switch_interval(Duration::from_micros(50)).unwrap();
        thread::scope(|scope| {
            let mut mine = gil.acquire();
            let other = scope.spawn(|| {
                let mut guard = gil.acquire();
                for _ in 0..20 {
                    guard.push('b');
                    run_until_switched(&mut guard);
                }
            });
            for _ in 0..20 {
                run_until_switched(&mut mine);
                mine.push('a');
            }
            mine.release_for(|| other.join().unwrap());
        });
        assert_eq!(gil.into_inner(), "ba".repeat(20));
    }
}

#[test]
fn under_cpythons_policy_nobody_asks_before_the_interval_is_over() {
    let gil = Gil::new(());
    gil.set_switch_interval(NEVER).unwrap();
    thread::scope(|scope| {
        let mut guard = gil.acquire();
        scope.spawn(|| drop(gil.acquire()));
        while gil.threads().len() < 2 {
            thread::yield_now();
        }
        for _ in 0..1_000 {
            assert!(!guard.checkpoint());
            thread::yield_now();
        }
    });
}

#[test]
fn under_io_priority_a_thread_from_outside_does_not_wait_for_the_interval() {
    let gil = Gil::with_policy(0, Policy::IoPriority);
    gil.set_switch_interval(NEVER).unwrap();
    let (ready, start) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = gil.acquire();
            guard.release_for(move || start.recv().unwrap()); // the I/O
            *guard += 1;
        });
        let mut guard = gil.acquire();
        ready.send(()).unwrap();
        while *guard == 0 {
            guard.checkpoint();
        }
    });
}

#[test]
fn under_io_priority_a_flood_does_not_starve_computing_threads() {
    let gil = Gil::with_policy(0_u64, Policy::IoPriority);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut guard = gil.acquire();
                while !over.load(SeqCst) {
                    guard.release_for(thread::yield_now);
                    *guard += 1;
                }
            });
        }
        let compute = || {
            let mut guard = gil.acquire();
            for _ in 0..200 {
                run_until_switched(&mut guard);
            }
            guard.statistics().forced
        };
        let computing = [scope.spawn(compute), scope.spawn(compute)];
        for thread in computing {
            assert_eq!(thread.join().unwrap(), 200);
        }
        over.store(true, SeqCst);
    });
}

#[test]
fn the_holder_may_not_acquire_again() {
    let gil = Gil::new(());
    let guard = gil.acquire();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(gil.acquire()))).is_err());
    drop(guard);
    drop(gil.acquire());
}

#[test]
fn released_work_may_acquire_again() {
    let gil = Gil::new(1);
    let mut guard = gil.acquire();
    guard.release_for(|| *gil.acquire() += 1);
    assert_eq!(*guard, 2);
    assert_eq!(gil.threads().len(), 1);
}

#[test]
fn a_panic_in_released_work_comes_through_with_the_lock_taken_back() {
    let gil = Gil::new(0);
    let mut guard = gil.acquire();
    let panicked = catch_unwind(AssertUnwindSafe(|| guard.release_for(|| panic!("disk on fire"))));
    assert_eq!(
        panicked.unwrap_err().downcast_ref::<&str>(),
        Some(&"disk on fire")
    );
    thread::scope(|scope| {
        let waiter = scope.spawn(|| *gil.acquire());
        *guard = 7;
        drop(guard);
        assert_eq!(waiter.join().unwrap(), 7);
    });
}

#[test]
fn a_panic_of_the_holder_releases_the_lock() {
    let gil = Gil::new(0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = gil.acquire();
        *guard = 1;
        panic!("out of registers");
    }));
    assert!(panicked.is_err());
    assert_eq!(*gil.acquire(), 1);
}

#[test]
fn the_switch_interval_is_five_milliseconds_until_set_and_never_zero() {
    let gil = Gil::new(());
    assert_eq!(gil.switch_interval(), Duration::from_millis(5));
    gil.set_switch_interval(Duration::from_secs(1)).unwrap();
    assert_eq!(gil.switch_interval(), Duration::from_secs(1));
    let refused = gil.set_switch_interval(Duration::ZERO).unwrap_err();
    assert_eq!(refused.to_string(), "switch interval must be strictly positive");
    assert_eq!(gil.switch_interval(), Duration::from_secs(1));
    gil.set_switch_interval(Duration::MAX).unwrap();
    assert!(gil.switch_interval() > NEVER);
}

#[test]
fn a_wait_under_the_longest_interval_does_not_overflow() {
    for policy in POLICIES {
        let gil = Gil::with_policy(0, policy);
        gil.set_switch_interval(Duration::MAX).unwrap();
        thread::scope(|scope| {
            let guard = gil.acquire();
            let waiter = scope.spawn(|| *gil.acquire() += 1);
            while gil.threads().len() < 2 {
                thread::yield_now();
            }
            drop(guard);
            waiter.join().unwrap();
        });
    }
}

#[test]
fn a_thread_that_comes_back_to_a_lock_that_nobody_had_has_not_switched() {
    let gil = Gil::new(());
    let mut others = Vec::new();
    for size in 0..100 {
        drop(gil.acquire());
        // Memory that was the thread's place at the lock is somebody else's by now.
        others.extend((0..8).map(|_| vec![0_u8; size]));
    }
    assert_eq!(gil.statistics().switches, 1);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| drop(gil.acquire())).join().unwrap();
        }
    });
    assert_eq!(gil.statistics().switches, 11);
}

#[test]
fn statistics_count_switches_and_waits_thread_by_thread() {
    let gil = Gil::new(());
    gil.set_switch_interval(Duration::from_micros(50)).unwrap();
    thread::scope(|scope| {
        let mut guard = gil.acquire();
        assert_eq!(guard.statistics().switches, 1);
        guard.release_for(|| ());
        assert_eq!(guard.statistics().switches, 1, "nobody had it in between");

        let (send, receive) = channel();
        let other = thread::Builder::new()
            .name("other".into())
            .spawn_scoped(scope, || {
                let mut guard = gil.acquire();
                guard.release_for(move || receive.recv().unwrap());
                guard.statistics()
            })
            .unwrap();
        run_until_switched(&mut guard);
        assert_eq!(guard.statistics().forced, 1);
        assert_eq!(guard.statistics().switches, 2);
        assert!(guard.statistics().waited > Duration::ZERO);

        let rows = gil.threads();
        assert_eq!(rows.len(), 2);
        let row = rows
            .iter()
            .find(|row| row.thread.name() == Some("other"))
            .unwrap();
        assert_eq!(row.statistics.switches, 1);
        assert!(row.statistics.waited > Duration::ZERO);

        let ended = guard.release_for(|| {
            send.send(()).unwrap();
            other.join().unwrap()
        });
        assert_eq!((ended.switches, ended.forced), (2, 0));
        assert_eq!(gil.threads().len(), 1);
        let all = gil.statistics();
        assert_eq!((all.switches, all.forced), (5, 1), "those that ended count too");
        assert!(all.waited >= ended.waited);
    });
}

#[test]
fn the_time_held_grows_while_the_lock_is_held_and_not_while_it_is_released() {
    let gil = Gil::new(());
    let mut guard = gil.acquire();
    while guard.statistics().held < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    let held = guard.release_for(|| {
        let held = gil.statistics().held;
        thread::sleep(Duration::from_millis(30));
        assert_eq!(gil.statistics().held, held);
        held
    });
    assert!(held >= Duration::from_millis(20));
}

#[test]
fn the_value_is_reached_without_the_lock_when_nobody_else_can_have_it() {
    let mut gil = Gil::<Vec<i32>>::default();
    gil.get_mut().push(1);
    assert!(format!("{gil:?}").starts_with("Gil { switch_interval: 5ms"));
    assert_eq!(gil.into_inner(), [1]);
}
