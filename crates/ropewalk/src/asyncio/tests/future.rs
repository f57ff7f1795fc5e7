use super::*;
use crate::asyncio::Future as Outcome;

#[test]
fn a_callback_ends_it_and_all_who_wait_wake() {
    run(async {
        let future = Outcome::new();
        let waits = |future: Outcome<u8>| asyncio::create_task(future);
        let tasks = [waits(future.clone()), waits(future.clone())];
        turns(1).await?;
        assert_eq!(format!("{future:?}"), "<Future pending>");
        assert!(future.result().unwrap_err().is_misuse());
        future.set_result(7)?;
        assert!(future.set_result(8).unwrap_err().is_misuse());
        assert!(!future.cancel());
        let [first, second] = tasks;
        assert_eq!(first.await?, 7);
        assert!(second.await.unwrap_err().is_misuse(), "the value was taken");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_failure_reaches_all_who_await_it() {
    run(async {
        let future = Outcome::<()>::new();
        future.set_exception(Failure(1))?;
        assert_eq!(failure(&future.clone().await.unwrap_err()), Some(1));
        assert_eq!(failure(&future.exception().unwrap()), Some(1));
        assert!(future.done() && !future.cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn cancelling_who_awaits_it_cancels_it() {
    run(async {
        let future = Outcome::<()>::new();
        let task = asyncio::create_task(future.clone());
        turns(1).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(future.cancelled());
        assert_eq!(format!("{future:?}"), "<Future cancelled>");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_value_that_comes_with_a_request_stays() {
    run(async {
        let future = Outcome::new();
        let task = asyncio::create_task(future.clone());
        turns(1).await?;
        future.set_result(7)?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(future.await?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_hundred_thousand_who_wait_no_more_leave_nothing_behind() {
    run(async {
        let future = Outcome::<u32>::new();
        for _ in 0..100_000 {
            let waits = future.clone();
            let task = asyncio::create_task(waits);
            turns(1).await?;
            task.abort();
            turns(1).await?;
        }
        let tasks: Vec<_> = (0..2).map(|_| asyncio::create_task(future.clone())).collect();
        turns(1).await?;
        assert_eq!(future.waiting(), 2);
        future.set_result(7)?;
        let outcomes = asyncio::gather(tasks).return_exceptions().await?;
        assert_eq!(*outcomes[0].as_ref().unwrap(), 7);
        assert!(
            outcomes[1].as_ref().unwrap_err().is_misuse(),
            "taken by the first"
        );
        Ok(())
    })
    .unwrap();
}
