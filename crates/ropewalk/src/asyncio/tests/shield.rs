use super::*;
use crate::asyncio::shield;

#[test]
fn the_task_goes_on_when_who_awaits_it_is_cancelled() {
    run(async {
        let kept = Rc::new(RefCell::new(None));
        let slot = kept.clone();
        let outer = asyncio::create_task(async move {
            let mut inner = after(5);
            let outcome = shield(&mut inner).await;
            *slot.borrow_mut() = Some(inner);
            outcome
        });
        asyncio::sleep(seconds(1)).await?;
        outer.cancel();
        assert!(outer.await.unwrap_err().is_cancelled());
        assert_eq!(now(), 1.0);
        let inner = kept.take().unwrap();
        assert_eq!(inner.cancelling(), 0);
        assert_eq!(inner.await?, 5);
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_outcome_passes_through_and_so_does_a_cancellation_of_the_task_itself() {
    run(async {
        assert_eq!(shield(&mut after(1)).await?, 1);
        assert_eq!(
            failure(&shield(&mut failing_after(1)).await.unwrap_err()),
            Some(1)
        );
        let mut inner = after(9);
        inner.cancel();
        assert!(shield(&mut inner).await.unwrap_err().is_cancelled());
        assert_eq!(asyncio::current_task().unwrap().cancelling(), 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_outcome_that_comes_with_the_request_stays_in_the_task() {
    run(async {
        let kept = Rc::new(RefCell::new(None));
        let slot = kept.clone();
        let inner = after(1);
        let handle = (*inner).clone();
        let outer = asyncio::create_task(async move {
            let mut inner = inner;
            let outcome = shield(&mut inner).await;
            *slot.borrow_mut() = Some(inner.result());
            outcome
        });
        while !handle.done() {
            asyncio::sleep(Duration::ZERO).await?;
            asyncio::sleep(Duration::from_millis(500)).await?;
        }
        // Done in this turn or before; if the outer task has not run yet, the request comes first.
        if outer.cancel() {
            assert!(outer.await.unwrap_err().is_cancelled());
        } else {
            assert_eq!(outer.await?, 1);
            kept.take();
            return Ok(());
        }
        assert_eq!(kept.take().unwrap()?, 1);
        Ok(())
    })
    .unwrap();
}
