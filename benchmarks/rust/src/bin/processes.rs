//! The process pool against procspawn's: every task has a handle, and every handle is asked for its result.

use ropewalk::futures::ProcessPoolExecutor;
use ropewalk_benchmarks::{scaled, seconds_each};

const WORKERS: usize = 2;

fn main() {
    procspawn::init();
    ropewalk_benchmarks::main(&[
        // A hundred at a time: each of procspawn's calls holds file descriptors.
        ("pipelined", "us", |who| batches(who, 100, scaled(200))),
        ("round trip", "us", |who| batches(who, 1, scaled(2_000))),
    ]);
}

#[ropewalk::remote]
fn same(n: u64) -> u64 {
    n
}

/// Submits `tasks` tasks, then asks for all their results; does it once to warm up, then `repeat` times.
fn batches(who: &str, tasks: usize, repeat: usize) -> f64 {
    if who == "procspawn" {
        let pool = procspawn::Pool::new(WORKERS).expect("processes");
        return timed(
            tasks,
            repeat,
            |n| procspawn::spawn!(in pool, (n => n) || n),
            |handle| handle.join().expect("a result"),
        );
    }
    let pool = ProcessPoolExecutor::builder()
        .max_workers(WORKERS)
        .build()
        .expect("a pool");
    timed(
        tasks,
        repeat,
        |n| pool.submit(&same, (n,)).expect("a pool that is open"),
        |future| future.result().expect("a result"),
    )
}

fn timed<H>(tasks: usize, repeat: usize, submit: impl Fn(u64) -> H, wait: impl Fn(H) -> u64) -> f64 {
    let batch = || {
        let handles: Vec<H> = (0..tasks as u64).map(&submit).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(wait(handle), n as u64);
        }
    };
    for _ in 0..(100 / tasks).max(1) {
        batch();
    }
    seconds_each(tasks * repeat, || (0..repeat).for_each(|_| batch()))
}
