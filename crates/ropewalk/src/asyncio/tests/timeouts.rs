use super::*;
use crate::asyncio::{Cancelled, timeout, timeout_at, wait_for};

async fn sleeps(count: u64) -> Result<()> {
    Ok(asyncio::sleep(seconds(count)).await?)
}

#[test]
fn what_is_done_in_time_is_not_disturbed() {
    run(async {
        assert_eq!(wait_for(after(1), seconds(2)).await?, 1);
        assert_eq!(wait_for(after(1), None).await?, 1);
        let error = wait_for(failing_after(1), seconds(2)).await.unwrap_err();
        assert_eq!(failure(&error), Some(1));
        asyncio::sleep(seconds(9)).await?;
        assert_eq!(now(), 12.0, "no timer is left to cancel this task");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_late_is_cancelled_and_cleans_up_before_the_error_comes() {
    run(async {
        let limit = timeout(seconds(1));
        let outcome = limit
            .run(async {
                let outcome = asyncio::sleep(seconds(100)).await;
                asyncio::sleep(seconds(2)).await?;
                Ok(outcome?)
            })
            .await;
        assert!(outcome.unwrap_err().is_timeout());
        assert_eq!(now(), 3.0);
        assert!(limit.expired());
        assert_eq!(limit.when(), Some(seconds(1)));
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_is_late_is_cancelled_too() {
    run(async {
        let task = after(9);
        let handle = (*task).clone();
        assert!(wait_for(task, seconds(1)).await.unwrap_err().is_timeout());
        assert!(handle.cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_value_that_comes_in_spite_of_it_is_kept() {
    run(async {
        let stubborn = async {
            let _ = asyncio::sleep(seconds(9)).await;
            Ok(7)
        };
        let limit = timeout(seconds(1));
        assert_eq!(limit.run(stubborn).await?, 7);
        assert!(limit.expired());
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        asyncio::sleep(seconds(1)).await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn no_time_at_all_ends_what_waits_and_not_what_does_not() {
    run(async {
        assert!(wait_for(after(1), Duration::ZERO).await.unwrap_err().is_timeout());
        assert_eq!(
            wait_for(async { Ok::<_, Cancelled>(1) }, Duration::ZERO).await?,
            1
        );
        let past = timeout_at(Duration::ZERO);
        assert!(past.run(sleeps(1)).await.unwrap_err().is_timeout());
        assert_eq!(now(), 0.0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_outer_one_of_two_expires_as_the_outer_one() {
    run(async {
        let outer = timeout(seconds(1));
        let inner = timeout(seconds(2));
        let outcome = outer.run(inner.run(sleeps(9))).await;
        assert!(outcome.unwrap_err().is_timeout());
        assert!(outer.expired() && !inner.expired());
        Ok(())
    })
    .unwrap();
}

#[test]
fn two_that_expire_together_are_both_told() {
    run(async {
        let outer = timeout(seconds(1));
        let inner = timeout(seconds(1));
        let outcome = outer
            .run(async {
                let outcome = inner.run(sleeps(9)).await;
                assert!(
                    outcome.unwrap_err().is_cancelled(),
                    "the outer one wants the task to end, too"
                );
                Err::<(), _>(Cancelled::default().into())
            })
            .await;
        assert!(outcome.unwrap_err().is_timeout());
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_request_from_elsewhere_stays_a_cancellation() {
    run(async {
        // Alone, and in the same turn as the end of the time.
        for (limit, clean_up) in [(9, 0), (1, 1)] {
            let task = asyncio::create_task(async move {
                timeout(seconds(limit))
                    .run(async {
                        let outcome = asyncio::sleep(seconds(100)).await;
                        asyncio::sleep(seconds(clean_up)).await?;
                        Ok(outcome?)
                    })
                    .await
            });
            turns(1).await?;
            asyncio::sleep(seconds(1)).await?;
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled(), "limit {limit}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_can_be_moved_while_it_runs() {
    run(async {
        let limit = timeout(seconds(1));
        assert!(limit.reschedule(seconds(5)).unwrap_err().is_misuse());
        assert_eq!(format!("{limit:?}"), "<Timeout [created] when=None>");
        let outcome = limit
            .run(async {
                limit.reschedule(seconds(3))?;
                assert_eq!(limit.when(), Some(seconds(3)));
                asyncio::sleep(seconds(2)).await?;
                limit.reschedule(None)?;
                asyncio::sleep(seconds(7)).await?;
                limit.reschedule(seconds(10))?;
                Ok(asyncio::sleep(seconds(9)).await?)
            })
            .await;
        assert!(outcome.unwrap_err().is_timeout());
        assert_eq!(now(), 10.0);
        assert!(limit.reschedule(seconds(50)).unwrap_err().is_misuse());
        let again = limit.run(sleeps(1)).await;
        assert!(again.unwrap_err().is_misuse());
        Ok(())
    })
    .unwrap();
}

#[test]
fn dropped_before_its_end_it_cancels_nobody() {
    run(async {
        let limit = timeout(seconds(1));
        let mut waits = Box::pin(limit.run(sleeps(9)));
        std::future::poll_fn(|cx| {
            assert!(waits.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(waits);
        asyncio::sleep(seconds(3)).await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_every_order_of_completion_request_and_timeout_the_outcome_is_one_of_three() {
    let counts = Rc::new(std::cell::Cell::new([0; 3]));
    let seen = counts.clone();
    testing::orders(0..300, move || {
        let counts = counts.clone();
        async move {
            let task = asyncio::create_task(wait_for(after(1), seconds(1)));
            let target = (*task).clone();
            asyncio::get_running_loop()?.call_at(seconds(1), move || {
                target.cancel();
            });
            let outcome = task.await;
            let which = match &outcome {
                Ok(value) => {
                    assert_eq!(*value, 1);
                    0
                }
                Err(error) if error.is_timeout() => 1,
                Err(error) => {
                    assert!(error.is_cancelled());
                    2
                }
            };
            let mut all = counts.get();
            all[which] += 1;
            counts.set(all);
            asyncio::sleep(seconds(5)).await?;
            Ok(())
        }
    })
    .unwrap();
    assert_eq!(seen.get().iter().sum::<i32>(), 300);
    assert!(seen.get()[2] > 0, "{:?}", seen.get());
}
