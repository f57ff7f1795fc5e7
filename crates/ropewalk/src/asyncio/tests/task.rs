use super::*;
use std::cell::Cell;

#[test]
fn a_task_begins_when_the_loop_gets_control_and_tasks_run_in_order() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let tasks: Vec<_> = (0..3)
            .map(|number| {
                let log = log.clone();
                asyncio::create_task(async move {
                    log.note(number);
                    Ok(())
                })
            })
            .collect();
        log.note("made");
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
    .unwrap();
    seen.is(["made", "0", "1", "2"]);
}

#[test]
fn awaiting_gives_the_value_or_the_error() {
    run(async {
        assert_eq!(asyncio::create_task(async { Ok(5) }).await?, 5);
        let failing = asyncio::create_task(async { Ok("x".parse::<u8>()?) });
        let error = failing.await.unwrap_err();
        assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_panic_is_carried_to_who_awaits() {
    run(async {
        let country = String::from("Atlantis");
        let task = asyncio::create_task::<(), _>(async move { panic!("no flag for {country}") });
        let error = task.await.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the task panicked: no flag for Atlantis");
        let payload = error.into_panic().unwrap();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "no flag for Atlantis");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_is_done_keeps_its_outcome_for_one_taker() {
    run(async {
        let mut task = asyncio::create_task(async { Ok(String::from("flag")) });
        assert!(task.result().unwrap_err().is_misuse(), "not done yet");
        turns(1).await?;
        assert!(task.done() && !task.cancelled());
        assert!(task.exception().is_none());
        assert_eq!(task.result()?, "flag");
        assert!(task.result().unwrap_err().is_misuse());
        assert!((&mut task).await.unwrap_err().is_misuse());
        Ok(())
    })
    .unwrap();
}

#[test]
fn dropping_a_handle_neither_ends_nor_cancels_the_task() {
    let done = Rc::new(Cell::new(false));
    let seen = done.clone();
    run(async move {
        drop(asyncio::create_task(async move {
            asyncio::sleep(seconds(1)).await?;
            done.set(true);
            Ok(())
        }));
        asyncio::sleep(seconds(2)).await?;
        Ok(())
    })
    .unwrap();
    assert!(seen.get());
}

#[test]
fn callbacks_come_in_the_turn_after_in_their_order() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let task = asyncio::create_task(async { Ok(()) });
        for number in 0..2 {
            let log = log.clone();
            task.add_done_callback(move |task| log.note(format!("{number} {}", task.done())));
        }
        turns(1).await?;
        log.note("done");
        turns(1).await?;
        let late = log.clone();
        task.add_done_callback(move |_| late.note("late"));
        log.note("added");
        turns(1).await?;
        Ok(())
    })
    .unwrap();
    seen.is(["done", "0 true", "1 true", "added", "late"]);
}

#[test]
fn names_count_up_and_can_be_set() {
    run(async {
        let number = |task: &asyncio::AnyTask| task.name().strip_prefix("Task-").unwrap().parse::<u64>();
        let first = asyncio::create_task(async { Ok(()) });
        let second = asyncio::create_task(async { Ok(()) });
        assert!(number(&second)? > number(&first)?);
        first.set_name("flags");
        assert_eq!(&*first.name(), "flags");
        Ok(())
    })
    .unwrap();
}

#[test]
fn debug_says_what_pythons_repr_says() {
    run(async {
        let waits = asyncio::create_task(async { Ok(asyncio::sleep(seconds(9)).await?) });
        let fails = asyncio::create_task(async { Ok("x".parse::<u8>().map(drop)?) });
        let returns = asyncio::create_task(async { Ok(()) });
        for (name, task) in [("w", &waits), ("f", &fails), ("r", &returns)] {
            task.set_name(name);
        }
        assert_eq!(format!("{returns:?}"), "<Task pending name='r'>");
        turns(1).await?;
        assert_eq!(format!("{returns:?}"), "<Task finished name='r'>");
        assert_eq!(
            format!("{fails:?}"),
            "<Task finished name='f' exception=ParseIntError { kind: InvalidDigit }>"
        );
        waits.cancel();
        assert_eq!(format!("{waits:?}"), "<Task cancelling name='w'>");
        turns(1).await?;
        assert_eq!(format!("{waits:?}"), "<Task cancelled name='w'>");
        let _ = fails.exception();
        Ok(())
    })
    .unwrap();
}

#[test]
fn current_and_all_tasks_are_those_of_the_running_loop() {
    assert!(asyncio::current_task().is_none());
    assert!(asyncio::all_tasks().is_empty());
    run(async {
        let main = asyncio::current_task().unwrap();
        let inner = asyncio::create_task(async {
            let task = asyncio::current_task().unwrap();
            asyncio::sleep(seconds(1)).await?;
            assert!(asyncio::current_task().unwrap().is(&task));
            Ok(task)
        });
        let all = asyncio::all_tasks();
        assert!(all.len() == 2 && all[0].is(&main) && all[1].is(&inner));
        let same = (*inner).clone();
        assert!(inner.await?.is(&same));
        assert_eq!(asyncio::all_tasks().len(), 1);
        Ok(())
    })
    .unwrap();
}

#[test]
fn awaiting_oneself_or_a_task_of_another_loop_is_an_error() {
    let other = testing::virtual_clock().unwrap();
    let foreign = other.create_task(async { Ok(()) });
    run(async move {
        assert!(foreign.await.unwrap_err().is_misuse());
        let slot = Rc::new(RefCell::new(None::<asyncio::Task<()>>));
        let own = slot.clone();
        let error = Rc::new(RefCell::new(None));
        let seen = error.clone();
        *slot.borrow_mut() = Some(asyncio::create_task(async move {
            let me = own.take().unwrap();
            *error.borrow_mut() = me.await.err();
            Ok(())
        }));
        turns(1).await?;
        assert_eq!(seen.take().unwrap().to_string(), "a task cannot await itself");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_is_woken_from_another_thread() {
    asyncio::run(async {
        let (promise, future) = crate::futures::Promise::new();
        let task = asyncio::create_task(async move { Ok(future.await?) });
        turns(1).await?;
        std::thread::spawn(move || promise.set_result(7));
        assert_eq!(task.await?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_waker_may_outlive_the_loop_and_drops_nothing_of_the_task() {
    let log = Log::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let witness = Witness::new(&log);
    run(async move {
        let task = asyncio::create_task(async move {
            let _witness = witness;
            std::future::poll_fn(|cx| {
                sender.send(cx.waker().clone()).unwrap();
                std::task::Poll::<()>::Pending
            })
            .await;
            Ok(())
        });
        turns(1).await?;
        task.abort();
        Ok(())
    })
    .unwrap();
    log.is(["dropped"]);
    let waker = receiver.recv().unwrap();
    std::thread::spawn(move || {
        waker.wake_by_ref();
        waker.wake();
    })
    .join()
    .unwrap();
}

#[test]
fn wakers_may_be_cloned_and_dropped_in_any_thread_while_tasks_end() {
    let log = Log::default();
    let [mut waking, mut ended] = [0, 0];
    for number in 0..if cfg!(miri) { 5 } else { 300 } {
        let (sender, receiver) = std::sync::mpsc::channel::<std::task::Waker>();
        let threads = std::array::from_fn::<_, 3, _>(|_| sender.clone()).map(|sender| {
            let (give, wakers) = std::sync::mpsc::channel::<std::task::Waker>();
            let thread = std::thread::spawn(move || {
                for waker in wakers {
                    let clone = waker.clone();
                    drop(waker);
                    clone.wake_by_ref();
                    let _ = sender.send(clone); // dropped there, or here when nobody listens any more
                }
            });
            (give, thread)
        });
        drop(sender);
        let (gives, threads): (Vec<_>, Vec<_>) = threads.into_iter().unzip();
        let witness = Witness::new(&log);
        asyncio::run(async move {
            let task = asyncio::create_task(async move {
                let witness = witness;
                let mut polls = 0;
                std::future::poll_fn(|cx| {
                    for give in &gives {
                        give.send(cx.waker().clone()).unwrap();
                    }
                    polls += 1;
                    if polls > number % 4 {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })
                .await;
                Ok(witness)
            });
            drop(task.await?);
            Ok(())
        })
        .unwrap();
        // Some come back here, where their loop was, others end there.
        waking += receiver.iter().take(number).count();
        drop(receiver);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        ended += 1;
        assert_eq!(log.0.borrow().len(), ended, "the outcome was dropped here");
    }
    assert!(waking > 0);
}

#[test]
fn a_task_that_wakes_itself_in_its_last_turn_ends_once() {
    run(async {
        let log = Log::default();
        let witness = Witness::new(&log);
        let kept = Rc::new(RefCell::new(None));
        let waker = kept.clone();
        let task = asyncio::create_task(async move {
            let _witness = witness;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                *waker.borrow_mut() = Some(cx.waker().clone());
                std::task::Poll::Ready(Ok(()))
            })
            .await
        });
        turns(1).await?;
        log.is(["dropped"]);
        let any = (*task).clone();
        task.await?;
        turns(2).await?;
        drop(any);
        kept.take().unwrap().wake(); // the last reference: of what is over, to nothing
        turns(1).await
    })
    .unwrap();
}

#[test]
fn an_outcome_that_nobody_takes_is_dropped_in_the_loops_thread() {
    let log = Log::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let witness = Witness::new(&log);
    run(async move {
        drop(asyncio::create_task(async move {
            std::future::poll_fn(|cx| {
                sender.send(cx.waker().clone()).unwrap();
                std::task::Poll::Ready(())
            })
            .await;
            Ok(witness)
        }));
        turns(1).await
    })
    .unwrap();
    log.is(["dropped"]);
    std::thread::spawn(move || drop(receiver)).join().unwrap();
}

#[test]
fn a_failure_that_nobody_asks_for_is_told_to_the_exception_handler() {
    let log = Log::default();
    let event_loop = testing::virtual_clock().unwrap();
    let told = log.clone();
    event_loop.set_exception_handler(Some(move |_: &_, context: &asyncio::ExceptionContext| {
        told.note(context);
    }));
    Runner::with_loop(event_loop)
        .run(async {
            let fails = || async { Err::<(), _>(std::fmt::Error.into()) };
            let [before, after, asked, cancelled] = std::array::from_fn(|_| asyncio::create_task(fails()));
            for (name, task) in [("before", &before), ("after", &after), ("cancelled", &cancelled)] {
                task.set_name(name);
            }
            drop(before);
            cancelled.cancel();
            drop(cancelled);
            turns(1).await?;
            drop(after);
            assert!(asked.exception().is_some());
            Ok(())
        })
        .unwrap();
    log.is([
        "Task exception was never retrieved: <Task finished name='before' exception=Error>",
        "Task exception was never retrieved: <Task finished name='after' exception=Error>",
    ]);
}

#[test]
fn a_destructor_that_panics_ends_the_task_all_the_same() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    run(async {
        let bomb = Bomb;
        let task = asyncio::create_task(async move {
            asyncio::cancellable(std::future::pending::<()>()).await?;
            drop(bomb);
            Ok(())
        });
        turns(1).await?;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}
