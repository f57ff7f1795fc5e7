//! The rules of PEP 342 and PEP 380, one test a rule.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ropewalk::coroutine::{Co, Coroutine, Error, State, Step};

type Log = Rc<RefCell<Vec<String>>>;

fn log() -> (Log, impl Fn(&str) + Clone + 'static) {
    let log = Log::default();
    let writer = log.clone();
    (log, move |line: &str| writer.borrow_mut().push(line.to_owned()))
}

/// Yields what it was sent, forever; a thrown error below zero is handled and yielded.
fn echo() -> Coroutine<'static, i32, i32, (), i32> {
    Coroutine::new(|mut co| async move {
        let mut value = 0;
        loop {
            value = match co.yield_(value).await {
                Err(Error::Raised(error)) if error < 0 => error,
                received => received?,
            };
        }
    })
}

#[test]
fn states_follow_a_life() {
    let coroutine = echo();
    assert_eq!(coroutine.state(), State::Created);
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.state(), State::Suspended);
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(coroutine.state(), State::Closed);
}

#[test]
fn nothing_runs_before_the_first_resume() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        write("ran");
        co.yield_(()).await
    });
    assert!(log.borrow().is_empty());
    assert_eq!(coroutine.next(), Ok(Step::Yielded(())));
    assert_eq!(*log.borrow(), ["ran"]);
}

#[test]
fn send_gives_the_yield_its_value_and_next_gives_the_default() {
    let coroutine = echo();
    assert_eq!(coroutine.prime(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.send(7), Ok(Step::Yielded(7)));
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
}

#[test]
fn send_before_the_start_is_an_error_and_changes_nothing() {
    let coroutine = echo();
    assert_eq!(coroutine.send(7), Err(Error::NotStarted));
    assert_eq!(coroutine.state(), State::Created);
    assert_eq!(coroutine.prime(), Ok(Step::Yielded(0)));
}

#[test]
fn priming_twice_is_an_error_and_changes_nothing() {
    let coroutine = echo();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.prime(), Err(Error::AlreadyStarted));
    assert_eq!(coroutine.send(5), Ok(Step::Yielded(5)));
}

#[test]
fn a_return_value_comes_once_and_then_it_is_finished() {
    let coroutine = Coroutine::<(), (), _>::new(|_co| async { Ok(42) });
    assert_eq!(coroutine.next(), Ok(Step::Returned(42)));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(coroutine.next(), Err(Error::Finished));
    assert_eq!(coroutine.send(()), Err(Error::Finished));
    assert_eq!(coroutine.prime(), Err(Error::Finished));
}

#[test]
fn an_error_inside_ends_it_and_reaches_the_caller() {
    let coroutine = Coroutine::<_, i32, (), String>::new(|mut co| async move {
        let sent = co.yield_("ready").await?;
        Err(format!("cannot use {sent}"))?
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.send(3), Err(Error::Raised("cannot use 3".to_owned())));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(coroutine.send(4), Err(Error::Finished));
}

#[test]
fn a_handled_throw_gives_the_next_yielded_value() {
    let coroutine = echo();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.throw(-3), Ok(Step::Yielded(-3)));
    assert_eq!(coroutine.send(1), Ok(Step::Yielded(1)));
}

#[test]
fn an_unhandled_throw_ends_it_and_comes_back() {
    let coroutine = echo();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.throw(3), Err(Error::Raised(3)));
    assert_eq!(coroutine.state(), State::Closed);
}

#[test]
fn throw_before_the_start_closes_without_running() {
    let (log, write) = log();
    let coroutine = Coroutine::<(), (), (), i32>::new(|_co| async move {
        write("ran");
        Ok(())
    });
    assert_eq!(coroutine.throw(3), Err(Error::Raised(3)));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(coroutine.next(), Err(Error::Finished));
    assert!(log.borrow().is_empty());
}

#[test]
fn throw_after_the_end_comes_straight_back() {
    let coroutine = echo();
    coroutine.close().unwrap();
    assert_eq!(coroutine.throw(3), Err(Error::Raised(3)));
    assert_eq!(coroutine.throw(Error::GeneratorExit), Err(Error::GeneratorExit));
}

#[test]
fn a_thrown_generator_exit_reaches_the_caller_unless_handled() {
    let coroutine = echo();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.throw(Error::GeneratorExit), Err(Error::GeneratorExit));

    let stubborn = Coroutine::<_, ()>::new(|mut co| async move {
        co.yield_(1).await.ok();
        co.yield_(2).await
    });
    stubborn.prime().unwrap();
    assert_eq!(stubborn.throw(Error::GeneratorExit), Ok(Step::Yielded(2)));
}

#[test]
fn close_runs_the_clean_up_once() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        let result = co.yield_(()).await;
        write("clean-up");
        result
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(coroutine.close(), Ok(None));
    drop(coroutine);
    assert_eq!(*log.borrow(), ["clean-up"]);
}

#[test]
fn close_before_the_start_never_runs_the_body() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|_co| async move {
        write("ran");
        Ok(())
    });
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(coroutine.next(), Err(Error::Finished));
    assert!(log.borrow().is_empty());
}

#[test]
fn close_gives_what_the_body_returns_on_its_way_out() {
    let coroutine = Coroutine::<(), (), i32>::new(|mut co| async move {
        let exit = co.yield_(()).await;
        assert_eq!(exit, Err(Error::GeneratorExit));
        Ok(42)
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(Some(42)));
}

#[test]
fn an_error_in_clean_up_reaches_the_closer() {
    let coroutine = Coroutine::<(), (), (), &str>::new(|mut co| async move {
        co.yield_(()).await.or(Err("disk full"))?;
        Ok(())
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Err(Error::Raised("disk full")));
    assert_eq!(coroutine.state(), State::Closed);
}

#[test]
fn yielding_when_closed_is_an_error_and_leaves_it_suspended() {
    let coroutine = Coroutine::<_>::new(|mut co| async move {
        co.yield_(1).await.ok();
        co.yield_(2).await
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Err(Error::IgnoredGeneratorExit));
    assert_eq!(coroutine.state(), State::Suspended);
    assert_eq!(coroutine.close(), Ok(None));
}

#[test]
fn dropping_closes() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        let result = co.yield_(()).await;
        write(&format!("{result:?}"));
        result
    });
    coroutine.prime().unwrap();
    drop(coroutine);
    assert_eq!(*log.borrow(), ["Err(GeneratorExit)"]);
}

#[test]
fn an_ended_body_is_dropped_at_once() {
    let owned = Rc::new(());
    let inside = owned.clone();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        let _inside = inside;
        co.yield_(()).await
    });
    coroutine.prime().unwrap();
    assert_eq!(Rc::strong_count(&owned), 2);
    coroutine.close().unwrap();
    assert_eq!(Rc::strong_count(&owned), 1);
}

#[test]
fn a_resume_from_inside_is_an_error() {
    let own = Rc::new(Cell::new(None::<Rc<Coroutine<'static, State, (), ()>>>));
    let inside = own.clone();
    let coroutine = Rc::new(Coroutine::<State>::new(|mut co| async move {
        let own = inside.take().unwrap();
        assert_eq!(own.next(), Err(Error::AlreadyExecuting));
        assert_eq!(own.send(()), Err(Error::AlreadyExecuting));
        assert_eq!(own.prime(), Err(Error::AlreadyExecuting));
        assert_eq!(own.throw(Error::GeneratorExit), Err(Error::AlreadyExecuting));
        assert_eq!(own.close(), Err(Error::AlreadyExecuting));
        let state = own.state();
        drop(own);
        co.yield_(state).await
    }));
    own.set(Some(coroutine.clone()));
    assert_eq!(coroutine.next(), Ok(Step::Yielded(State::Running)));
    assert_eq!(coroutine.state(), State::Suspended);
}

#[test]
fn a_panic_passes_through_and_closes() {
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        co.yield_(()).await?;
        panic!("out of cheese")
    });
    coroutine.prime().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| coroutine.next())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"out of cheese"));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(coroutine.next(), Err(Error::Finished));
    assert_eq!(coroutine.close(), Ok(None));
}

#[test]
fn a_panic_in_a_sub_coroutine_closes_the_whole_chain() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        struct OnDrop<F: Fn(&str)>(F);
        impl<F: Fn(&str)> Drop for OnDrop<F> {
            fn drop(&mut self) {
                self.0("dropped");
            }
        }
        let _guard = OnDrop(write);
        co.yield_from(Coroutine::new(|_co| async { panic!("deep down") }))
            .await
    });
    assert!(catch_unwind(AssertUnwindSafe(|| coroutine.next())).is_err());
    assert_eq!(coroutine.state(), State::Closed);
    drop(coroutine);
    assert_eq!(*log.borrow(), ["dropped"]);
}

#[test]
fn stop_iteration_that_escapes_a_body_is_an_error() {
    let coroutine = Coroutine::<()>::new(|_co| async {
        let exhausted = Coroutine::<()>::new(|_co| async { Ok(()) });
        let _ = exhausted.next()?;
        let _ = exhausted.next()?;
        Ok(())
    });
    assert_eq!(coroutine.next(), Err(Error::RaisedStopIteration));
}

#[test]
fn awaiting_something_foreign_ends_it_with_an_error() {
    let coroutine = Coroutine::<()>::new(|_co| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    assert_eq!(coroutine.next(), Err(Error::ForeignAwait));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(coroutine.next(), Err(Error::Finished));

    let outer = Coroutine::<i32>::new(|mut co| async move {
        let sub = Coroutine::new(|_co| async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert_eq!(co.yield_from(sub).await, Err(Error::ForeignAwait));
        co.yield_(1).await
    });
    assert_eq!(outer.next(), Ok(Step::Yielded(1)));
}

#[test]
fn it_is_an_iterator_where_nothing_is_sent() {
    let squares = Coroutine::<u32>::new(|mut co| async move {
        for n in 1.. {
            co.yield_(n * n).await?;
        }
        Ok(())
    });
    assert_eq!(squares.skip(1).take(3).collect::<Vec<_>>(), [4, 9, 16]);

    let mut one = Coroutine::<u32, (), &str>::new(|mut co| async move {
        co.yield_(1).await?;
        Ok("the return value ends the iteration")
    });
    assert_eq!(one.by_ref().collect::<Vec<_>>(), [1]);
    assert_eq!(Iterator::next(&mut one), None);
}

#[test]
fn a_body_may_borrow() {
    let words = ["laid".to_owned(), "strand".to_owned()];
    let lengths = Coroutine::<(&str, usize)>::new(|mut co| async move {
        let lengths = words.iter().map(|word| word.len()).collect::<Vec<_>>();
        co.yield_(("first", lengths[0])).await?;
        co.yield_(("second", lengths[1])).await
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [("first", 4), ("second", 6)]);

    let total = Cell::new(0);
    let total = &total;
    let adder = Coroutine::<(), i32>::new(|mut co| async move {
        loop {
            total.set(total.get() + co.yield_(()).await?);
        }
    });
    adder.prime().unwrap();
    adder.send(4).unwrap();
    adder.send(5).unwrap();
    assert_eq!(total.get(), 9);
}

#[test]
fn helpers_of_the_body_yield_through_a_borrowed_channel() {
    async fn twice(co: &mut Co<'_, i32, i32>, value: i32) -> Result<i32, Error> {
        Ok(co.yield_(value).await? + co.yield_(value).await?)
    }
    let coroutine = Coroutine::<_, _, i32>::new(|mut co| async move {
        let sum = twice(&mut co, 1).await?;
        Ok(sum + twice(&mut co, 2).await?)
    });
    coroutine.prime().unwrap();
    let steps = [10, 20, 30, 40].map(|value| coroutine.send(value).unwrap());
    assert_eq!(
        steps,
        [
            Step::Yielded(1),
            Step::Yielded(2),
            Step::Yielded(2),
            Step::Returned(100)
        ]
    );
}

/// `depth` coroutines that delegate, around `echo`.
fn chain(depth: u32) -> Coroutine<'static, i32, i32, (), i32> {
    match depth {
        0 => echo(),
        _ => Coroutine::new(move |mut co| async move { co.yield_from(chain(depth - 1)).await }),
    }
}

#[test]
fn values_and_errors_reach_the_innermost_through_a_chain() {
    let coroutine = chain(50);
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.send(8), Ok(Step::Yielded(8)));
    assert_eq!(coroutine.throw(-1), Ok(Step::Yielded(-1)));
    assert_eq!(coroutine.throw(1), Err(Error::Raised(1)));
    assert_eq!(coroutine.state(), State::Closed);
}

#[test]
fn a_chain_a_hundred_thousand_deep_overflows_nothing() {
    let coroutine = chain(100_000);
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.send(8), Ok(Step::Yielded(8)));
    assert_eq!(coroutine.close(), Ok(None));
    let abandoned = chain(100_000);
    abandoned.prime().unwrap();
    drop(abandoned);
}

#[test]
fn what_a_sub_coroutine_returns_is_the_value_of_yield_from() {
    let coroutine = Coroutine::<(), i32, String>::new(|mut co| async move {
        let sum = Coroutine::new(|mut co| async move { Ok(co.yield_(()).await? + co.yield_(()).await?) });
        let sum: i32 = co.yield_from(sum).await?;
        Ok(format!("sum {sum}"))
    });
    coroutine.prime().unwrap();
    coroutine.send(20).unwrap();
    assert_eq!(coroutine.send(22), Ok(Step::Returned("sum 42".to_owned())));
}

#[test]
fn an_error_of_a_sub_coroutine_can_be_handled_by_the_delegator() {
    let coroutine = Coroutine::<i32, (), (), i32>::new(|mut co| async move {
        let failing = Coroutine::new(|mut co| async move {
            co.yield_(1).await?;
            Err::<(), _>(Error::Raised(13))
        });
        assert_eq!(co.yield_from(failing).await, Err(Error::Raised(13)));
        co.yield_(2).await
    });
    assert_eq!(coroutine.next(), Ok(Step::Yielded(1)));
    assert_eq!(coroutine.next(), Ok(Step::Yielded(2)));
}

#[test]
fn a_started_sub_coroutine_goes_on_as_by_next() {
    let coroutine = Coroutine::new(|mut co| async move {
        let sub = chain(3);
        sub.prime()?;
        sub.send(5)?;
        co.yield_from(sub).await
    });
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.send(6), Ok(Step::Yielded(6)));
}

#[test]
fn delegating_to_a_finished_coroutine_is_an_error() {
    let coroutine = Coroutine::<i32, i32, (), i32>::new(|mut co| async move {
        let sub = echo();
        sub.close()?;
        assert_eq!(co.yield_from(sub).await, Err(Error::Finished));
        Ok(())
    });
    assert_eq!(coroutine.next(), Ok(Step::Returned(())));
}

fn noisy_chain(write: impl Fn(&str) + Clone + 'static, depth: u32) -> Coroutine<'static, u32> {
    Coroutine::new(move |mut co| async move {
        let result = match depth {
            0 => co.yield_(0).await,
            _ => co.yield_from(noisy_chain(write.clone(), depth - 1)).await,
        };
        write(&format!("{depth}: {result:?}"));
        result
    })
}

#[test]
fn close_and_drop_clean_up_a_chain_innermost_first() {
    let (log, write) = log();
    let lines = [
        "0: Err(GeneratorExit)",
        "1: Err(GeneratorExit)",
        "2: Err(GeneratorExit)",
    ];
    let coroutine = noisy_chain(write.clone(), 2);
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(*log.borrow(), lines);

    log.borrow_mut().clear();
    let coroutine = noisy_chain(write, 2);
    coroutine.prime().unwrap();
    drop(coroutine);
    assert_eq!(*log.borrow(), lines);
}

#[test]
fn a_sub_coroutine_that_returns_when_closed_does_not_stop_the_close() {
    let coroutine = Coroutine::<(), (), &str>::new(|mut co| async move {
        let sub = Coroutine::new(|mut co| async move {
            co.yield_(()).await.ok();
            Ok("from the sub-coroutine")
        });
        assert_eq!(co.yield_from(sub).await, Err(Error::GeneratorExit));
        Ok("from the delegator")
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(Some("from the delegator")));
}

#[test]
fn an_error_in_a_sub_coroutines_clean_up_is_raised_in_the_delegator() {
    let coroutine = Coroutine::<(), (), (), &str>::new(|mut co| async move {
        let sub = Coroutine::new(|mut co| async move {
            co.yield_(()).await.or(Err("disk full"))?;
            Ok(())
        });
        co.yield_from(sub).await
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Err(Error::Raised("disk full")));
}

#[test]
fn a_sub_coroutine_that_ignores_the_exit_is_an_error_in_the_delegator() {
    let (log, write) = log();
    let coroutine = Coroutine::<u32>::new(|mut co| async move {
        let stubborn = Coroutine::new(|mut co| async move {
            co.yield_(1).await.ok();
            let second = co.yield_(2).await;
            write(&format!("second time: {second:?}"));
            second
        });
        co.yield_from(stubborn).await
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Err(Error::IgnoredGeneratorExit));
    assert_eq!(coroutine.state(), State::Closed);
    assert_eq!(*log.borrow(), ["second time: Err(GeneratorExit)"]);
}

#[test]
fn clean_up_may_itself_delegate_as_long_as_it_does_not_yield() {
    let (log, write) = log();
    let coroutine = Coroutine::<()>::new(|mut co| async move {
        let result = co.yield_(()).await;
        co.yield_from(Coroutine::new(|_co| async move {
            write("delegated clean-up");
            Ok(())
        }))
        .await?;
        result
    });
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(*log.borrow(), ["delegated clean-up"]);
}

#[test]
fn any_iterator_is_a_sub_coroutine_that_takes_next_only() {
    let over = || Coroutine::<i32, i32>::new(|mut co| async move { co.yield_from_iter([1, 2, 3]).await });
    let coroutine = over();
    let steps = [(); 4].map(|()| coroutine.next().unwrap());
    assert_eq!(
        steps,
        [
            Step::Yielded(1),
            Step::Yielded(2),
            Step::Yielded(3),
            Step::Returned(())
        ]
    );

    let coroutine = over();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.send(9), Err(Error::NoSend));
    assert_eq!(coroutine.state(), State::Closed);

    let coroutine = over();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Ok(None));
}

#[test]
fn an_abandoned_yield_from_leaves_no_trace() {
    let coroutine = Coroutine::<i32>::new(|mut co| async move {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let sub = Coroutine::new(|mut co| async move { co.yield_(13).await });
        let mut delegation = Box::pin(co.yield_from(sub));
        assert!(delegation.as_mut().poll(&mut context).is_pending());
        drop(delegation);
        co.yield_(1).await?;
        std::future::pending().await
    });
    assert_eq!(coroutine.next(), Ok(Step::Yielded(1)));
    assert_eq!(coroutine.next(), Err(Error::ForeignAwait));
}

#[test]
fn a_yield_that_is_never_awaited_is_lost() {
    let coroutine = Coroutine::<i32>::new(|mut co| async move {
        drop(co.yield_(13));
        co.yield_(1).await?;
        drop(co.yield_(13));
        co.yield_from_iter([2]).await?;
        drop(co.yield_(13));
        co.yield_from(Coroutine::new(|mut co| async move { co.yield_(3).await }))
            .await
    });
    assert_eq!(coroutine.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn errors_tell_what_happened() {
    let messages = [
        (Error::Raised("own words"), "own words"),
        (
            Error::NotStarted,
            "can't send a value to a just-started coroutine",
        ),
        (Error::AlreadyExecuting, "coroutine already executing"),
        (Error::IgnoredGeneratorExit, "coroutine ignored GeneratorExit"),
        (Error::RaisedStopIteration, "coroutine raised StopIteration"),
    ];
    for (error, message) in messages {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/coroutine_compile_fail/*.rs");
}
