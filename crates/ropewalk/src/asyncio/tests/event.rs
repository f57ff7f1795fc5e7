use super::*;
use crate::asyncio::Event;

#[test]
fn a_set_wakes_all_who_wait_even_if_it_is_cleared_at_once() {
    run(async {
        let event = Rc::new(Event::new());
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let event = event.clone();
                asyncio::create_task(async move { Ok(event.wait().await?) })
            })
            .collect();
        turns(1).await?;
        assert_eq!(format!("{event:?}"), "<Event [unset, waiters:3]>");
        event.set();
        event.clear();
        asyncio::gather(tasks).await?;
        assert!(!event.is_set());
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_event_that_is_set_is_not_waited_for() {
    run(async {
        let event = Event::new();
        event.set();
        event.set();
        asyncio::current_task().unwrap().cancel();
        assert_eq!(event.wait().await, Ok(()), "no wait, no cancellation");
        asyncio::current_task().unwrap().uncancel();
        event.clear();
        assert!(
            asyncio::wait_for(event.wait(), seconds(1))
                .await
                .unwrap_err()
                .is_timeout()
        );
        assert_eq!(format!("{event:?}"), "<Event [unset]>");
        Ok(())
    })
    .unwrap();
}
