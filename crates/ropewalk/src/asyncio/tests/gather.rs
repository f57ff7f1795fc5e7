use super::*;
use crate::asyncio::gather;

#[test]
fn values_come_in_the_order_of_the_futures_and_take_the_time_of_the_longest() {
    run(async {
        assert_eq!(gather(vec![after(3), after(1), after(2)]).await?, [3, 1, 2]);
        assert_eq!(now(), 3.0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn tuples_arrays_and_nothing_gather() {
    run(async {
        let (number, word) = gather((after(1), async { Ok("flag") })).await?;
        assert_eq!((number, word), (1, "flag"));
        assert_eq!(gather([after(1), after(2)]).await?, [1, 2]);
        assert_eq!(gather(Vec::<asyncio::Task<u64>>::new()).await?, []);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_first_failure_comes_at_once_and_the_others_run_on() {
    run(async {
        let slow = after(5);
        let handle = (*slow).clone();
        let error = gather((slow, failing_after(2), failing_after(1)))
            .await
            .unwrap_err();
        assert_eq!(failure(&error), Some(1));
        assert_eq!(now(), 1.0);
        asyncio::sleep(seconds(9)).await?;
        assert!(handle.done() && !handle.cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn return_exceptions_gives_every_outcome() {
    run(async {
        let cancelled = after(9);
        cancelled.cancel();
        let outcomes = gather([after(1), failing_after(2), cancelled])
            .return_exceptions()
            .await?;
        assert_eq!(*outcomes[0].as_ref().unwrap(), 1);
        assert_eq!(failure(outcomes[1].as_ref().unwrap_err()), Some(2));
        assert!(outcomes[2].as_ref().unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_child_that_is_cancelled_is_a_failure() {
    run(async {
        let child = after(9);
        let handle = (*child).clone();
        asyncio::get_running_loop()?.call_later(seconds(1), move || {
            handle.cancel();
        });
        assert!(gather([child, after(5)]).await.unwrap_err().is_cancelled());
        assert_eq!(now(), 1.0);
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn cancelling_who_gathers_cancels_all_and_their_clean_up_comes_first() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let cleaning = |delay| {
            let log = log.clone();
            async move {
                let outcome = asyncio::sleep(seconds(100)).await;
                asyncio::sleep(seconds(delay)).await?;
                log.note(format!("cleaned up @{}", now()));
                Ok(outcome?)
            }
        };
        let all = vec![cleaning(1), cleaning(2)];
        let task = asyncio::create_task(async { gather(all).return_exceptions().await.map(drop) });
        turns(2).await?;
        task.cancel_with("stop");
        let error = task.await.unwrap_err();
        assert_eq!(error.cancelled().unwrap().message(), Some("stop"));
        Ok(())
    })
    .unwrap();
    seen.is(["cleaned up @1", "cleaned up @2"]);
}

#[test]
fn dropped_it_leaves_its_tasks_running() {
    run(async {
        let task = after(1);
        let handle = (*task).clone();
        drop(gather([task]));
        asyncio::sleep(seconds(2)).await?;
        assert!(handle.done() && !handle.cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_every_order_of_cancel_and_failure_all_ends() {
    testing::orders(0..200, || async {
        let failing = asyncio::create_task(async { turns(3).await.and(Err::<(), _>(Failure(1).into())) });
        let waits = asyncio::create_task(async { Ok(asyncio::sleep(seconds(9)).await?) });
        let handles = [(*failing).clone(), (*waits).clone()];
        let all = asyncio::create_task(async { gather([failing, waits]).await.map(drop) });
        let target = (*all).clone();
        let killer = asyncio::create_task(async move {
            turns(3).await?;
            Ok(target.cancel())
        });
        killer.await?;
        let error = all.await.unwrap_err();
        assert!(error.is_cancelled() || failure(&error) == Some(1), "{error:?}");
        asyncio::sleep(seconds(10)).await?;
        assert!(handles.iter().all(|task| task.done()));
        Ok(())
    })
    .unwrap();
}
