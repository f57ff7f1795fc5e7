use super::*;
use crate::asyncio::{ReturnWhen, as_completed, wait};

#[test]
fn wait_for_the_first_for_the_first_failure_and_for_all() {
    run(async {
        let mut tasks = vec![after(3), after(1), failing_after(2)];
        let first = wait(&mut tasks, None, ReturnWhen::FirstCompleted).await?;
        assert_eq!((first.len(), tasks.len(), now()), (1, 2, 1.0));
        let failed = wait(&mut tasks, None, ReturnWhen::FirstException).await?;
        assert_eq!((failed.len(), tasks.len(), now()), (1, 1, 2.0));
        assert_eq!(failure(&failed[0].exception().unwrap()), Some(2));
        let mut all = wait(&mut tasks, None, ReturnWhen::AllCompleted).await?;
        assert_eq!((all[0].result()?, tasks.len(), now()), (3, 0, 3.0));
        assert!(wait(&mut tasks, None, ReturnWhen::AllCompleted).await?.is_empty());
        Ok(())
    })
    .unwrap();
}

#[test]
fn wait_takes_no_longer_than_it_may_and_cancels_nothing() {
    run(async {
        let mut tasks = vec![after(1), after(9)];
        let mut done = wait(&mut tasks, seconds(4), ReturnWhen::AllCompleted).await?;
        assert_eq!(now(), 4.0);
        assert_eq!(done[0].result()?, 1);
        assert_eq!(tasks.pop().unwrap().await?, 9);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_wait_moves_nothing_and_cancels_nothing() {
    run(async {
        for timeout in [None, Some(seconds(50))] {
            let kept = Rc::new(RefCell::new(Vec::new()));
            let tasks = kept.clone();
            let waiting = asyncio::create_task(async move {
                let mut all = vec![after(1), after(9)];
                let outcome = wait(&mut all, timeout, ReturnWhen::AllCompleted).await;
                *tasks.borrow_mut() = all;
                outcome.map(drop)
            });
            asyncio::sleep(seconds(2)).await?;
            waiting.cancel();
            assert!(waiting.await.unwrap_err().is_cancelled());
            let tasks = kept.take();
            assert!(tasks.len() == 2 && tasks[0].done() && !tasks[1].done());
            assert_eq!(tasks[1].cancelling(), 0);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn as_completed_gives_each_once_in_the_order_of_their_ends() {
    run(async {
        let mut completed = as_completed([after(3), after(1), failing_after(2)], None);
        let mut seen = Vec::new();
        while let Some(task) = completed.next().await? {
            seen.push((now(), task.await.map_err(|error| failure(&error).unwrap())));
        }
        assert_eq!(seen, [(1.0, Ok(1)), (2.0, Err(2)), (3.0, Ok(3))]);
        assert!(completed.next().await?.is_none());
        Ok(())
    })
    .unwrap();
}

#[test]
fn as_completed_says_when_the_time_is_over_and_goes_on() {
    run(async {
        let mut completed = as_completed([after(1), after(5)], seconds(3));
        assert!(completed.next().await?.is_some());
        assert!(completed.next().await.unwrap_err().is_timeout());
        assert_eq!(now(), 3.0);
        assert_eq!(format!("{completed:?}"), "<AsCompleted 1 of 2 left>");
        Ok(())
    })
    .unwrap();
}

#[test]
fn as_completed_mixes_coroutines_and_calls_in_threads() {
    use std::pin::Pin;
    type Mixed = Pin<Box<dyn Future<Output = Result<&'static str>>>>;
    asyncio::run(async {
        let futures: [Mixed; 2] = [
            Box::pin(asyncio::to_thread(|| "thread")),
            Box::pin(async { Ok("coroutine") }),
        ];
        let mut completed = as_completed(futures, None);
        let mut seen = Vec::new();
        while let Some(task) = completed.next().await? {
            seen.push(task.await?);
        }
        seen.sort_unstable();
        assert_eq!(seen, ["coroutine", "thread"]);
        Ok(())
    })
    .unwrap();
}
