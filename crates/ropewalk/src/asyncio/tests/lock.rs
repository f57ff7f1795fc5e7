use super::*;
use crate::asyncio::Lock;
use std::cell::Cell;

#[test]
fn tasks_enter_one_at_a_time_in_the_order_of_their_coming() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let lock = Rc::new(Lock::new());
        let tasks: Vec<_> = (0..3)
            .map(|number| {
                let (lock, log) = (lock.clone(), log.clone());
                asyncio::create_task(async move {
                    let _guard = lock.acquire().await?;
                    log.note(format!("{number} in"));
                    asyncio::sleep(seconds(3 - number)).await?;
                    log.note(format!("{number} out"));
                    Ok(())
                })
            })
            .collect();
        turns(1).await?;
        assert_eq!(format!("{lock:?}"), "<Lock [locked, waiters:2]>");
        assert!(lock.try_acquire().is_none());
        asyncio::gather(tasks).await?;
        assert!(!lock.locked() && lock.try_acquire().is_some());
        Ok(())
    })
    .unwrap();
    seen.is(["0 in", "0 out", "1 in", "1 out", "2 in", "2 out"]);
}

#[test]
fn who_comes_between_release_and_wake_up_does_not_overtake() {
    run(async {
        let lock = Rc::new(Lock::new());
        let guard = lock.acquire().await?;
        let waiter = lock.clone();
        let task = asyncio::create_task(async move {
            drop(waiter.acquire().await?);
            Ok(())
        });
        turns(1).await?;
        drop(guard);
        assert!(lock.locked(), "it is the waiter's");
        assert!(lock.try_acquire().is_none());
        task.await
    })
    .unwrap();
}

#[test]
fn a_waiter_that_is_cancelled_keeps_nobody_out() {
    run(async {
        let lock = Rc::new(Lock::new());
        let guard = lock.acquire().await?;
        let waits = || {
            let lock = lock.clone();
            asyncio::create_task(async move {
                drop(lock.acquire().await?);
                Ok(())
            })
        };
        // Cancelled while it waits, and when the lock is its own already.
        let (early, late, last) = (waits(), waits(), waits());
        turns(1).await?;
        early.cancel();
        turns(1).await?;
        assert!(early.cancelled());
        drop(guard);
        late.cancel();
        last.await?;
        assert!(late.cancelled() && !lock.locked());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_guard_is_given_back_by_a_panic_and_by_an_abort() {
    run(async {
        let lock = Rc::new(Lock::new());
        let (panics, aborted) = (lock.clone(), lock.clone());
        let task = asyncio::create_task::<(), _>(async move {
            let _guard = panics.acquire().await?;
            panic!("holding it")
        });
        assert!(task.await.unwrap_err().is_panic());
        let task = asyncio::create_task(async move {
            let _guard = aborted.acquire().await?;
            Ok(asyncio::sleep(seconds(9)).await?)
        });
        turns(1).await?;
        task.abort();
        assert!(lock.locked());
        let _guard = lock.acquire().await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_every_order_with_cancellations_one_is_in_and_none_is_left_waiting() {
    testing::orders(0..200, || async {
        let (lock, inside) = (Rc::new(Lock::new()), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (lock, inside) = (lock.clone(), inside.clone());
                asyncio::create_task(async move {
                    let _guard = lock.acquire().await?;
                    assert_eq!(inside.replace(1), 0);
                    let outcome = turns(number % 3).await;
                    inside.set(0);
                    outcome
                })
            })
            .collect();
        turns(2).await?;
        for task in tasks.iter().step_by(2) {
            task.cancel();
            turns(1).await?;
        }
        for task in tasks {
            match task.await {
                Ok(()) => {}
                Err(error) => assert!(error.is_cancelled()),
            }
        }
        assert!(!lock.locked());
        Ok(())
    })
    .unwrap();
}
