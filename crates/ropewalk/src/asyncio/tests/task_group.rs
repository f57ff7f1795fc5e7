use super::*;
use crate::asyncio::{Task, TaskGroup};

/// Sleeps for long, and cleans up for a second when cancelled.
async fn cleans_up(log: Log, name: &'static str) -> Result<()> {
    let outcome = asyncio::sleep(seconds(1000)).await;
    asyncio::sleep(seconds(1)).await?;
    log.note(format!("{name} cleaned up @{}", now()));
    Ok(outcome?)
}

#[test]
fn it_ends_when_all_its_tasks_have() {
    run(async {
        let (first, second) = TaskGroup::new()
            .run(async |group| {
                let first = group.create_task(after(3));
                let second = group.create_task(after(2));
                drop(group.create_task(after(5)));
                Ok((first, second))
            })
            .await?;
        assert_eq!(now(), 5.0);
        assert_eq!((first.await?, second.await?), (3, 2));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_failure_cancels_the_others_who_clean_up_and_all_errors_are_gathered() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let error = TaskGroup::new()
            .run(async |group| {
                group.create_task(cleans_up(log.clone(), "one"));
                group.create_task(failing_after(2));
                group.create_task(async {
                    let _ = asyncio::sleep(seconds(1000)).await;
                    Err::<(), _>(Failure(77).into()) // fails while it cleans up
                });
                cleans_up(log.clone(), "body").await
            })
            .await
            .unwrap_err();
        let failures: Vec<_> = error.exceptions().iter().map(failure).collect();
        assert_eq!(failures, [Some(2), Some(77)]);
        assert_eq!(now(), 3.0);
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        turns(1).await
    })
    .unwrap();
    seen.is(["one cleaned up @3", "body cleaned up @3"]);
}

#[test]
fn a_failure_of_the_body_comes_last_and_cancels_the_tasks() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let error = TaskGroup::new()
            .run(async |group| {
                group.create_task(cleans_up(log.clone(), "one"));
                turns(1).await?;
                Err::<(), _>(Failure(1).into())
            })
            .await
            .unwrap_err();
        assert_eq!(error.exceptions().len(), 1);
        assert_eq!(failure(&error.exceptions()[0]), Some(1));
        Ok(())
    })
    .unwrap();
    seen.is(["one cleaned up @1"]);
}

#[test]
fn a_request_from_outside_cancels_everybody_and_comes_out_as_one() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        for in_body in [true, false] {
            let inner = log.clone();
            let task: Task<()> = asyncio::create_task(async move {
                TaskGroup::new()
                    .run(async |group| {
                        group.create_task(cleans_up(inner.clone(), "child"));
                        match in_body {
                            true => cleans_up(inner.clone(), "body").await,
                            false => Ok(()),
                        }
                    })
                    .await
            });
            turns(3).await?;
            task.cancel_with("outside");
            let error = task.await.unwrap_err();
            assert_eq!(error.cancelled().unwrap().message(), Some("outside"));
        }
        Ok(())
    })
    .unwrap();
    // The body's clean-up comes before the tasks are asked: as in Python.
    seen.is(["body cleaned up @1", "child cleaned up @2", "child cleaned up @3"]);
}

#[test]
fn a_request_that_comes_with_a_failure_is_not_lost() {
    run(async {
        let task = asyncio::create_task(async {
            let error = TaskGroup::new()
                .run(async |group| {
                    group.create_task(async {
                        asyncio::sleep(seconds(1)).await?;
                        Err::<(), _>(Failure(1).into())
                    });
                    Ok(asyncio::sleep(seconds(100)).await?)
                })
                .await
                .unwrap_err();
            assert_eq!(failure(&error.exceptions()[0]), Some(1));
            assert_eq!(asyncio::current_task().unwrap().cancelling(), 1);
            Ok(asyncio::sleep(seconds(100)).await.is_err())
        });
        turns(3).await?; // its timer comes after that of the task that fails
        let target = (*task).clone();
        asyncio::get_running_loop()?.call_at(seconds(1), move || {
            target.cancel();
        });
        assert!(task.await?);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_was_cancelled_has_not_failed() {
    run(async {
        TaskGroup::new()
            .run(async |group| {
                let task = group.create_task(after(100));
                turns(1).await?;
                task.cancel();
                Ok(asyncio::sleep(seconds(1)).await?)
            })
            .await?;
        assert_eq!(now(), 1.0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_failure_while_the_body_is_over_cancels_the_others_and_leaves_no_request() {
    run(async {
        let error = TaskGroup::new()
            .run(async |group| {
                group.create_task(failing_after(1));
                group.create_task(after(100));
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!((error.exceptions().len(), now()), (1, 1.0));
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        asyncio::sleep(seconds(1)).await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_panic_is_a_failure() {
    run(async {
        let error = TaskGroup::new()
            .run(async |group| {
                group.create_task::<(), _>(async { panic!("boom") });
                Ok(asyncio::sleep(seconds(100)).await?)
            })
            .await
            .unwrap_err();
        assert!(error.exceptions()[0].is_panic());
        Ok(())
    })
    .unwrap();
}

#[test]
fn tasks_add_tasks_and_a_group_that_ends_takes_no_more() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let kept = RefCell::new(None);
        TaskGroup::new()
            .run(async |group| {
                let own = group.clone();
                let inner = log.clone();
                group.create_task(async move {
                    own.create_task(async move {
                        asyncio::sleep(seconds(2)).await?;
                        inner.note("grandchild");
                        Ok(())
                    });
                    Ok(())
                });
                *kept.borrow_mut() = Some(group.clone());
                Ok(())
            })
            .await?;
        let group = kept.take().unwrap();
        assert_eq!(format!("{group:?}"), "<TaskGroup over tasks=0 errors=0>");
        let late = log.clone();
        let refused = group.create_task(async move {
            late.note("never");
            Ok(())
        });
        assert!(refused.await.unwrap_err().is_cancelled());
        let again = group.run(async |_| Ok(())).await;
        assert!(again.unwrap_err().is_misuse());
        Ok(())
    })
    .unwrap();
    seen.is(["grandchild"]);
}

#[test]
fn a_panic_of_the_body_lets_the_tasks_clean_up() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let group = TaskGroup::new();
        let body = group.run(async |group| {
            group.create_task(async move {
                let cancelled = asyncio::sleep(seconds(9)).await.unwrap_err();
                asyncio::sleep(seconds(1)).await?; // clean-up may wait
                log.note("cleaned up");
                Err::<(), _>(cancelled.into())
            });
            turns(1).await?;
            panic!("body");
            #[expect(unreachable_code, reason = "says what the body gives")]
            Ok(())
        });
        let error = body.await.unwrap_err();
        assert_eq!(error.exceptions().len(), 1);
        let payload = error.exceptions()[0].clone().into_panic().unwrap();
        assert_eq!(payload.downcast_ref(), Some(&"body"));
        assert_eq!(now(), 1.0);
        Ok(())
    })
    .unwrap();
    seen.is(["cleaned up"]);
}

#[test]
fn dropped_before_its_end_it_drops_its_tasks() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let witness = Witness::new(&log);
        let task = asyncio::create_task(async move {
            TaskGroup::new()
                .run(async |group| {
                    group.create_task(async move {
                        let _witness = witness;
                        Ok(asyncio::sleep(seconds(100)).await?)
                    });
                    Ok(asyncio::sleep(seconds(100)).await?)
                })
                .await
        });
        turns(3).await?;
        task.abort();
        turns(3).await?;
        log.note(format!("@{}", now()));
        Ok(())
    })
    .unwrap();
    seen.is(["dropped", "@0"]);
}

#[test]
fn groups_nest_and_errors_keep_their_shape() {
    run(async {
        let error = TaskGroup::new()
            .run(async |outer| {
                outer.create_task(async {
                    TaskGroup::new()
                        .run(async |inner| {
                            inner.create_task(failing_after(1));
                            Ok(asyncio::sleep(seconds(100)).await?)
                        })
                        .await
                });
                Ok(asyncio::sleep(seconds(100)).await?)
            })
            .await
            .unwrap_err();
        assert_eq!(failure(&error.exceptions()[0].exceptions()[0]), Some(1));
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_every_order_of_failure_and_request_nobody_outlives_the_group_and_requests_are_counted() {
    testing::orders(0..300, || async {
        let task = asyncio::create_task(async {
            let outcome = TaskGroup::new()
                .run(async |group| {
                    for count in 1..4 {
                        group.create_task(async move {
                            turns(count).await?;
                            Err::<(), _>(Failure(count as u64).into())
                        });
                    }
                    turns(3).await
                })
                .await;
            assert!(asyncio::all_tasks().len() <= 3, "main, this task and the killer");
            Ok((outcome, asyncio::current_task().unwrap().cancelling()))
        });
        let target = (*task).clone();
        let killer = asyncio::create_task(async move {
            turns(2).await?;
            Ok(target.cancel())
        });
        let hit = killer.await?;
        match task.await {
            Ok((outcome, cancelling)) => {
                let error = outcome.unwrap_err();
                assert!(error.is_cancelled() || !error.exceptions().is_empty());
                assert_eq!(cancelling, u32::from(hit));
            }
            Err(error) => assert!(hit && error.is_cancelled(), "before it began"),
        }
        Ok(())
    })
    .unwrap();
}
