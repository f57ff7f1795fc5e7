use super::*;
use crate::asyncio::EventLoop;

#[test]
fn what_is_left_at_the_end_is_cancelled_and_cleans_up() {
    let log = Log::default();
    let seen = log.clone();
    run(async move {
        drop(asyncio::create_task(async move {
            let outcome = asyncio::sleep(seconds(3600)).await;
            asyncio::sleep(seconds(2)).await?;
            log.note(format!("cleaned up @{}", now()));
            Ok(outcome?)
        }));
        asyncio::sleep(seconds(1)).await?;
        Ok(())
    })
    .unwrap();
    seen.is(["cleaned up @3"]);
}

#[test]
fn a_failure_of_the_main_coroutine_is_returned_after_the_clean_up() {
    let log = Log::default();
    let seen = log.clone();
    let error = run::<()>(async move {
        drop(asyncio::create_task(async move {
            let outcome = asyncio::sleep(seconds(3600)).await;
            log.note("cleaned up");
            Ok(outcome?)
        }));
        turns(1).await?;
        Err(std::fmt::Error.into())
    })
    .unwrap_err();
    assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    seen.is(["cleaned up"]);
}

#[test]
fn a_panic_of_the_main_coroutine_goes_on_after_the_clean_up() {
    let log = Log::default();
    let seen = log.clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run::<()>(async move {
            drop(asyncio::create_task(async move {
                let outcome = asyncio::sleep(seconds(3600)).await;
                log.note("cleaned up");
                Ok(outcome?)
            }));
            turns(1).await?;
            panic!("main")
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"main"));
    seen.is(["cleaned up"]);
}

#[test]
fn a_loop_within_a_loop_is_an_error() {
    run(async {
        let error = asyncio::run(async { Ok(()) }).unwrap_err();
        assert!(error.is_misuse() && error.to_string().contains("another event loop"));
        let own = asyncio::get_running_loop()?;
        let error = own.run_until_complete(async { Ok(()) }).unwrap_err();
        assert!(error.is_misuse() && error.to_string().contains("already running"));
        assert!(own.close().unwrap_err().is_misuse());
        Ok(())
    })
    .unwrap();
    assert!(asyncio::get_running_loop().is_err());
}

#[test]
fn a_runner_runs_several_coroutines_on_one_loop() {
    let runner = Runner::with_loop(testing::virtual_clock().unwrap());
    let task = runner
        .run(async {
            Ok(asyncio::create_task(async {
                asyncio::sleep(seconds(1)).await?;
                Ok(now())
            }))
        })
        .unwrap();
    assert_eq!(runner.run(task).unwrap(), 1.0);
}

#[test]
fn a_failure_during_the_clean_up_is_told() {
    let log = Log::default();
    let event_loop = testing::virtual_clock().unwrap();
    let told = log.clone();
    event_loop.set_exception_handler(Some(move |_: &EventLoop, context: &asyncio::ExceptionContext| {
        told.note(context.message);
    }));
    let task = Rc::new(RefCell::new(None));
    let kept = task.clone();
    Runner::with_loop(event_loop)
        .run(async move {
            *kept.borrow_mut() = Some(asyncio::create_task(async {
                let _ = asyncio::sleep(seconds(3600)).await;
                Err::<(), _>(std::fmt::Error.into())
            }));
            turns(1).await
        })
        .unwrap();
    log.is(["unhandled exception during asyncio.run() shutdown"]);
    assert!(task.take().unwrap().exception().is_some());
}

#[test]
#[should_panic(expected = "no running event loop")]
fn a_task_outside_a_loop_is_refused() {
    drop(asyncio::create_task(async { Ok(()) }));
}
