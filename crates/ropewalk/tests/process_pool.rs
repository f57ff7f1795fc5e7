//! The process pool, with this very program as its workers.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used)] // A test may fail.

use std::path::Path;
use std::time::{Duration, Instant};

use ropewalk::futures::process_pool::{Cause, Limits};
use ropewalk::futures::{Error, Future, ProcessPoolExecutor, as_completed};
use ropewalk::remote;

/// Longer than anything here takes on any machine: what lasts so long hangs.
const HANG: Duration = Duration::from_secs(60);

fn pool(workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder()
        .max_workers(workers)
        .build()
        .unwrap()
}

fn get<T>(future: Future<T>) -> Result<T, Error> {
    let result = future.result_timeout(HANG);
    assert!(future.done(), "a call hangs");
    result
}

#[remote]
fn cube(n: i64) -> i64 {
    n * n * n
}

#[remote]
fn greet(name: String, times: u8, loud: bool) -> String {
    let greeting = format!("hello {name} ").repeat(times.into());
    if loud { greeting.to_uppercase() } else { greeting }
}

#[remote]
fn own_pid() -> u32 {
    std::process::id()
}

#[remote]
fn fail(why: String) -> u8 {
    panic!("no {why}")
}

#[remote]
fn exit(code: i32) {
    std::process::exit(code)
}

#[remote]
fn signal_self(signal: i32) {
    // SAFETY: has no conditions.
    unsafe { libc::raise(signal) };
}

/// Says that it runs by making the file, and never returns.
#[remote]
fn hang(file: String) {
    std::fs::write(file, std::process::id().to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

/// Returns when the file is there.
#[remote]
fn wait_for(file: String) -> u32 {
    while !Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::process::id()
}

/// Dies the first time, when the file is not there yet.
#[remote]
fn die_once(file: String) -> u32 {
    if !Path::new(&file).exists() {
        std::fs::write(&file, "").unwrap();
        std::process::abort();
    }
    std::process::id()
}

#[remote]
fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

#[remote]
fn cubes_by_a_pool_of_its_own(n: i64) -> i64 {
    let results = pool(1).map(&cube, (0..n).map(|n| (n,))).unwrap();
    results.map(Result::unwrap).sum()
}

/// A file of this test's own that is not there yet, and not any more afterwards.
struct Mark(String);

impl Mark {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ropewalk-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path.to_str().unwrap().to_owned())
    }

    fn path(&self) -> String {
        self.0.clone()
    }

    fn make(&self) {
        std::fs::write(&self.0, "").unwrap();
    }

    fn is_there(&self) -> bool {
        Path::new(&self.0).exists()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < HANG, "{what}: never");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn calls_run_in_other_processes_and_results_come_back() {
    let pool = pool(2);
    assert_eq!(get(pool.submit(&cube, (3,)).unwrap()).unwrap(), 27);
    let greeting = pool.submit(&greet, ("rope".into(), 2, true)).unwrap();
    assert_eq!(get(greeting).unwrap(), "HELLO ROPE HELLO ROPE ");
    let worker = get(pool.submit(&own_pid, ()).unwrap()).unwrap();
    assert_ne!(worker, std::process::id());
    assert!(pool.pids().contains(&worker));
}

#[test]
fn a_remote_function_is_still_a_function() {
    assert_eq!(cube(2), 8);
}

#[test]
fn ten_thousand_calls_come_back_each_with_its_own_result() {
    let pool = pool(2);
    let results: Result<Vec<_>, _> = pool.map(&cube, (0..10_000).map(|n| (n,))).unwrap().collect();
    assert!(results.unwrap().into_iter().eq((0..10_000).map(|n| n * n * n)));
    assert_eq!(pool.statistics().done, 10_000);
}

#[test]
fn submits_of_many_threads_do_not_mix() {
    let pool = pool(2);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..200 {
                    let n = thread * 1_000 + n;
                    assert_eq!(get(pool.submit(&cube, (n,)).unwrap()).unwrap(), n * n * n);
                }
            });
        }
    });
}

#[test]
fn as_completed_yields_all() {
    let pool = pool(2);
    let futures: Vec<_> = (0..50).map(|n| pool.submit(&cube, (n,)).unwrap()).collect();
    let mut results: Vec<_> = as_completed(futures, Some(HANG))
        .map(|future| future.unwrap().result().unwrap())
        .collect();
    results.sort_unstable();
    assert!(results.into_iter().eq((0..50).map(|n| n * n * n)));
}

#[test]
fn large_data_goes_there_and_back() {
    let pool = pool(1);
    for len in [0, 1, 1000, 64 * 1024 - 20, 64 * 1024, 10_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut expected = bytes.clone();
        expected.reverse();
        assert!(
            get(pool.submit(&reverse, (bytes,)).unwrap()).unwrap() == expected,
            "{len}"
        );
    }
}

#[test]
fn a_panic_comes_back_with_its_message_and_the_worker_lives() {
    let pool = pool(1);
    let before = get(pool.submit(&own_pid, ()).unwrap()).unwrap();
    let error = get(pool.submit(&fail, ("luck".into(),)).unwrap()).unwrap_err();
    assert!(error.is_panic());
    assert_eq!(error.to_string(), "the call panicked: no luck");
    assert_eq!(get(pool.submit(&own_pid, ()).unwrap()).unwrap(), before);
}

#[test]
fn a_death_fails_its_own_call_and_names_its_cause() {
    let pool = pool(1);
    let exits = pool.submit(&exit, (3,)).unwrap();
    let dies = pool.submit(&signal_self, (libc::SIGSEGV,)).unwrap();
    let lives = pool.submit(&cube, (5,)).unwrap();
    let error = get(exits).unwrap_err();
    assert_eq!(error.death().unwrap().cause, Cause::Exit(3));
    assert!(error.to_string().contains("exited with code 3"), "{error}");
    let error = get(dies).unwrap_err();
    assert_eq!(error.death().unwrap().cause, Cause::Signal(libc::SIGSEGV));
    assert_eq!(get(lives).unwrap(), 125);
    assert_eq!(pool.statistics().restarts, 2);
}

#[test]
fn a_call_with_retries_outlives_its_worker() {
    let pool = pool(1);
    let retries = |retries| Limits {
        retries,
        ..Limits::default()
    };
    let again = Mark::new("retry");
    assert!(get(pool.submit_with(retries(1), &die_once, (again.path(),)).unwrap()).is_ok());
    let once = Mark::new("no-retry");
    assert!(get(pool.submit(&die_once, (once.path(),)).unwrap()).is_err());
    let error = get(pool
        .submit_with(retries(2), &signal_self, (libc::SIGKILL,))
        .unwrap())
    .unwrap_err();
    assert_eq!(error.death().unwrap().cause, Cause::Signal(libc::SIGKILL));
}

#[test]
fn a_call_out_of_time_is_ended_and_its_worker_replaced() {
    let pool = pool(1);
    let mark = Mark::new("timeout");
    let limit = Limits::from(Duration::from_millis(50));
    let error = get(pool.submit_with(limit, &hang, (mark.path(),)).unwrap()).unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(get(pool.submit(&cube, (2,)).unwrap()).unwrap(), 8);
}

#[test]
fn a_time_limit_holds_for_a_call_that_had_to_queue() {
    let pool = pool(1);
    let (gate, mark) = (Mark::new("queue-gate"), Mark::new("queue-mark"));
    let first = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let fillers: Vec<_> = (0..10).map(|n| pool.submit(&cube, (n,)).unwrap()).collect();
    let limit = Limits::from(Duration::from_millis(50));
    let limited = pool.submit_with(limit, &hang, (mark.path(),)).unwrap();
    wait_until("the first call runs", || first.running());
    gate.make();
    assert!(get(limited).unwrap_err().is_timeout());
    assert!(fillers.into_iter().all(|future| get(future).is_ok()));
}

#[test]
fn a_call_cancelled_before_it_begins_never_runs() {
    let pool = pool(1);
    let (gate, never) = (Mark::new("cancel-gate"), Mark::new("cancel-never"));
    let first = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let rest: Vec<_> = (0..1000)
        .map(|_| pool.submit(&hang, (never.path(),)).unwrap())
        .collect();
    wait_until("the first call runs", || first.running());
    assert!(!first.cancel());
    assert!(rest.iter().all(Future::cancel));
    assert!(rest.iter().all(|future| future.cancelled() && future.cancel()));
    assert!(
        rest.into_iter()
            .all(|future| get(future).unwrap_err().is_cancelled())
    );
    gate.make();
    assert!(get(first).is_ok());
    assert_eq!(get(pool.submit(&cube, (1,)).unwrap()).unwrap(), 1);
    assert!(!never.is_there());
}

#[test]
fn a_running_call_can_be_cancelled_by_ending_its_worker() {
    let pool = pool(1);
    let mark = Mark::new("cancel-running");
    let future = pool.submit(&hang, (mark.path(),)).unwrap();
    wait_until("the call runs", || mark.is_there());
    assert!(pool.cancel_running(&future));
    assert!(get(future).unwrap_err().is_cancelled());
    assert_eq!(get(pool.submit(&cube, (4,)).unwrap()).unwrap(), 64);
}

#[test]
fn short_calls_do_not_wait_behind_a_long_one() {
    let pool = pool(2);
    let gate = Mark::new("long");
    let long = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let short: Vec<_> = (0..500).map(|n| pool.submit(&cube, (n,)).unwrap()).collect();
    for (n, future) in short.into_iter().enumerate() {
        assert_eq!(get(future).unwrap(), (n as i64).pow(3));
    }
    assert!(!long.done());
    gate.make();
    get(long).unwrap();
}

#[test]
fn workers_are_replaced_after_so_many_calls() {
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .max_tasks_per_child(3)
        .build()
        .unwrap();
    let pids: Vec<_> = pool.map(&own_pid, [(); 9]).unwrap().map(Result::unwrap).collect();
    let mut distinct = pids.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 3, "{pids:?}");
    assert!(pids.chunks(3).all(|pids| pids.iter().all(|pid| *pid == pids[0])));
}

#[test]
fn a_worker_that_holds_too_much_memory_is_replaced() {
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .max_memory_per_child(1)
        .build()
        .unwrap();
    let first = get(pool.submit(&own_pid, ()).unwrap()).unwrap();
    assert_ne!(get(pool.submit(&own_pid, ()).unwrap()).unwrap(), first);
}

#[remote]
fn remember(file: String) {
    std::fs::write(file, std::process::id().to_string()).unwrap();
}

#[remote]
fn refuse() {
    panic!("not today");
}

#[test]
fn an_initializer_runs_first_and_one_that_fails_breaks_the_pool() {
    let mark = Mark::new("initializer");
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .initializer(&remember, (mark.path(),))
        .build()
        .unwrap();
    let worker = get(pool.submit(&own_pid, ()).unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(mark.path()).unwrap(), worker.to_string());

    let broken = ProcessPoolExecutor::builder()
        .initializer(&refuse, ())
        .build()
        .unwrap();
    let error = get(broken.submit(&own_pid, ()).unwrap()).unwrap_err();
    assert!(error.is_broken());
    assert!(error.to_string().contains("not today"), "{error}");
    assert!(broken.submit(&own_pid, ()).unwrap_err().is_broken());
}

#[remote]
fn exit_at_once() {
    std::process::exit(7);
}

#[test]
fn a_pool_whose_workers_never_get_ready_is_broken() {
    let pool = ProcessPoolExecutor::builder()
        .initializer(&exit_at_once, ())
        .build()
        .unwrap();
    let error = get(pool.submit(&own_pid, ()).unwrap()).unwrap_err();
    assert!(error.is_broken());
    assert!(error.to_string().contains("exited with code 7"), "{error}");
    assert!(pool.warm_up().unwrap_err().is_broken());
}

#[test]
fn a_bounded_pool_lets_submitters_wait() {
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .max_pending(2)
        .build()
        .unwrap();
    let results: Result<Vec<_>, _> = pool.map(&cube, (0..100).map(|n| (n,))).unwrap().collect();
    assert_eq!(results.unwrap().len(), 100);
}

#[test]
fn shutdown_finishes_what_is_pending_and_refuses_more() {
    let pool = pool(2);
    let futures: Vec<_> = (0..100).map(|n| pool.submit(&cube, (n,)).unwrap()).collect();
    pool.warm_up().unwrap();
    let workers = pool.pids();
    pool.shutdown(true, false);
    assert!(futures.iter().all(|future| future.done() && !future.cancelled()));
    assert!(pool.submit(&cube, (1,)).unwrap_err().is_shutdown());
    assert!(!workers.into_iter().any(is_alive));
}

#[test]
fn shutdown_can_cancel_what_has_not_begun() {
    let pool = pool(1);
    let gate = Mark::new("shutdown-cancel");
    let first = pool.submit(&wait_for, (gate.path(),)).unwrap();
    wait_until("the first call runs", || first.running());
    let rest: Vec<_> = (0..100).map(|n| pool.submit(&cube, (n,)).unwrap()).collect();
    pool.shutdown(false, true);
    assert!(rest.iter().all(Future::cancelled));
    gate.make();
    assert!(get(first).is_ok());
}

#[test]
fn workers_can_have_pools_of_their_own() {
    let pool = pool(1);
    let sum = pool.submit(&cubes_by_a_pool_of_its_own, (10,)).unwrap();
    assert_eq!(get(sum).unwrap(), (0..10).map(|n: i64| n.pow(3)).sum());
}

#[test]
fn warming_up_starts_all_workers() {
    let pool = pool(3);
    pool.warm_up().unwrap();
    assert_eq!(pool.pids().len(), 3);
}

#[test]
fn limits_of_zero_are_refused() {
    assert!(ProcessPoolExecutor::builder().max_workers(0).build().is_err());
    assert!(
        ProcessPoolExecutor::builder()
            .max_tasks_per_child(0)
            .build()
            .is_err()
    );
    assert!(ProcessPoolExecutor::builder().max_pending(0).build().is_err());
}

#[test]
fn calls_with_retries_outlive_workers_that_are_killed_again_and_again() {
    let pool = pool(2);
    let limits = || Limits {
        retries: 1_000,
        ..Limits::default()
    };
    let futures: Vec<_> = (0..1_000)
        .map(|n| pool.submit_with(limits(), &cube, (n,)).unwrap())
        .collect();
    for (n, future) in futures.into_iter().enumerate() {
        if n % 100 == 0 {
            for pid in pool.pids() {
                // SAFETY: has no conditions.
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            }
        }
        assert_eq!(get(future).unwrap(), (n as i64).pow(3));
    }
}

#[test]
fn a_callback_may_submit_but_never_waits() {
    let pool = std::sync::Arc::new(
        ProcessPoolExecutor::builder()
            .max_workers(1)
            .max_pending(2)
            .build()
            .unwrap(),
    );
    let gate = Mark::new("callback-gate");
    let (sender, receiver) = std::sync::mpsc::channel();
    let first = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let second = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let weak = std::sync::Arc::downgrade(&pool);
    first.add_done_callback(move |_| {
        let pool = weak.upgrade().unwrap();
        // One is over, one is pending: there is room for one, and then none, and this thread cannot wait for it.
        let submitted: Vec<_> = (0..3).map(|n| pool.submit(&cube, (n,))).collect();
        sender.send(submitted).unwrap();
    });
    gate.make();
    let submitted = receiver.recv_timeout(HANG).unwrap();
    assert!(submitted.iter().any(Result::is_ok));
    for outcome in submitted {
        match outcome {
            Ok(future) => assert!(get(future).is_ok()),
            Err(error) => assert!(error.is_full(), "{error}"),
        }
    }
    assert!(get(second).is_ok());
}

#[test]
fn an_executor_dropped_in_a_callback_ends() {
    let pool = pool(1);
    let gate = Mark::new("drop-gate");
    let first = pool.submit(&wait_for, (gate.path(),)).unwrap();
    let second = pool.submit(&cube, (2,)).unwrap();
    first.add_done_callback(move |_| drop(pool));
    gate.make();
    assert!(get(first).is_ok());
    assert_eq!(get(second).unwrap(), 8);
}
