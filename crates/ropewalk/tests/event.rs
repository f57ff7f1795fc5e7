//! `ropewalk::threading::Event`: what a user may rely on.
#![allow(missing_docs, clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ropewalk::threading::Event;

/// A limit that ends a test which would hang.
const LONG: Duration = Duration::from_secs(60);

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn it_is_unset_at_first_and_set_and_cleared_any_number_of_times() {
    let event = Event::new();
    assert!(!event.is_set());
    assert_eq!(format!("{event:?}"), r#"Event("unset")"#);
    event.set();
    event.set();
    assert!(event.is_set());
    assert_eq!(format!("{event:?}"), r#"Event("set")"#);
    event.clear();
    event.clear();
    assert!(!event.is_set());
}

#[test]
fn clones_are_the_same_event() {
    let event = Event::default();
    event.clone().set();
    assert!(event.is_set());
}

#[test]
fn a_wait_for_what_is_set_returns_at_once_whatever_its_limit() {
    let event = Event::new();
    event.set();
    assert!(event.wait(None));
    assert!(event.wait(Duration::ZERO));
    assert!(event.wait(Duration::MAX));
}

#[test]
fn a_wait_that_nobody_ends_times_out_after_its_limit() {
    let event = Event::new();
    assert!(!event.wait(Duration::ZERO));
    let start = Instant::now();
    assert!(!event.wait(Duration::from_millis(20)));
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn one_set_lets_all_threads_go() {
    let event = Event::new();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..50)
            .map(|number| {
                let event = &event;
                // With and without a limit, even one that no clock can express.
                let limit = [None, Some(LONG), Some(Duration::MAX)][number % 3];
                scope.spawn(move || event.wait(limit))
            })
            .collect();
        event.set();
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    });
}

#[test]
fn what_was_written_before_a_set_is_read_after_the_wait() {
    let (ping, pong) = (Event::new(), Event::new());
    let number = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=1_000 {
                ping.wait(None);
                ping.clear();
                assert_eq!(number.load(SeqCst), turn);
                pong.set();
            }
        });
        for turn in 1..=1_000 {
            number.store(turn, SeqCst);
            ping.set();
            pong.wait(None);
            pong.clear();
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_is_reported_to_a_wait_that_asks_for_it_and_its_error_ends_the_wait() {
    extern "C" fn handler(_: libc::c_int) {}
    // SAFETY: the handler does nothing; SIGUSR2 has no other use in this program; all zeros is a valid
    // `sigaction`, without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
    let event = Event::new();
    let seen = AtomicUsize::new(0);
    let (tell, waiter) = channel();
    thread::scope(|scope| {
        let wait = scope.spawn(|| {
            // SAFETY: asks for the calling thread.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            event.wait_interruptible(LONG, || match seen.fetch_add(1, SeqCst) {
                0..5 => Ok(()),
                _ => Err("enough"),
            })
        });
        let waiter = waiter.recv().unwrap();
        while !wait.is_finished() {
            // SAFETY: the thread has not been joined, so that its id is valid.
            unsafe { libc::pthread_kill(waiter, libc::SIGUSR2) };
            thread::yield_now();
        }
        assert_eq!(wait.join().unwrap(), Err("enough"));
    });
    assert_eq!(seen.load(SeqCst), 6);
}

#[test]
fn a_coroutine_waits_from_its_first_poll_to_the_next_set() {
    let event = Event::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);

    let mut never_polled = pin!(event.wait_async());
    let mut polled = pin!(event.wait_async());
    assert_eq!(polled.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(count.0.load(SeqCst), 0);

    event.set();
    event.clear();
    assert_eq!(count.0.load(SeqCst), 1);
    assert_eq!(polled.as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(never_polled.as_mut().poll(&mut context), Poll::Pending);
}

#[test]
fn a_coroutine_that_is_polled_twice_is_woken_once_by_its_last_waker() {
    let event = Event::new();
    let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut wait = pin!(event.wait_async());
    for count in [&first, &last] {
        let waker = Waker::from(count.clone());
        assert_eq!(
            wait.as_mut().poll(&mut Context::from_waker(&waker)),
            Poll::Pending
        );
    }
    event.set();
    assert_eq!((first.0.load(SeqCst), last.0.load(SeqCst)), (0, 1));
}

#[test]
fn a_coroutine_that_left_is_not_woken() {
    let event = Event::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut wait = Box::pin(event.wait_async());
    assert_eq!(
        wait.as_mut().poll(&mut Context::from_waker(&waker)),
        Poll::Pending
    );
    drop(wait);
    event.set();
    assert_eq!(count.0.load(SeqCst), 0);
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1, "nothing of it is kept");
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("bad waker");
        }
    }
    let event = Event::new();
    let bad = Waker::from(Arc::new(Panics));
    let count = Arc::new(Count::default());
    let good = Waker::from(count.clone());
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(event.wait_async())).collect();
    for (wait, waker) in waits.iter_mut().zip([&good, &bad, &good]) {
        assert_eq!(wait.as_mut().poll(&mut Context::from_waker(waker)), Poll::Pending);
    }
    assert!(catch_unwind(AssertUnwindSafe(|| event.set())).is_err());
    assert_eq!(count.0.load(SeqCst), 2);
    assert!(event.is_set());
}

#[test]
fn threads_and_coroutines_wait_side_by_side() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let event = Event::new();
    thread::scope(|scope| {
        let (polled, may_set) = channel();
        let coroutine = scope.spawn({
            let event = event.clone();
            move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let mut wait = pin!(event.wait_async());
                let mut context = Context::from_waker(&waker);
                while wait.as_mut().poll(&mut context).is_pending() {
                    polled.send(()).unwrap();
                    thread::park_timeout(LONG);
                }
            }
        });
        let thread = scope.spawn(|| event.wait(LONG));
        may_set.recv().unwrap();
        event.set();
        assert!(thread.join().unwrap());
        coroutine.join().unwrap();
    });
}

#[test]
fn a_coroutine_waits_on_any_runtime() {
    for _ in 0..100 {
        let event = Event::new();
        thread::scope(|scope| {
            let tokio = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(event.wait_async());
            });
            let smol = scope.spawn(|| smol::block_on(event.wait_async()));
            event.set();
            tokio.join().unwrap();
            smol.join().unwrap();
        });
    }
}
