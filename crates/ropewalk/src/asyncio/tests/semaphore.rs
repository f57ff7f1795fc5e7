use super::*;
use crate::asyncio::{BoundedSemaphore, Semaphore};
use std::cell::Cell;

#[test]
fn so_many_are_in_and_no_more() {
    run(async {
        let semaphore = Rc::new(Semaphore::new(3));
        let (inside, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (semaphore, inside, most) = (semaphore.clone(), inside.clone(), most.clone());
                asyncio::create_task(async move {
                    let _permit = semaphore.acquire().await?;
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    asyncio::sleep(seconds(1)).await?;
                    inside.set(inside.get() - 1);
                    Ok(())
                })
            })
            .collect();
        turns(1).await?;
        assert!(semaphore.locked());
        assert_eq!(format!("{semaphore:?}"), "<Semaphore [locked, waiters:7]>");
        asyncio::gather(tasks).await?;
        assert_eq!((most.get(), now()), (3, 4.0));
        assert_eq!(format!("{semaphore:?}"), "<Semaphore [unlocked, value:3]>");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_permit_that_comes_with_a_cancellation_goes_to_the_next() {
    run(async {
        let semaphore = Rc::new(Semaphore::new(0));
        let waits = || {
            let semaphore = semaphore.clone();
            asyncio::create_task(async move {
                semaphore.acquire().await?.forget();
                Ok(())
            })
        };
        let (first, second) = (waits(), waits());
        turns(1).await?;
        semaphore.release(); // the first one's
        first.cancel();
        second.await?;
        assert!(first.cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn release_adds_a_permit_and_a_bounded_one_refuses() {
    run(async {
        let semaphore = Semaphore::new(0);
        assert!(semaphore.try_acquire().is_none());
        semaphore.release();
        semaphore.acquire().await?.forget();
        assert!(semaphore.locked());

        let bounded = BoundedSemaphore::new(1);
        assert!(bounded.release().unwrap_err().is_misuse());
        bounded.acquire().await?.forget();
        bounded.release()?;
        assert!(bounded.release().unwrap_err().is_misuse());

        // Given back before its guard is dropped, it comes back once.
        let permit = bounded.acquire().await?;
        bounded.release()?;
        drop(permit);
        assert_eq!(
            format!("{bounded:?}"),
            "BoundedSemaphore(<Semaphore [unlocked, value:1]>)"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn ten_thousand_waiters_leave_in_any_order() {
    run(async {
        let semaphore = Rc::new(Semaphore::new(0));
        let tasks: Vec<_> = (0..10_000)
            .map(|_| {
                let semaphore = semaphore.clone();
                asyncio::create_task(async move {
                    semaphore.acquire().await?.forget();
                    Ok(())
                })
            })
            .collect();
        turns(1).await?;
        for task in tasks.iter().rev().step_by(10) {
            task.cancel();
        }
        turns(1).await?;
        let left = tasks.iter().filter(|task| !task.done()).count();
        assert_eq!(left, 9000);
        (0..left).for_each(|_| semaphore.release());
        turns(1).await?;
        assert!(tasks.iter().all(|task| task.done()));
        Ok(())
    })
    .unwrap();
}
