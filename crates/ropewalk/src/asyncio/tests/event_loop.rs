use super::*;
use crate::asyncio::{EventLoop, ExceptionContext};

fn virtual_loop() -> EventLoop {
    testing::virtual_clock().unwrap()
}

#[test]
fn callbacks_run_in_order_and_those_of_a_callback_in_the_next_turn() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let (first, again) = (log.clone(), log.clone());
    let same = event_loop.clone();
    event_loop.call_soon(move || {
        first.note("1");
        same.call_soon(move || again.note("3"));
        same.stop();
    });
    let second = log.clone();
    event_loop.call_soon(move || second.note("2"));
    event_loop.run_forever().unwrap();
    log.is(["1", "2"]);
    event_loop.stop();
    event_loop.run_forever().unwrap();
    log.is(["1", "2", "3"]);
}

#[test]
fn timers_fire_by_deadline_and_cancelled_ones_do_not() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let note = |what: &'static str| {
        let log = log.clone();
        move || log.note(what)
    };
    let late = event_loop.call_at(seconds(2), note("2"));
    event_loop.call_later(seconds(1), note("1"));
    let cancelled = event_loop.call_later(seconds(1), note("never"));
    cancelled.cancel();
    assert!(cancelled.cancelled() && !late.cancelled());
    assert_eq!(late.when(), seconds(2));
    assert_eq!(format!("{cancelled:?}"), "<TimerHandle cancelled when=1s>");
    let stop = event_loop.clone();
    event_loop.call_later(seconds(3), move || stop.stop());
    event_loop.run_forever().unwrap();
    log.is(["1", "2"]);
    late.cancel();
    assert!(!late.cancelled(), "it was called");
}

#[test]
fn a_cancelled_callback_is_dropped_at_once() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let witness = Witness::new(&log);
    let handle = event_loop.call_later(seconds(9), move || drop(witness));
    handle.cancel();
    log.is(["dropped"]);
}

#[test]
fn a_callback_that_panics_is_told_and_the_loop_goes_on() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let told = log.clone();
    event_loop.set_exception_handler(Some(move |_: &EventLoop, context: &ExceptionContext| {
        told.note(context);
    }));
    event_loop.call_soon(|| panic!("boom"));
    let stop = event_loop.clone();
    event_loop.call_soon(move || stop.stop());
    event_loop.run_forever().unwrap();
    log.is(["Exception in callback: the task panicked: boom"]);
}

#[test]
fn other_threads_wake_a_sleeping_loop() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let remote = remote.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    remote
                        .call_soon_threadsafe(|| COUNT.set(COUNT.get() + 1))
                        .unwrap();
                }
            })
        })
        .collect();
    thread_local!(static COUNT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    event_loop
        .run_until_complete(async {
            while COUNT.get() < 4000 {
                asyncio::sleep(Duration::ZERO).await?;
            }
            Ok(())
        })
        .unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    event_loop.close().unwrap();
    assert!(remote.call_soon_threadsafe(|| ()).unwrap_err().is_misuse());
}

#[test]
fn a_closed_loop_refuses_everything_and_closes_again() {
    let event_loop = virtual_loop();
    event_loop.close().unwrap();
    event_loop.close().unwrap();
    assert!(event_loop.is_closed());
    assert!(event_loop.run_forever().unwrap_err().is_misuse());
    assert!(
        event_loop
            .run_until_complete(async { Ok(()) })
            .unwrap_err()
            .is_misuse()
    );
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        event_loop.call_soon(|| ());
    }));
    assert!(refused.is_err());
}

#[test]
fn closing_drops_what_is_left_in_this_thread() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let [soon, later, task] = std::array::from_fn(|_| Witness::new(&log));
    event_loop.call_soon(move || drop(soon));
    event_loop.call_later(seconds(1), move || drop(later));
    let task = event_loop.create_task(async move {
        let _witness = task;
        Ok(())
    });
    event_loop.close().unwrap();
    log.is(["dropped", "dropped", "dropped"]);
    assert!(task.cancelled());
}

#[test]
fn dropping_the_last_handle_closes_the_loop() {
    let log = Log::default();
    let event_loop = virtual_loop();
    let witness = Witness::new(&log);
    drop(event_loop.create_task(async move {
        let _witness = witness;
        Ok(())
    }));
    let remote = event_loop.remote();
    drop(event_loop.clone());
    log.is([]);
    drop(event_loop);
    log.is(["dropped"]);
    assert!(remote.call_soon_threadsafe(|| ()).is_err());
}

#[test]
fn a_loop_that_is_stopped_says_that_the_future_is_not_done() {
    let event_loop = virtual_loop();
    let stop = event_loop.clone();
    event_loop.call_later(seconds(1), move || stop.stop());
    let error = event_loop
        .run_until_complete(async { Ok(asyncio::sleep(seconds(2)).await?) })
        .unwrap_err();
    assert!(error.is_misuse());
    assert_eq!(event_loop.time(), seconds(1));
}

#[test]
fn a_future_that_a_stopped_run_left_behind_ends_no_later_run_and_goes_with_the_loop() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let [ends, stays] = std::array::from_fn(|_| Witness::new(&log));
    for (delay, witness) in [(2, ends), (9, stays)] {
        event_loop.stop();
        let left = event_loop.run_until_complete(async move {
            let _witness = witness;
            Ok(asyncio::sleep(seconds(delay)).await?)
        });
        assert!(left.unwrap_err().is_misuse());
    }
    event_loop
        .run_until_complete(async { Ok(asyncio::sleep(seconds(3)).await?) })
        .unwrap();
    assert_eq!(event_loop.time(), seconds(3));
    log.is(["dropped"]);
    drop(event_loop);
    log.is(["dropped", "dropped"]);
}

#[test]
fn debug_mode_tells_of_slow_callbacks() {
    let event_loop = virtual_loop();
    let log = Log::default();
    let told = log.clone();
    event_loop.set_exception_handler(Some(move |_: &EventLoop, context: &ExceptionContext| {
        told.note(context.task.is_some());
    }));
    event_loop.set_debug(true);
    event_loop.set_slow_callback_duration(Duration::ZERO); // everything is slow
    let stop = event_loop.clone();
    event_loop.call_soon(move || stop.stop());
    drop(event_loop.create_task(async { Ok(()) }));
    event_loop.run_forever().unwrap();
    log.is(["false", "true"]);
    event_loop.set_debug(false);
    event_loop.stop();
    event_loop.call_soon(|| ());
    event_loop.run_forever().unwrap();
    log.is(["false", "true"]);
}

#[test]
fn a_seed_decides_an_order_and_the_same_seed_the_same() {
    let order = |seed| {
        let log = Log::default();
        let seen = log.clone();
        testing::orders([seed], move || {
            let log = log.clone();
            async move {
                let tasks: Vec<_> = (0..10)
                    .map(|number| {
                        let log = log.clone();
                        asyncio::create_task(async move {
                            log.note(number);
                            Ok(())
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await?;
                }
                Ok(())
            }
        })
        .unwrap();
        seen.0.take()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let mut sorted = order(3);
    sorted.sort();
    assert_eq!(sorted, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}
