//! What a stack of its own adds to the rules that `coroutine_cpython` holds both kinds to.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "stackful")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ropewalk::coroutine::{Coroutine, Error, State, Step, stackful};

fn echo() -> Coroutine<'static, i32, i32> {
    Coroutine::stackful(|co| {
        let mut value = 0;
        loop {
            value = co.yield_(value)?;
        }
    })
    .unwrap()
}

#[test]
fn it_yields_from_a_callback_of_ordinary_code() {
    let comparisons = Coroutine::<(i32, i32), bool, Vec<i32>>::stackful(|co| {
        let mut items = vec![3, 1, 2];
        items.sort_by(|&a, &b| match co.yield_((a, b)) {
            Ok(true) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        });
        Ok(items)
    })
    .unwrap();
    let mut step = comparisons.prime().unwrap();
    let sorted = loop {
        match step {
            Step::Yielded((a, b)) => step = comparisons.send(a < b).unwrap(),
            Step::Returned(items) => break items,
        }
    };
    assert_eq!(sorted, [1, 2, 3]);
}

#[test]
fn it_follows_a_life() {
    let coroutine = echo();
    assert_eq!(
        (coroutine.state(), coroutine.send(1)),
        (State::Created, Err(Error::NotStarted))
    );
    assert_eq!(coroutine.next(), Ok(Step::Yielded(0)));
    assert_eq!(coroutine.send(5), Ok(Step::Yielded(5)));
    assert_eq!(coroutine.close(), Ok(None));
    assert_eq!(
        (coroutine.state(), coroutine.next()),
        (State::Closed, Err(Error::Finished))
    );
}

#[test]
fn dropping_closes_and_drops_what_is_on_the_stack() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = log.clone();
    let coroutine = Coroutine::<()>::stackful(move |co| {
        let result = co.yield_(());
        inside.borrow_mut().push(result);
        result
    })
    .unwrap();
    coroutine.prime().unwrap();
    drop(coroutine);
    assert_eq!(*log.borrow(), [Err(Error::GeneratorExit)]);
    assert_eq!(Rc::strong_count(&log), 1);
}

#[test]
fn one_that_never_heeds_the_exit_is_unwound_when_dropped() {
    let owned = Rc::new(());
    let inside = owned.clone();
    let coroutine = Coroutine::<()>::stackful(move |co| {
        let _inside = inside;
        loop {
            co.yield_(()).ok();
        }
    })
    .unwrap();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.close(), Err(Error::IgnoredGeneratorExit));
    drop(coroutine);
    assert_eq!(Rc::strong_count(&owned), 1);
}

#[test]
fn a_panic_passes_through_and_closes() {
    let coroutine = Coroutine::<()>::stackful(|_co| panic!("out of cheese")).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| coroutine.next())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"out of cheese"));
    assert_eq!(coroutine.state(), State::Closed);
}

#[test]
fn both_kinds_delegate_to_each_other() {
    let outer = Coroutine::<i32, i32>::new(|mut co| async move {
        let middle = Coroutine::stackful(|co| {
            let inner = Coroutine::new(|mut co| async move { Ok(co.yield_(1).await? + co.yield_(2).await?) });
            let sum = co.yield_from(inner)?;
            co.yield_from_iter([sum])
        });
        co.yield_from(middle.unwrap()).await?;
        co.yield_from(echo()).await
    });
    assert_eq!(outer.next(), Ok(Step::Yielded(1)));
    assert_eq!(outer.send(20), Ok(Step::Yielded(2)));
    assert_eq!(outer.send(22), Ok(Step::Yielded(42)));
    assert_eq!(outer.next(), Ok(Step::Yielded(0)));
    assert_eq!(outer.send(7), Ok(Step::Yielded(7)));
    assert_eq!(outer.close(), Ok(None));
}

#[test]
fn a_thousand_are_suspended_at_once() {
    let coroutines = (0..1000).map(|_| echo()).collect::<Vec<_>>();
    for coroutine in &coroutines {
        coroutine.prime().unwrap();
    }
    for (coroutine, value) in coroutines.iter().zip(0..) {
        assert_eq!(coroutine.send(value), Ok(Step::Yielded(value)));
    }
}

#[test]
fn nested_calls_pass_errors_up_with_the_question_mark() {
    fn descend(co: &stackful::Co<'_, u32, (), &'static str>, depth: u32) -> Result<u32, Error<&'static str>> {
        match depth {
            0 => co.yield_(0).map(|()| 0),
            _ => Ok(descend(co, depth - 1)? + 1),
        }
    }
    let coroutine = Coroutine::stackful(|co| descend(co, 100)).unwrap();
    coroutine.prime().unwrap();
    assert_eq!(
        coroutine.throw("from outside"),
        Err(Error::Raised("from outside"))
    );

    let coroutine = Coroutine::stackful(|co| descend(co, 100)).unwrap();
    coroutine.prime().unwrap();
    assert_eq!(coroutine.next(), Ok(Step::Returned(100)));
}
