use super::*;
use crate::asyncio::{Condition, Lock, Task};

fn waits(condition: &Rc<Condition>, log: &Log, name: &'static str) -> Task<()> {
    let (condition, log) = (condition.clone(), log.clone());
    asyncio::create_task(async move {
        let mut guard = condition.acquire().await?;
        let outcome = guard.wait().await;
        assert!(condition.locked(), "held again, cancelled or not");
        log.note(format!("{name} {}", outcome.is_ok()));
        Ok(outcome?)
    })
}

#[test]
fn notify_wakes_so_many_in_the_order_of_their_coming() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let condition = Rc::new(Condition::new());
        let tasks = ["a", "b", "c", "d"].map(|name| waits(&condition, &log, name));
        turns(1).await?;
        assert_eq!(format!("{condition:?}"), "<Condition [unlocked, waiters:4]>");
        let guard = condition.acquire().await?;
        condition.notify(2);
        drop(guard);
        asyncio::sleep(seconds(1)).await?;
        log.note("two");
        condition.notify_all();
        asyncio::gather(tasks).await?;
        condition.notify(9); // nobody: nothing
        Ok(())
    })
    .unwrap();
    seen.is(["a true", "b true", "two", "c true", "d true"]);
}

#[test]
fn a_notification_that_comes_with_a_cancellation_goes_to_another() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let condition = Rc::new(Condition::new());
        let [first, second] = ["first", "second"].map(|name| waits(&condition, &log, name));
        turns(1).await?;
        condition.notify(1);
        first.cancel();
        second.await?;
        assert!(first.cancelled());
        Ok(())
    })
    .unwrap();
    seen.is(["first false", "second true"]);
}

#[test]
fn who_is_cancelled_has_the_lock_before_it_is_told() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let condition = Rc::new(Condition::new());
        let task = waits(&condition, &log, "waiter");
        turns(1).await?;
        let guard = condition.acquire().await?;
        task.cancel();
        turns(3).await?;
        task.cancel(); // while it waits for the lock: stays pending
        turns(3).await?;
        log.note(format!("holds it, waiter done: {}", task.done()));
        drop(guard);
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!condition.locked());
        Ok(())
    })
    .unwrap();
    seen.is(["holds it, waiter done: false", "waiter false"]);
}

#[test]
fn a_wait_that_is_dropped_leaves_the_lock_to_others() {
    run(async {
        let condition = Rc::new(Condition::new());
        let task = waits(&condition, &Log::default(), "dropped");
        turns(1).await?;
        task.abort();
        turns(2).await?;
        assert_eq!(format!("{condition:?}"), "<Condition [unlocked]>");
        let _guard = condition.acquire().await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn conditions_that_share_a_lock_keep_each_other_out_and_wake_their_own() {
    asyncio::testing::orders(0..50, || async {
        let lock = Rc::new(Lock::new());
        let conditions = [(); 2].map(|()| Rc::new(Condition::with_lock(lock.clone())));
        let log = Log::default();
        let [one, other] = [(&conditions[0], "one"), (&conditions[1], "other")]
            .map(|(condition, name)| waits(condition, &log, name));
        asyncio::sleep(seconds(1)).await?;
        let held = lock.acquire().await?;
        conditions[1].notify_all();
        asyncio::sleep(seconds(1)).await?;
        log.note("holds it");
        drop(held);
        other.await?;
        conditions[0].notify_all();
        one.await?;
        log.is(["holds it", "other true", "one true"]);
        Ok(())
    })
    .unwrap();
}
