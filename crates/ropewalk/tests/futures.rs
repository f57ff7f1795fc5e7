//! What users of `ropewalk::futures` rely on.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashSet;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use ropewalk::futures::{
    Error, Executor, Future, MapOptions, Promise, ReturnWhen, State, Task, ThreadPoolExecutor, as_completed,
    wait,
};

fn pool(workers: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder().max_workers(workers).build()
}

/// A call that says when it has begun and ends when told to.
struct Gate {
    begun: Receiver<()>,
    open: Sender<()>,
    future: Future<&'static str>,
}

impl Gate {
    fn in_pool(pool: &ThreadPoolExecutor) -> Self {
        let (begins, begun) = mpsc::channel();
        let (open, opens) = mpsc::channel::<()>();
        let call = move || {
            begins.send(()).unwrap();
            opens.recv().unwrap();
            "through the gate"
        };
        let gate = Self {
            begun,
            open,
            future: pool.submit(call).unwrap(),
        };
        gate.begun.recv().unwrap();
        gate
    }

    fn open(&self) {
        self.open.send(()).unwrap();
    }
}

#[test]
fn a_result_comes_back_once() {
    let future = pool(1).submit(|| String::from("flag")).unwrap();
    assert_eq!(future.result().unwrap(), "flag");
    assert!(future.result().unwrap_err().is_taken());
    assert!(future.exception().is_none());
}

#[test]
fn a_value_that_nobody_takes_is_dropped() {
    let value = Arc::new(());
    let kept = value.clone();
    let future = pool(1).submit(move || kept).unwrap();
    wait([future.clone()], None, ReturnWhen::AllCompleted);
    assert_eq!(Arc::strong_count(&value), 2);
    drop(future);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_panic_is_carried_to_the_result_and_the_worker_lives_on() {
    let pool = pool(1);
    let future = pool.submit(|| -> () { std::panic::panic_any(7_u8) }).unwrap();
    let error = future.result().unwrap_err();
    assert!(error.is_panic());
    assert_eq!(error.into_panic().unwrap().downcast_ref::<u8>(), Some(&7));
    assert_eq!(pool.submit(|| 1).unwrap().result().unwrap(), 1);
    assert_eq!(pool.threads(), 1);
}

/// Fails when it is dropped.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("a value that cannot be dropped");
    }
}

#[test]
fn a_value_that_panics_when_dropped_does_not_end_the_worker() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    drop(pool.submit(|| Brittle).unwrap());
    let next = pool.submit(|| 1).unwrap();
    gate.open();
    assert_eq!(next.result_timeout(Duration::from_secs(60)).unwrap(), 1);
}

#[test]
fn what_a_call_holds_is_dropped_when_it_will_not_be_made() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let held = Arc::new(());
    let in_call = held.clone();
    let future = pool.submit(move || drop(in_call)).unwrap();
    pool.shutdown(false, true);
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(future.cancelled());
    gate.open();

    let broken = ThreadPoolExecutor::builder()
        .max_workers(1)
        .initializer(|| panic!("no network"))
        .build();
    let in_call = held.clone();
    let future = broken.submit(move || drop(in_call)).unwrap();
    assert!(future.exception().unwrap().is_broken());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_waker_that_panics_keeps_the_next_watcher_from_nothing() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that fails");
        }
    }
    let (promise, mut future) = Promise::new();
    let waker = Waker::from(Arc::new(Panics));
    assert!(
        Pin::new(&mut future)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    let told = Arc::new(AtomicBool::new(false));
    let flag = told.clone();
    future.add_done_callback(move |_| flag.store(true, Ordering::Relaxed));
    promise.set_result(1);
    assert!(told.load(Ordering::Relaxed));
}

#[test]
fn every_thread_that_shuts_down_waits_until_all_is_over() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let shut_down = || {
            pool.shutdown(true, false);
            assert!(over.load(Ordering::Relaxed));
        };
        scope.spawn(shut_down);
        scope.spawn(shut_down);
        while pool.submit(|| ()).is_ok() {
            thread::yield_now();
        }
        // Time for both to return too early; too little of it fails nothing.
        thread::sleep(Duration::from_millis(20));
        over.store(true, Ordering::Relaxed);
        gate.open();
    });
}

#[test]
fn two_workers_that_shut_their_pool_down_do_not_wait_for_each_other() {
    let pool = Arc::new(pool(2));
    let gate = Gate::in_pool(&pool);
    let first = pool.clone();
    let first = pool.submit(move || first.shutdown(true, false)).unwrap();
    let second = pool.clone();
    gate.future
        .add_done_callback(move |_| second.shutdown(true, false));
    while pool.submit(|| ()).is_ok() {
        thread::yield_now();
    }
    // Time for the first to wait for the second; too little of it fails nothing.
    thread::sleep(Duration::from_millis(20));
    gate.open();
    first.result_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_queued_call_can_be_cancelled_and_never_runs() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let ran = Arc::new(AtomicBool::new(false));
    let flag = ran.clone();
    let future = pool.submit(move || flag.store(true, Ordering::Relaxed)).unwrap();
    assert_eq!(future.state(), State::Pending);
    assert!(future.cancel() && future.cancel());
    assert!(future.cancelled() && future.done() && !future.running());
    assert!(future.result().unwrap_err().is_cancelled());
    assert!(future.exception().unwrap().is_cancelled());
    gate.open();
    drop(pool);
    assert_eq!(future.state(), State::CancelledAndNotified);
    assert!(!ran.load(Ordering::Relaxed));
}

#[test]
fn a_running_call_cannot_be_cancelled() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    assert!(gate.future.running());
    assert!(!gate.future.cancel());
    gate.open();
    assert_eq!(gate.future.result().unwrap(), "through the gate");
    assert!(!gate.future.cancel());
}

#[test]
fn a_time_out_leaves_the_call_alone() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    assert!(
        gate.future
            .result_timeout(Duration::from_millis(1))
            .unwrap_err()
            .is_timeout()
    );
    assert!(
        gate.future
            .result_timeout(Duration::ZERO)
            .unwrap_err()
            .is_timeout()
    );
    gate.open();
    assert_eq!(
        gate.future.result_timeout(Duration::MAX).unwrap(),
        "through the gate"
    );
}

#[test]
fn callbacks_run_in_order_and_at_once_when_done() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let calls = Arc::new(Mutex::new(Vec::new()));
    for number in 0..3 {
        let calls = calls.clone();
        gate.future.add_done_callback(move |future| {
            assert!(future.done());
            calls.lock().unwrap().push(number);
        });
    }
    gate.future.add_done_callback(|_| panic!("a callback that fails"));
    gate.open();
    gate.future.result().unwrap();
    drop(pool);
    let late = calls.clone();
    gate.future
        .add_done_callback(move |_| late.lock().unwrap().push(9));
    assert_eq!(*calls.lock().unwrap(), [0, 1, 2, 9]);
}

#[test]
fn an_idle_thread_is_used_before_a_new_one_is_started() {
    let pool = pool(8);
    for _ in 0..50 {
        pool.submit(|| ()).unwrap().result().unwrap();
        while pool.idle_threads() < pool.threads() {
            thread::yield_now();
        }
    }
    assert_eq!(pool.threads(), 1);
}

#[test]
fn threads_start_on_demand_up_to_the_limit() {
    let pool = pool(3);
    assert_eq!(pool.threads(), 0);
    let all = Arc::new(Barrier::new(3));
    let futures: Vec<_> = (0..3)
        .map(|_| {
            let all = all.clone();
            pool.submit(move || all.wait().is_leader()).unwrap()
        })
        .collect();
    assert_eq!(
        futures.iter().filter(|future| future.result().unwrap()).count(),
        1
    );
    for _ in 0..20 {
        pool.submit(|| ()).unwrap();
    }
    assert_eq!(pool.threads(), 3);
}

#[test]
fn threads_bear_the_prefix_and_a_number() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .thread_name_prefix("flags")
        .build();
    let name = pool
        .submit(|| thread::current().name().map(str::to_owned))
        .unwrap();
    assert_eq!(name.result().unwrap().as_deref(), Some("flags_0"));
}

#[test]
fn submitting_after_shutdown_is_an_error() {
    let pool = pool(1);
    let future = pool.submit(|| 1).unwrap();
    pool.shutdown(true, false);
    pool.shutdown(true, false);
    assert_eq!(future.result().unwrap(), 1);
    let error = pool.submit(|| 2).unwrap_err();
    assert!(error.is_shutdown());
    assert_eq!(error.to_string(), "cannot schedule new futures after shutdown");
}

#[test]
fn shutdown_can_cancel_what_has_not_begun() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let queued: Vec<_> = (0..10).map(|n| pool.submit(move || n).unwrap()).collect();
    pool.shutdown(false, true);
    assert!(queued.iter().all(Future::cancelled));
    gate.open();
    assert_eq!(gate.future.result().unwrap(), "through the gate");
}

#[test]
fn dropping_the_pool_waits_for_what_is_queued() {
    let done = Arc::new(AtomicUsize::new(0));
    let pool = pool(2);
    for _ in 0..100 {
        let done = done.clone();
        pool.submit(move || done.fetch_add(1, Ordering::Relaxed)).unwrap();
    }
    drop(pool);
    assert_eq!(done.load(Ordering::Relaxed), 100);
}

#[test]
fn a_pool_dropped_by_its_own_worker_does_not_wait_for_itself() {
    let (give, take) = mpsc::channel::<Arc<ThreadPoolExecutor>>();
    let pool = Arc::new(pool(1));
    let (dropped, drops) = mpsc::channel();
    let future = pool
        .submit(move || {
            drop(take.recv().unwrap());
            dropped.send(()).unwrap();
        })
        .unwrap();
    give.send(pool).unwrap();
    drops.recv().unwrap();
    future.result().unwrap();
}

#[test]
fn a_failing_initializer_breaks_the_pool() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(2)
        .initializer(|| panic!("no network"))
        .build();
    let error = pool.submit(|| 1).unwrap().result().unwrap_err();
    assert!(error.is_broken());
    assert!(
        error.to_string().ends_with("the call panicked: no network"),
        "{error}"
    );
    assert!(pool.submit(|| 1).unwrap_err().is_broken());
}

#[test]
fn a_bounded_pool_makes_its_submitter_wait() {
    let pool = ThreadPoolExecutor::builder()
        .max_workers(1)
        .max_pending(2)
        .build();
    let gate = Gate::in_pool(&pool);
    let futures = thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            (0..20)
                .map(|n| pool.submit(move || n).unwrap())
                .collect::<Vec<_>>()
        });
        while pool.pending() < 2 {
            thread::yield_now();
        }
        assert!(!submitter.is_finished());
        gate.open();
        submitter.join().unwrap()
    });
    let results: Result<Vec<_>, _> = futures.iter().map(Future::result).collect();
    assert_eq!(results.unwrap(), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_call_that_fills_its_own_pool_gets_an_error_instead_of_a_deadlock() {
    let pool = Arc::new(
        ThreadPoolExecutor::builder()
            .max_workers(1)
            .max_pending(1)
            .build(),
    );
    let own = pool.clone();
    let error = pool.submit(move || {
        own.submit(|| ()).unwrap();
        own.submit(|| ()).unwrap_err()
    });
    assert!(error.unwrap().result().unwrap().is_full());
}

#[test]
fn map_keeps_the_order_and_ends_at_the_first_failure() {
    let pool = pool(4);
    let results: Vec<_> = pool.map(|n: i32| 12 / n, [3, 2, 0, 1]).unwrap().collect();
    assert_eq!(results.len(), 3);
    assert_eq!(
        (*results[0].as_ref().unwrap(), *results[1].as_ref().unwrap()),
        (4, 6)
    );
    assert!(results[2].as_ref().unwrap_err().is_panic());
}

#[test]
fn map_takes_no_more_items_than_its_buffer_holds() {
    let pool = pool(2);
    let taken = AtomicUsize::new(0);
    let items = (0..100).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
    let options = MapOptions {
        buffersize: Some(3),
        ..Default::default()
    };
    let mut results = pool.map_with(options, |n| n, items).unwrap();
    assert_eq!(taken.load(Ordering::Relaxed), 3);
    for expected in 0..100 {
        assert_eq!(results.next().unwrap().unwrap(), expected);
        assert!(taken.load(Ordering::Relaxed) <= expected + 4);
    }
    assert!(results.next().is_none());
    let nothing = MapOptions {
        buffersize: Some(0),
        ..Default::default()
    };
    let Err(error) = pool.map_with(nothing, |n: i32| n, [1]) else {
        panic!("accepted")
    };
    assert_eq!(error.to_string(), "buffersize must be None or > 0");
}

#[test]
fn a_map_that_is_dropped_cancels_the_rest() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    drop(
        pool.map(move |_: i32| count.fetch_add(1, Ordering::Relaxed), 0..50)
            .unwrap(),
    );
    gate.open();
    drop(pool);
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[test]
fn map_out_of_time_says_so() {
    let pool = pool(1);
    let gate = Gate::in_pool(&pool);
    let options = MapOptions {
        timeout: Some(Duration::from_millis(1)),
        ..Default::default()
    };
    let mut results = pool.map_with(options, |n: i32| n, [1, 2]).unwrap();
    assert!(results.next().unwrap().unwrap_err().is_timeout());
    assert!(results.next().is_none());
    gate.open();
}

#[test]
fn wait_returns_when_it_is_told_to() {
    let pool = pool(4);
    let gate = Gate::in_pool(&pool);
    let quick = pool.submit(|| "quick").unwrap();
    let first = wait(
        [gate.future.clone(), quick.clone(), quick],
        None,
        ReturnWhen::FirstCompleted,
    );
    assert_eq!((first.done.len(), first.not_done.len()), (1, 1));

    let failing = pool.submit(|| -> &str { panic!("a failing one") }).unwrap();
    let failed = wait([gate.future.clone(), failing], None, ReturnWhen::FirstException);
    assert_eq!((failed.done.len(), failed.not_done.len()), (1, 1));

    let now = wait(
        [gate.future.clone()],
        Some(Duration::ZERO),
        ReturnWhen::AllCompleted,
    );
    assert_eq!((now.done.len(), now.not_done.len()), (0, 1));

    gate.open();
    let all = wait([gate.future.clone()], None, ReturnWhen::AllCompleted);
    assert_eq!((all.done.len(), all.not_done.len()), (1, 0));
    let none = wait(Vec::<Future<()>>::new(), None, ReturnWhen::FirstCompleted);
    assert_eq!((none.done.len(), none.not_done.len()), (0, 0));
}

#[test]
fn as_completed_yields_each_once_in_order_of_completion() {
    let promises: Vec<_> = (0..3).map(|_| Promise::new()).collect();
    let (promises, futures): (Vec<_>, Vec<_>) = promises.into_iter().unzip();
    let mut promises: Vec<_> = promises.into_iter().map(Some).collect();
    promises[1].take().unwrap().set_result(1);
    let mut completed = as_completed(futures.iter().cloned().chain(futures.iter().cloned()), None);
    for next in [1, 2, 0] {
        if let Some(promise) = promises[next].take() {
            promise.set_result(next);
        }
        assert_eq!(completed.next().unwrap().unwrap().result().unwrap(), next);
    }
    assert!(completed.next().is_none());
}

#[test]
fn as_completed_out_of_time_counts_the_unfinished() {
    let (promise, future) = Promise::<()>::new();
    let (other, second) = Promise::<()>::new();
    promise.set_result(());
    let mut completed = as_completed([future, second], Some(Duration::from_millis(1)));
    assert!(completed.next().unwrap().is_ok());
    let error = completed.next().unwrap().unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(error.to_string(), "1 (of 2) futures unfinished");
    assert!(completed.next().is_none());
    drop(other);
}

#[test]
fn a_promise_dropped_cancels_or_fails() {
    let (promise, future) = Promise::<()>::new();
    drop(promise);
    assert!(future.result().unwrap_err().is_cancelled());
    let (promise, future) = Promise::<()>::new();
    assert!(promise.start());
    assert!(!future.cancel());
    drop(promise);
    assert!(future.result().unwrap_err().is_broken());
    let (promise, future) = Promise::new();
    assert!(future.cancel());
    assert!(!promise.start());
    promise.set_result(Arc::new(1));
    assert!(future.result().unwrap_err().is_cancelled());
}

/// Runs a task in the thread that submits it: an executor is whatever runs tasks.
struct Inline;

impl Executor for Inline {
    fn execute(&self, task: Task) -> Result<(), Error> {
        task.run();
        Ok(())
    }

    fn shutdown(&self, _wait: bool, _cancel_futures: bool) {}
}

#[test]
fn an_executor_of_ones_own_needs_two_methods() {
    assert_eq!(Inline.submit(|| 5).unwrap().result().unwrap(), 5);
    let all: Result<Vec<_>, _> = Inline.map(|n: i32| n + 1, [1, 2]).unwrap().collect();
    assert_eq!(all.unwrap(), [2, 3]);
}

#[test]
fn a_future_is_awaited_on_tokio_and_on_smol() {
    let pool = pool(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gate = Gate::in_pool(&pool);
    let value = runtime.block_on(async {
        let task = gate.future.clone();
        let waiter = async move { task.await.unwrap() };
        tokio::join!(waiter, async { gate.open() }).0
    });
    assert_eq!(value, "through the gate");
    let gate = Gate::in_pool(&pool);
    let value = smol::block_on(async {
        let both = smol::future::zip(gate.future.clone(), async { gate.open() });
        both.await.0.unwrap()
    });
    assert_eq!(value, "through the gate");
    let cancelled = Promise::<()>::new().1;
    assert!(smol::block_on(cancelled).unwrap_err().is_cancelled());
}

#[test]
fn many_threads_submit_to_one_pool() {
    let pool = pool(4);
    let threads = thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let futures: Vec<_> = (0..500)
                    .map(|n| pool.submit(move || (thread, n, thread::current().id())).unwrap())
                    .collect();
                for (n, future) in futures.iter().enumerate() {
                    let (from, number, _) = future.result().unwrap();
                    assert_eq!((from, number), (thread, n));
                }
            });
        }
        (0..100)
            .map(|_| pool.submit(|| thread::current().id()).unwrap().result().unwrap())
            .collect::<HashSet<_>>()
    });
    assert!(threads.len() <= 4);
}

#[test]
fn a_hundred_thousand_calls_wait_their_turn() {
    let pool = pool(2);
    let gates = [Gate::in_pool(&pool), Gate::in_pool(&pool)];
    let futures: Vec<_> = (0..100_000).map(|n| pool.submit(move || n).unwrap()).collect();
    assert_eq!(pool.pending(), 100_000);
    gates.iter().for_each(Gate::open);
    let sum: usize = futures.iter().map(|future| future.result().unwrap()).sum();
    assert_eq!(sum, 99_999 * 100_000 / 2);
}
