use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::asyncio::{EventLoop, ExceptionContext, TaskGroup, net};

/// Awaits what must not wait, outside any loop.
fn outside<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits"),
    }
}

fn panics<T>(call: impl FnOnce() -> T) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    let payload = payload.err().expect("a panic");
    match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => payload.downcast_ref::<String>().unwrap().clone(),
    }
}

#[test]
fn outside_a_loop_calls_fail_and_say_where_they_belong() {
    let forever = || std::future::pending::<Result<()>>();
    let group = TaskGroup::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    for error in [
        asyncio::get_running_loop().unwrap_err(),
        outside(asyncio::timeout(seconds(1)).run(forever())).unwrap_err(),
        outside(asyncio::wait_for(forever(), seconds(1))).unwrap_err(),
        outside(group.run(async |_| Ok(()))).unwrap_err(),
        outside(asyncio::to_thread(|| ())).unwrap_err(),
    ] {
        assert!(error.is_misuse(), "{error}");
        assert!(error.to_string().contains("inside `asyncio::run`"), "{error}");
    }
    let error = net::TcpListener::bind(address).map(drop).unwrap_err();
    assert!(error.to_string().contains("inside `asyncio::run`"), "{error}");
    // What cannot return an error panics, and says so.
    for said in [
        panics(|| asyncio::create_task(async { Ok(()) })),
        panics(|| asyncio::ensure_future(async { Ok(()) })),
        panics(|| group.create_task(async { Ok(()) })),
        panics(|| asyncio::gather([async { Ok(()) }])),
        panics(|| outside(asyncio::sleep(seconds(1)))),
    ] {
        assert_eq!(said, "no running event loop: call it inside `asyncio::run`");
    }
}

#[test]
fn a_closed_loop_refuses_descriptors_signals_and_calls() {
    let event_loop = EventLoop::new().unwrap();
    let remote = event_loop.remote();
    event_loop.close().unwrap();
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for error in [
        event_loop.add_reader(&one, || ()).unwrap_err(),
        event_loop.add_writer(&one, || ()).unwrap_err(),
        event_loop.remove_reader(&one).unwrap_err(),
        event_loop.add_signal_handler(libc::SIGPROF, || ()).unwrap_err(),
        event_loop.run_in_executor(|| ()).map(drop).unwrap_err(),
        remote.call_soon_threadsafe(|| ()).unwrap_err(),
        remote
            .run_coroutine_threadsafe(|| async { Ok(()) })
            .map(drop)
            .unwrap_err(),
        event_loop.run_forever().unwrap_err(),
    ] {
        assert!(error.is_misuse());
        assert_eq!(error.to_string(), "the event loop is closed: make a new one");
    }
    assert_eq!(
        panics(|| event_loop.create_task(async { Ok(()) })),
        "the event loop is closed"
    );
    event_loop.stop();
    assert!(!event_loop.remove_signal_handler(libc::SIGPROF).unwrap());
}

#[test]
fn another_loop_is_closed_within_a_task_and_this_one_goes_on() {
    let log = Log::default();
    let witness = Witness::new(&log);
    run(async move {
        let main = asyncio::current_task().unwrap();
        let other = testing::virtual_clock().unwrap();
        let task = other.create_task(async move {
            let _witness = witness;
            Ok(())
        });
        other.close()?;
        log.is(["dropped"]);
        assert!(asyncio::current_task().unwrap().is(&main));
        assert!(
            task.await.unwrap_err().is_cancelled(),
            "what is done is anybody's to ask"
        );
        turns(1).await
    })
    .unwrap();
}

#[test]
fn a_task_of_another_loop_is_an_error_wherever_it_is_awaited() {
    let other = testing::virtual_clock().unwrap();
    let foreign = || other.create_task(async { Ok(()) });
    let [gathered, completed, ensured, waited] = std::array::from_fn(|_| foreign());
    run(async move {
        let mut completed = asyncio::as_completed([completed], None);
        for error in [
            asyncio::gather([gathered]).await.unwrap_err(),
            completed.next().await?.unwrap().await.unwrap_err(),
            asyncio::ensure_future(ensured).await.unwrap_err(),
            asyncio::wait(&mut vec![waited], None, asyncio::ReturnWhen::AllCompleted)
                .await
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(error.is_misuse());
            assert_eq!(
                error.to_string(),
                "the task belongs to another event loop: await it there"
            );
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_outlives_its_loop_and_tells_how_it_ended() {
    let log = Log::default();
    let witness = Witness::new(&log);
    let (mut finished, mut cut_off) = run(async move {
        let finished = asyncio::create_task(async move { Ok(witness) });
        let cut_off = asyncio::create_task(async { Ok(asyncio::sleep(seconds(9)).await?) });
        turns(1).await?;
        Ok((finished, cut_off))
    })
    .unwrap();
    assert!(cut_off.result().unwrap_err().is_cancelled());
    assert!(!finished.cancel() && finished.done());
    log.is([]);
    drop(finished.result().unwrap());
    log.is(["dropped"]);
}

#[test]
fn times_beyond_all_time_and_in_the_past_are_no_errors() {
    run(async {
        let event_loop = asyncio::get_running_loop()?;
        let never = [
            event_loop.call_later(Duration::MAX, || unreachable!()),
            event_loop.call_at(Duration::MAX, || unreachable!()),
        ];
        asyncio::wait_for(asyncio::sleep(seconds(5)), Duration::MAX).await?;
        asyncio::timeout_at(Duration::MAX).run(turns(1)).await?;
        assert!(never.iter().all(|handle| !handle.cancelled()));
        let log = Log::default();
        let past = log.clone();
        event_loop.call_at(Duration::ZERO, move || past.note(now()));
        turns(2).await?;
        log.is(["5"]);
        let late = asyncio::timeout_at(Duration::ZERO)
            .run(async { Ok(asyncio::sleep(seconds(1)).await?) })
            .await;
        assert!(late.unwrap_err().is_timeout());
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_exception_handler_that_panics_stops_nothing() {
    let event_loop = testing::virtual_clock().unwrap();
    let log = Log::default();
    let told = log.clone();
    event_loop.set_exception_handler(Some(move |_: &EventLoop, context: &ExceptionContext| {
        told.note(context.message);
        panic!("in the handler");
    }));
    event_loop.call_soon(|| panic!("in a callback"));
    let seen = log.clone();
    Runner::with_loop(event_loop)
        .run(async move {
            let fails = asyncio::create_task(async { Err::<(), _>(std::fmt::Error.into()) });
            fails.add_done_callback(move |_| seen.note("called back"));
            drop(fails);
            turns(2).await
        })
        .unwrap();
    log.is([
        "Exception in callback",
        "Task exception was never retrieved",
        "called back",
    ]);
}

#[test]
fn what_a_destructor_begins_while_its_loop_is_closed_is_refused_and_dropped() {
    struct Begins(EventLoop, Log);
    impl Drop for Begins {
        fn drop(&mut self) {
            let witness = Witness::new(&self.1);
            let said = panics(|| {
                self.0.create_task(async move {
                    let _witness = witness;
                    Ok(())
                })
            });
            self.1.note(said);
        }
    }
    let log = Log::default();
    let event_loop = testing::virtual_clock().unwrap();
    let begins = Begins(event_loop.clone(), log.clone());
    drop(event_loop.create_task(async move {
        let _begins = begins;
        Ok(())
    }));
    event_loop.close().unwrap();
    log.is(["dropped", "the event loop is closed"]);
}
