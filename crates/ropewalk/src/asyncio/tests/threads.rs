use super::*;
use crate::futures::{Executor, ThreadPoolExecutor};
use std::sync::mpsc;

#[test]
fn a_call_in_a_thread_gives_its_value_or_its_panic() {
    asyncio::run(async {
        let own = std::thread::current().id();
        assert_ne!(asyncio::to_thread(|| std::thread::current().id()).await?, own);
        let error = asyncio::to_thread(|| -> u8 { panic!("boom") }).await.unwrap_err();
        assert!(error.is_panic());
        Ok(())
    })
    .unwrap();
}

#[test]
fn other_tasks_run_while_a_call_is_made() {
    asyncio::run(async {
        let (sender, receiver) = mpsc::channel();
        let call = asyncio::create_task(asyncio::to_thread(move || receiver.recv().unwrap()));
        turns(3).await?;
        sender.send(7).unwrap(); // the loop was not held up, or this would never come
        assert_eq!(call.await?, 7);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_call_that_has_begun_is_not_waited_for_by_its_task_but_by_the_loop() {
    let log = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = log.clone();
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    asyncio::run(async move {
        let call = asyncio::create_task(asyncio::to_thread(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
            log.store(true, std::sync::atomic::Ordering::SeqCst);
        }));
        turns(1).await?;
        has_begun.recv().unwrap();
        call.cancel();
        assert!(call.await.unwrap_err().is_cancelled());
        drop(release);
        Ok(())
    })
    .unwrap();
    assert!(seen.load(std::sync::atomic::Ordering::SeqCst));
}

#[test]
fn a_call_that_has_not_begun_is_cancelled_with_its_task() {
    let pool = ThreadPoolExecutor::builder().max_workers(1).build();
    let (release, released) = mpsc::channel::<()>();
    let _busy = pool.submit(move || released.recv()).unwrap();
    let queued = pool.submit(|| panic!("never made")).unwrap();
    let future = queued.clone();
    asyncio::run(async move {
        let task = asyncio::create_task(asyncio::wrap_future(future));
        turns(1).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
    assert!(queued.cancelled());
    drop(release);
}

#[test]
fn a_future_that_was_cancelled_elsewhere_is_a_cancellation() {
    let (promise, future) = crate::futures::Promise::<u8>::new();
    asyncio::run(async move {
        let task = asyncio::create_task(asyncio::wrap_future(future));
        turns(1).await?;
        drop(promise);
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_thread_runs_a_coroutine_and_waits_for_it() {
    asyncio::run(async {
        let remote = asyncio::get_running_loop()?.remote();
        let answers = asyncio::to_thread(move || {
            let good = remote.run_coroutine_threadsafe(|| async {
                asyncio::sleep(Duration::ZERO).await?;
                Ok(42)
            });
            let bad = remote.run_coroutine_threadsafe(|| async { Err::<(), _>(Failure(3).into()) });
            let panics = remote.run_coroutine_threadsafe(|| async { panic!("boom") as Result<()> });
            let late = remote.run_coroutine_threadsafe(|| async {
                let slow = async { asyncio::sleep(seconds(3600)).await.map_err(asyncio::Error::from) };
                asyncio::wait_for(slow, Duration::ZERO).await
            });
            (
                good.unwrap().result(),
                bad.unwrap().result(),
                panics.unwrap().result(),
                late.unwrap().result(),
            )
        });
        let (good, bad, panics, late) = answers.await?;
        assert_eq!(good?, 42);
        let bad = bad.unwrap_err();
        assert_eq!(bad.failure().unwrap().downcast_ref(), Some(&Failure(3)));
        assert_eq!(bad.to_string(), "failure 3");
        assert_eq!(failure(&bad.into()), Some(3));
        let panics = panics.unwrap_err();
        assert!(panics.is_panic());
        assert_eq!(panics.into_panic().unwrap().downcast_ref(), Some(&"boom"));
        assert!(asyncio::Error::from(late.unwrap_err()).is_timeout());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_thread_cancels_its_coroutine_which_cleans_up() {
    asyncio::run(async {
        let remote = asyncio::get_running_loop()?.remote();
        let (waits, is_waiting) = mpsc::channel();
        let (cleaned, is_clean) = mpsc::channel();
        asyncio::to_thread(move || {
            let coroutine = move || async move {
                waits.send(()).unwrap();
                let outcome = asyncio::sleep(seconds(3600)).await;
                asyncio::sleep(Duration::ZERO).await?;
                cleaned.send(outcome.is_err()).unwrap();
                Ok(outcome?)
            };
            let future = remote.run_coroutine_threadsafe(coroutine).unwrap();
            is_waiting.recv().unwrap();
            assert!(future.cancel());
            assert!(is_clean.recv().unwrap());
        })
        .await
    })
    .unwrap();
}

#[test]
fn a_coroutine_that_the_end_of_the_loop_cancels_cancels_its_future() {
    let (give, take) = mpsc::channel();
    asyncio::run(async move {
        let remote = asyncio::get_running_loop()?.remote();
        asyncio::to_thread(move || {
            let waits = || async { Ok(asyncio::sleep(seconds(3600)).await?) };
            give.send(remote.run_coroutine_threadsafe(waits).unwrap())
                .unwrap();
        })
        .await
    })
    .unwrap();
    let future = take.recv().unwrap();
    assert!(future.result().unwrap_err().is_cancelled());
}

#[test]
fn a_call_that_asks_a_closing_loop_for_a_coroutine_is_refused_and_holds_nobody_up() {
    let (over, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        let event_loop = asyncio::EventLoop::new().unwrap();
        let remote = event_loop.remote();
        let (release, released) = mpsc::channel::<()>();
        let call = move || {
            let _ = released.recv();
            let coroutine = remote.run_coroutine_threadsafe(|| async { Ok(()) });
            coroutine.map_or(true, |future| future.result().is_err())
        };
        let call = event_loop.run_in_executor(call).unwrap();
        while !call.running() {
            std::thread::yield_now();
        }
        drop(release);
        event_loop.close().unwrap(); // waits for the call, which waits for the loop
        over.send(call.result().unwrap()).unwrap();
    });
    assert_eq!(is_over.recv_timeout(seconds(60)), Ok(true));
}
