//! The thread pool against threadpool, rayon and tokio: every task has a future, and every future is asked for its result.

use std::time::Duration;

use ropewalk::futures::{Executor, ThreadPoolExecutor};
use ropewalk_benchmarks::{scaled, seconds_each};

const WORKERS: usize = 2;

fn main() {
    ropewalk_benchmarks::main(&[
        ("pipelined", "ns", pipelined),
        ("round trip", "us", |who| batches(who, 1, scaled(20_000))),
        ("round trip without spin", "us", round_trip_without_spin),
    ]);
}

fn pipelined(who: &str) -> f64 {
    batches(who, 10_000, scaled(50))
}

fn round_trip_without_spin(who: &str) -> f64 {
    ropewalk::park::set_spin(Duration::ZERO);
    batches(who, 1, scaled(20_000))
}

/// Submits `tasks` tasks, then asks for all their results; does it once to warm up, then `repeat` times.
fn batches(who: &str, tasks: usize, repeat: usize) -> f64 {
    match who {
        "ropewalk" => {
            let pool = ThreadPoolExecutor::builder().max_workers(WORKERS).build();
            let submit = |n| pool.submit(move || n).expect("a pool that is open");
            timed(tasks, repeat, submit, |future| future.result().expect("no panic"))
        }
        "threadpool" => {
            let pool = threadpool::ThreadPool::new(WORKERS);
            let submit = |n| {
                let (sender, receiver) = oneshot::channel();
                pool.execute(move || sender.send(n).expect("a receiver"));
                receiver
            };
            timed(tasks, repeat, submit, |receiver| {
                receiver.recv().expect("a result")
            })
        }
        "rayon" => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(WORKERS)
                .build()
                .expect("threads");
            let submit = |n| {
                let (sender, receiver) = oneshot::channel();
                pool.spawn(move || sender.send(n).expect("a receiver"));
                receiver
            };
            timed(tasks, repeat, submit, |receiver| {
                receiver.recv().expect("a result")
            })
        }
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .max_blocking_threads(WORKERS)
                .build()
                .expect("a runtime");
            let submit = |n| runtime.spawn_blocking(move || n);
            timed(tasks, repeat, submit, |handle| {
                runtime.block_on(handle).expect("no panic")
            })
        }
        _ => panic!("who is {who}?"),
    }
}

fn timed<F>(tasks: usize, repeat: usize, submit: impl Fn(usize) -> F, result: impl Fn(F) -> usize) -> f64 {
    let batch = || {
        let futures: Vec<F> = (0..tasks).map(&submit).collect();
        let sum: usize = futures.into_iter().map(&result).sum();
        assert_eq!(sum, tasks * (tasks - 1) / 2);
    };
    batch();
    seconds_each(tasks * repeat, || (0..repeat).for_each(|_| batch()))
}
