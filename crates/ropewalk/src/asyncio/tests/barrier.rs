use super::*;
use crate::asyncio::{Barrier, BrokenBarrier, Task};

fn comes(barrier: &Rc<Barrier>) -> Task<usize> {
    let barrier = barrier.clone();
    asyncio::create_task(async move { barrier.wait().await })
}

fn is_broken(error: &asyncio::Error) -> bool {
    error.downcast_ref::<BrokenBarrier>().is_some()
}

#[test]
fn all_go_on_when_all_are_there_again_and_again() {
    run(async {
        let barrier = Rc::new(Barrier::new(3));
        for _ in 0..3 {
            let tasks = [comes(&barrier), comes(&barrier)];
            turns(2).await?;
            assert_eq!((barrier.n_waiting(), barrier.parties()), (2, 3));
            assert_eq!(format!("{barrier:?}"), "<Barrier [filling, waiters:2/3]>");
            assert_eq!(barrier.wait().await?, 2);
            assert_eq!(asyncio::gather(tasks).await?, [0, 1]);
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn who_comes_while_the_others_go_belongs_to_the_next_round() {
    run(async {
        let barrier = Rc::new(Barrier::new(2));
        let tasks: Vec<_> = (0..6).map(|_| comes(&barrier)).collect();
        let mut places = asyncio::gather(tasks).await?;
        places.sort_unstable();
        assert_eq!(places, [0, 0, 0, 1, 1, 1]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn who_is_cancelled_leaves_and_another_takes_its_place() {
    run(async {
        let barrier = Rc::new(Barrier::new(2));
        let first = comes(&barrier);
        turns(1).await?;
        first.cancel();
        turns(1).await?;
        assert!(first.cancelled());
        assert_eq!(barrier.n_waiting(), 0);
        let second = comes(&barrier);
        turns(1).await?;
        assert_eq!(barrier.wait().await?, 1);
        assert_eq!(second.await?, 0);
        Ok(())
    })
    .unwrap();
}

#[test]
fn reset_fails_those_inside_and_abort_those_who_come() {
    run(async {
        let barrier = Rc::new(Barrier::new(2));
        let inside = comes(&barrier);
        turns(1).await?;
        barrier.reset();
        assert!(is_broken(&inside.await.unwrap_err()) && !barrier.broken());
        let inside = comes(&barrier);
        turns(1).await?;
        barrier.abort();
        assert!(barrier.broken());
        assert!(is_broken(&inside.await.unwrap_err()));
        assert!(is_broken(&barrier.wait().await.unwrap_err()));
        barrier.reset();
        asyncio::gather([comes(&barrier), comes(&barrier)]).await?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_places_of_a_round_are_all_there_though_some_left_it() {
    testing::orders(0..100, || async {
        let barrier = Rc::new(Barrier::new(3));
        let mut tasks: Vec<_> = (0..2).map(|_| comes(&barrier)).collect();
        asyncio::sleep(seconds(1)).await?;
        let left = tasks.remove(0);
        left.cancel();
        asyncio::sleep(seconds(1)).await?;
        assert!(left.cancelled());
        tasks.extend((0..2).map(|_| comes(&barrier)));
        let mut places = asyncio::gather(tasks).await?;
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_every_order_each_round_has_every_place_once() {
    testing::orders(0..100, || async {
        let barrier = Rc::new(Barrier::new(4));
        let tasks: Vec<_> = (0..12).map(|_| comes(&barrier)).collect();
        let mut places = asyncio::gather(tasks).await?;
        places.sort_unstable();
        assert_eq!(places, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        Ok(())
    })
    .unwrap();
}
