use super::*;
use crate::asyncio::{GetNowaitError, LifoQueue, PriorityQueue, PutNowaitError, Queue, QueueShutDown};

fn is_shut_down<T>(outcome: Result<T>) -> bool {
    outcome.is_err_and(|error| error.downcast_ref::<QueueShutDown>().is_some())
}

#[test]
fn items_come_oldest_newest_or_least_first() {
    run(async {
        let (fifo, lifo, least) = (Queue::new(0), LifoQueue::new(0), PriorityQueue::new(0));
        for number in [2, 3, 1] {
            fifo.put(number).await?;
            lifo.put(number).await?;
            least.put_nowait(number)?;
        }
        assert_eq!((fifo.qsize(), fifo.full(), fifo.maxsize()), (3, false, 0));
        assert_eq!(
            [fifo.get().await?, fifo.get().await?, fifo.get().await?],
            [2, 3, 1]
        );
        assert_eq!(
            [lifo.get().await?, lifo.get().await?, lifo.get().await?],
            [1, 3, 2]
        );
        assert_eq!(
            [least.get().await?, least.get().await?, least.get().await?],
            [1, 2, 3]
        );
        assert!(fifo.empty());
        assert_eq!(fifo.get_nowait(), Err(GetNowaitError::Empty));
        Ok(())
    })
    .unwrap();
}

#[test]
fn put_waits_for_room_and_get_for_an_item_in_the_order_of_their_coming() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let queue = Rc::new(Queue::new(1));
        let putters: Vec<_> = (0..3)
            .map(|number| {
                let (queue, log) = (queue.clone(), log.clone());
                asyncio::create_task(async move {
                    queue.put(number).await?;
                    log.note(format!("put {number}"));
                    Ok(())
                })
            })
            .collect();
        turns(1).await?;
        assert!(queue.full());
        assert_eq!(queue.put_nowait(9), Err(PutNowaitError::Full(9)));
        for _ in 0..3 {
            log.note(format!("got {}", queue.get().await?));
            turns(1).await?;
        }
        asyncio::gather(putters).await?;
        let getters: Vec<_> = (0..3)
            .map(|number| {
                let (queue, log) = (queue.clone(), log.clone());
                asyncio::create_task(async move {
                    log.note(format!("getter {number}: {}", queue.get().await?));
                    Ok(())
                })
            })
            .collect();
        turns(1).await?;
        for number in 10..13 {
            queue.put(number).await?;
        }
        asyncio::gather(getters).await?;
        Ok(())
    })
    .unwrap();
    seen.is([
        "put 0",
        "got 0",
        "put 1",
        "got 1",
        "put 2",
        "got 2",
        "getter 0: 10",
        "getter 1: 11",
        "getter 2: 12",
    ]);
}

#[test]
fn a_getter_that_is_cancelled_takes_no_item_with_it() {
    run(async {
        let queue = Rc::new(Queue::new(0));
        let gets = || {
            let queue = queue.clone();
            asyncio::create_task(async move { queue.get().await })
        };
        let (first, second) = (gets(), gets());
        turns(1).await?;
        queue.put_nowait("flag")?; // the first one's
        first.cancel();
        assert_eq!(second.await?, "flag");
        assert!(first.cancelled());
        // With nobody else, it stays.
        let alone = gets();
        turns(1).await?;
        queue.put_nowait("kept")?;
        alone.cancel();
        turns(1).await?;
        assert!(alone.cancelled());
        assert_eq!(queue.get_nowait(), Ok("kept"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_putter_that_is_cancelled_puts_nothing_and_leaves_its_room() {
    run(async {
        let queue = Rc::new(Queue::new(1));
        queue.put(0).await?;
        let puts = |number| {
            let queue = queue.clone();
            asyncio::create_task(async move { queue.put(number).await })
        };
        let (first, second) = (puts(1), puts(2));
        turns(1).await?;
        assert_eq!(queue.get().await?, 0); // room for the first one
        first.cancel();
        second.await?;
        assert!(first.cancelled());
        assert_eq!(queue.get().await?, 2);
        assert!(queue.empty());
        Ok(())
    })
    .unwrap();
}

#[test]
fn join_waits_until_every_item_is_done() {
    run(async {
        let queue = Rc::new(Queue::new(0));
        queue.join().await?;
        for number in 0..3 {
            queue.put(number).await?;
        }
        let worker = queue.clone();
        drop(asyncio::create_task(async move {
            loop {
                asyncio::sleep(seconds(worker.get().await?)).await?;
                worker.task_done()?;
            }
            #[allow(unreachable_code)]
            Ok(())
        }));
        queue.join().await?;
        assert_eq!(now(), 3.0);
        assert!(queue.task_done().unwrap_err().is_misuse());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_shutdown_lets_the_items_out_and_nobody_in() {
    run(async {
        let queue = Rc::new(Queue::new(1));
        queue.put(1).await?;
        let putter = queue.clone();
        let putter = asyncio::create_task(async move { putter.put(2).await });
        turns(1).await?;
        queue.shutdown(false);
        assert!(is_shut_down(putter.await));
        assert!(is_shut_down(queue.put(3).await));
        assert_eq!(queue.put_nowait(4), Err(PutNowaitError::ShutDown(4)));
        assert_eq!(queue.get().await?, 1);
        assert!(is_shut_down(queue.get().await));
        assert_eq!(queue.get_nowait(), Err(GetNowaitError::ShutDown));
        queue.shutdown(false);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_shutdown_ends_those_who_wait_for_items() {
    run(async {
        let queue = Rc::new(Queue::<u8>::new(0));
        let getter = queue.clone();
        let getter = asyncio::create_task(async move { getter.get().await });
        turns(1).await?;
        queue.shutdown(false);
        assert!(is_shut_down(getter.await));
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_immediate_shutdown_drops_the_items_and_ends_join() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        let queue = Rc::new(Queue::new(0));
        let getter = queue.clone();
        let getter = asyncio::create_task(async move { getter.get().await });
        turns(1).await?;
        queue.put(Witness::new(&log)).await?; // promised to the getter, who has not taken it
        queue.put(Witness::new(&log)).await?;
        let joiner = queue.clone();
        let joiner = asyncio::create_task(async move { Ok(joiner.join().await?) });
        turns(0).await?;
        queue.shutdown(true);
        log.note("shut down");
        assert!(is_shut_down(getter.await));
        joiner.await
    })
    .unwrap();
    seen.is(["dropped", "dropped", "shut down"]);
}

#[test]
fn in_every_order_with_cancellations_each_item_arrives_once() {
    testing::orders(0..200, || async {
        let queue = Rc::new(Queue::new(2));
        let got = Rc::new(RefCell::new(Vec::new()));
        let getters: Vec<_> = (0..6)
            .map(|_| {
                let (queue, got) = (queue.clone(), got.clone());
                asyncio::create_task(async move {
                    loop {
                        let item = queue.get().await?;
                        got.borrow_mut().push(item);
                        turns(item % 2).await?;
                    }
                    #[allow(unreachable_code)]
                    Ok(())
                })
            })
            .collect();
        let putter = queue.clone();
        let putter = asyncio::create_task(async move {
            for item in 0..20usize {
                putter.put(item).await?;
            }
            Ok(())
        });
        for getter in &getters[..5] {
            turns(1).await?;
            getter.cancel();
        }
        putter.await?;
        while got.borrow().len() < 20 {
            turns(1).await?; // hangs if an item is lost
        }
        let mut got = got.take();
        got.sort_unstable();
        assert_eq!(got, (0..20).collect::<Vec<_>>());
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_item_that_panics_as_a_shutdown_drops_it_keeps_nobody_waiting() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    run(async {
        let queue = Rc::new(Queue::new(1));
        queue.put(Some(Panics)).await?;
        let other = queue.clone();
        let putter = asyncio::create_task(async move { other.put(None).await });
        turns(1).await?;
        let shutdown = std::panic::AssertUnwindSafe(|| queue.shutdown(true));
        assert!(std::panic::catch_unwind(shutdown).is_err());
        assert!(is_shut_down(asyncio::wait_for(putter, seconds(9)).await));
        assert!(is_shut_down(asyncio::wait_for(queue.get(), seconds(9)).await));
        Ok(queue.join().await?)
    })
    .unwrap();
}
