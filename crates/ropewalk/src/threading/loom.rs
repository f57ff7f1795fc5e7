//! Models: every interleaving of a few threads around one event.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::Event;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.check(model);
}

/// Counts how often it is woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn no_waiter_is_forgotten_and_all_see_what_came_before() {
    explore(|| {
        let event = Event::new();
        let data = Arc::new(UnsafeCell::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (event, data) = (event.clone(), data.clone());
                thread::spawn(move || {
                    assert!(event.wait(None));
                    // SAFETY: the model checks that the event orders this read after the write.
                    data.with(|data| unsafe { assert_eq!(*data, 7) });
                })
            })
            .collect();
        // SAFETY: as above.
        data.with_mut(|data| unsafe { *data = 7 });
        event.set();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_set_that_is_cleared_at_once_lets_go_who_sleeps() {
    explore(|| {
        let event = Event::new();
        let data = Arc::new(UnsafeCell::new(0));
        let waiter = {
            let (event, data) = (event.clone(), data.clone());
            thread::spawn(move || {
                assert!(event.wait(None));
                // SAFETY: the model checks that the event orders this read after the write.
                data.with(|data| unsafe { assert_eq!(*data, 7) });
            })
        };
        while !event.has_sleepers() {
            thread::yield_now();
        }
        // SAFETY: as above.
        data.with_mut(|data| unsafe { *data = 7 });
        event.set();
        event.clear();
        waiter.join().unwrap();
    });
}

#[test]
fn the_last_look_of_a_wait_that_times_out_is_true_only_if_it_was_set() {
    explore(|| {
        let event = Event::new();
        let waiter = {
            let event = event.clone();
            thread::spawn(move || event.wait(Duration::from_nanos(1)))
        };
        event.clear();
        assert!(!waiter.join().unwrap());
        assert!(!event.is_set());
    });
}

#[test]
fn two_setters_and_a_clear_leave_nobody_behind() {
    explore(|| {
        let event = Event::new();
        let setter = {
            let event = event.clone();
            thread::spawn(move || event.set())
        };
        let clearer = {
            let event = event.clone();
            thread::spawn(move || {
                event.clear();
                event.set();
            })
        };
        assert!(event.wait(None));
        setter.join().unwrap();
        clearer.join().unwrap();
        assert!(event.is_set());
    });
}

#[test]
fn a_coroutine_is_woken_as_a_thread_is() {
    explore(|| {
        let event = Event::new();
        let setter = {
            let event = event.clone();
            thread::spawn(move || event.set())
        };
        let other = {
            let event = event.clone();
            thread::spawn(move || assert!(event.wait(None)))
        };
        block_on(event.wait_async());
        setter.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_coroutine_that_has_been_polled_is_let_go_by_a_set_that_is_cleared() {
    explore(|| {
        let event = Event::new();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut wait = pin!(event.wait_async());
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
        let setter = {
            let event = event.clone();
            thread::spawn(move || {
                event.set();
                event.clear();
            })
        };
        // Polled for another reason meanwhile, as under a timeout.
        let meanwhile = wait.as_mut().poll(&mut context);
        setter.join().unwrap();
        if meanwhile == Poll::Pending {
            assert!(count.0.load(Ordering::SeqCst) > 0);
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(()));
        }
    });
}

#[test]
fn a_coroutine_may_leave_while_it_is_woken() {
    explore(|| {
        let event = Event::new();
        let mut wait = Box::pin(event.wait_async());
        assert_eq!(
            wait.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Poll::Pending
        );
        let setter = {
            let event = event.clone();
            thread::spawn(move || event.set())
        };
        drop(wait);
        setter.join().unwrap();
        assert_eq!(event.waiting(), 0);
    });
}
