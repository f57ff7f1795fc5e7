use super::*;
use crate::asyncio::{Cancelled, Task};
use std::cell::Cell;
use std::task::Poll;

#[test]
fn it_arrives_where_the_task_waits_and_clean_up_may_wait() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let inner = log.clone();
        let task = asyncio::create_task(async move {
            let outcome = asyncio::sleep(seconds(3600)).await;
            inner.note(format!("{outcome:?} @{}", now()));
            asyncio::sleep(seconds(5)).await?;
            inner.note(format!("cleaned up @{}", now()));
            outcome?;
            Ok(())
        });
        asyncio::sleep(seconds(1)).await?;
        assert!(task.cancel_with("enough"));
        let error = task.await.unwrap_err();
        log.note(error.cancelled().unwrap());
        Ok(())
    })
    .unwrap();
    seen.is([
        "Err(Cancelled { message: Some(\"enough\") }) @1",
        "cleaned up @6",
        "cancelled: enough",
    ]);
}

#[test]
fn a_task_that_has_not_begun_never_begins() {
    run(async {
        let begun = Rc::new(Cell::new(false));
        let inner = begun.clone();
        let task = asyncio::create_task(async move {
            inner.set(true);
            Ok(())
        });
        task.cancel();
        assert!(!task.done());
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!begun.get());
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_is_delivered_once_and_two_requests_before_that_are_one() {
    run(async {
        let task = asyncio::create_task(async {
            assert!(asyncio::sleep(seconds(9)).await.is_err());
            asyncio::sleep(seconds(1)).await?;
            Ok(asyncio::current_task().unwrap().cancelling())
        });
        turns(1).await?;
        task.cancel();
        task.cancel();
        assert_eq!(task.cancelling(), 2);
        assert_eq!(task.await?, 2);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_second_request_interrupts_the_clean_up() {
    run(async {
        let task: Task<()> = asyncio::create_task(async {
            let first = asyncio::sleep(seconds(9)).await.unwrap_err();
            let second = asyncio::sleep(seconds(9)).await.unwrap_err();
            assert_eq!((first.message(), second.message()), (Some("1"), Some("2")));
            Err(second.into())
        });
        turns(1).await?;
        task.cancel_with("1");
        turns(1).await?;
        task.cancel_with("2");
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(now(), 0.0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_keeps_it_is_not_cancelled() {
    run(async {
        let mut task = asyncio::create_task(async {
            let _kept = asyncio::sleep(seconds(9)).await;
            asyncio::current_task().unwrap().uncancel();
            Ok(7)
        });
        turns(1).await?;
        task.cancel();
        turns(1).await?;
        assert!(task.done() && !task.cancelled());
        assert_eq!(task.cancelling(), 0);
        assert_eq!(task.result()?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn uncancel_takes_a_request_back_that_is_not_delivered_yet() {
    run(async {
        let task = asyncio::create_task(async {
            asyncio::sleep(seconds(1)).await?;
            Ok("undisturbed")
        });
        turns(1).await?;
        task.cancel();
        assert_eq!(task.uncancel(), 0);
        assert_eq!(task.uncancel(), 0, "no less than nothing");
        assert_eq!(task.await?, "undisturbed");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_is_done_cannot_be_cancelled() {
    run(async {
        let task = asyncio::create_task(async { Ok(1) });
        turns(1).await?;
        assert!(!task.cancel());
        assert_eq!(task.cancelling(), 0);
        assert_eq!(task.await?, 1);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_cancels_itself_gets_it_when_it_next_waits() {
    run(async {
        let task = asyncio::create_task(async {
            asyncio::current_task().unwrap().cancel();
            let ready = asyncio::cancellable(std::future::ready(5)).await;
            assert_eq!(ready, Ok(5), "nothing to wait for: nothing delivered");
            assert!(asyncio::sleep(Duration::ZERO).await.is_err());
            Ok(())
        });
        task.await
    })
    .unwrap();
}

#[test]
fn a_request_comes_before_what_has_arrived() {
    // The timer is due and the request made in the same turn: Python delivers the request.
    run(async {
        let task = asyncio::create_task(async { Ok(asyncio::sleep(seconds(1)).await.is_err()) });
        turns(1).await?;
        let other = (*task).clone();
        asyncio::get_running_loop()?.call_later(seconds(1), move || {
            other.cancel();
        });
        assert!(task.await?);
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_ends_tasks_that_await_each_other() {
    testing::orders(0..50, || async {
        let slot = Rc::<RefCell<Option<asyncio::Task<()>>>>::default();
        let last = slot.clone();
        let mut tasks = vec![asyncio::create_task(async move {
            let next = last.take().unwrap();
            next.await
        })];
        let mut seen = vec![(*tasks[0]).clone()];
        for _ in 0..3 {
            let next = tasks.pop().unwrap();
            tasks.push(asyncio::create_task(next));
            seen.push((*tasks[0]).clone());
        }
        *slot.borrow_mut() = tasks.pop();
        asyncio::sleep(seconds(1)).await?;
        assert!(seen.iter().all(|task| !task.done()));
        seen[2].cancel();
        turns(50).await?;
        let ended = seen.iter().all(|task| task.cancelled());
        seen.iter().for_each(|task| task.abort());
        turns(2).await?;
        assert!(ended);
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_passes_on_to_the_task_that_is_awaited_whose_outcome_decides() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        for keeps in [false, true] {
            let inner_log = log.clone();
            let inner = asyncio::create_task(async move {
                let outcome = asyncio::sleep(seconds(9)).await;
                inner_log.note(format!("inner {outcome:?}"));
                asyncio::sleep(seconds(1)).await?; // the outer one waits for this clean-up
                if keeps {
                    Ok(7)
                } else {
                    outcome.map(|()| 0).map_err(Into::into)
                }
            });
            let outer = asyncio::create_task(async move { Ok(inner.await? + 1) });
            turns(2).await?;
            outer.cancel_with("stop");
            log.note(format!("outer {:?} @{}", outer.await, now()));
        }
        Ok(())
    })
    .unwrap();
    seen.is([
        "inner Err(Cancelled { message: Some(\"stop\") })",
        "outer Err(cancelled: stop) @1",
        "inner Err(Cancelled { message: Some(\"stop\") })",
        "outer Ok(8) @2",
    ]);
}

#[test]
fn who_is_cancelled_when_the_awaited_task_is_done_leaves_its_outcome_there() {
    run(async {
        let outcome = Rc::new(RefCell::new(None));
        let taken = outcome.clone();
        let inner = asyncio::create_task(async { turns(1).await.map(|()| 7) });
        let inner_handle = (*inner).clone();
        let outer = asyncio::create_task(async move {
            let mut inner = inner;
            let first = (&mut inner).await;
            *taken.borrow_mut() = Some(inner.result());
            first
        });
        let other = (*outer).clone();
        inner_handle.add_done_callback(move |_| assert!(!other.done()));
        turns(2).await?;
        assert!(
            inner_handle.done() && !outer.done(),
            "done, and the waker not yet run"
        );
        outer.cancel();
        assert!(outer.await.unwrap_err().is_cancelled());
        assert_eq!(outcome.take().unwrap()?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_foreign_future_does_not_notice_unless_made_cancellable() {
    run(async {
        let foreign = asyncio::create_task(async {
            let mut polls = 0;
            std::future::poll_fn(|_| {
                polls += 1;
                if polls < 2 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            Ok(asyncio::sleep(Duration::ZERO).await.is_err())
        });
        let ours =
            asyncio::create_task(async { Ok(asyncio::cancellable(std::future::pending::<()>()).await?) });
        turns(1).await?;
        foreign.cancel();
        ours.cancel();
        assert!(foreign.await?, "delivered at the next await point of ours");
        assert!(ours.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_future_is_dropped_before_the_task_goes_on() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let witness = Witness::new(&log);
        let task = asyncio::create_task(async move {
            let waits = async move {
                let _witness = witness;
                std::future::pending::<()>().await;
            };
            let outcome = asyncio::cancellable(waits).await;
            log.note("delivered");
            Ok(outcome?)
        });
        turns(1).await?;
        task.cancel();
        assert!(task.await.is_err());
        Ok(())
    })
    .unwrap();
    seen.is(["dropped", "delivered"]);
}

#[test]
fn a_request_meets_a_panic() {
    run(async {
        let task: Task<()> = asyncio::create_task(async {
            asyncio::sleep(seconds(9)).await.expect("nobody cancels me");
            Ok(())
        });
        turns(1).await?;
        task.cancel();
        let error = task.await.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_converts_by_the_question_mark() {
    async fn io() -> std::io::Result<()> {
        asyncio::sleep(seconds(9)).await?;
        Ok(())
    }
    #[derive(Debug, PartialEq)]
    struct Mine;
    impl From<Cancelled> for Mine {
        fn from(_: Cancelled) -> Self {
            Mine
        }
    }
    async fn mine() -> std::result::Result<(), Mine> {
        asyncio::sleep(seconds(9)).await?;
        Ok(())
    }
    run(async {
        let through_io = asyncio::create_task(async { Ok(io().await?) });
        let to_mine = asyncio::create_task(async { Ok(mine().await) });
        turns(1).await?;
        through_io.cancel();
        to_mine.cancel();
        turns(1).await?;
        assert!(through_io.cancelled());
        assert_eq!(to_mine.await?, Err(Mine));
        Ok(())
    })
    .unwrap();
}

#[test]
fn abort_drops_at_the_next_turn() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let witness = Witness::new(&log);
        let inner = log.clone();
        let task: Task<()> = asyncio::create_task(async move {
            let _witness = witness;
            let outcome = asyncio::sleep(seconds(9)).await;
            inner.note("never seen");
            Ok(outcome?)
        });
        turns(1).await?;
        task.abort();
        log.note(task.done());
        turns(1).await?;
        log.note(task.cancelled());
        Ok(())
    })
    .unwrap();
    seen.is(["false", "dropped", "true"]);
}

/// Cancel against completion: whichever comes first by the seed, the outcome is one of two, and whole.
#[test]
fn in_every_order_a_task_is_either_done_or_cancelled() {
    let outcomes = Rc::new(Cell::new((0, 0)));
    let seen = outcomes.clone();
    testing::orders(0..200, move || {
        let outcomes = outcomes.clone();
        async move {
            let worker = asyncio::create_task(async { turns(2).await.map(|()| 7) });
            let target = (*worker).clone();
            let killer = asyncio::create_task(async move {
                turns(2).await?;
                Ok(target.cancel())
            });
            let hit = killer.await?;
            let (done, cancelled) = outcomes.get();
            match worker.await {
                Ok(value) => {
                    assert!(value == 7 && !hit);
                    outcomes.set((done + 1, cancelled));
                }
                Err(error) => {
                    assert!(error.is_cancelled() && hit);
                    outcomes.set((done, cancelled + 1));
                }
            }
            Ok(())
        }
    })
    .unwrap();
    let (done, cancelled) = seen.get();
    assert!(done > 20 && cancelled > 20, "both happen: {done}, {cancelled}");
}
