//! The interpreter lock: what its short ways cost, and its two policies against each other.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ropewalk::gil::{Gil, Policy};
use ropewalk_benchmarks::{scaled, seconds_each};

fn main() {
    ropewalk_benchmarks::main(&[
        ("checkpoint", "ns", checkpoint),
        ("release + take", "ns", release_and_take),
        ("acquire + drop", "ns", acquire_and_drop),
        ("wait behind a computing thread", "us", wait),
        ("computing lost under an I/O flood", "%", lost),
    ]);
}

fn policy(who: &str) -> Policy {
    if who == "ropewalk" {
        Policy::IoPriority
    } else {
        Policy::Cpython
    }
}

fn checkpoint(_: &str) -> f64 {
    let gil = Gil::new(());
    let mut guard = gil.acquire();
    let count = scaled(1_000_000_000);
    seconds_each(count, || {
        for _ in 0..count {
            black_box(guard.checkpoint());
        }
    })
}

fn release_and_take(_: &str) -> f64 {
    let gil = Gil::new(());
    let mut guard = gil.acquire();
    let count = scaled(50_000_000);
    seconds_each(count, || {
        for _ in 0..count {
            guard.release_for(|| black_box(()));
        }
    })
}

fn acquire_and_drop(_: &str) -> f64 {
    let gil = Gil::new(());
    let count = scaled(10_000_000);
    seconds_each(count, || {
        for _ in 0..count {
            drop(black_box(gil.acquire()));
        }
    })
}

/// The median wait of a thread that comes back from a millisecond of I/O while another computes.
fn wait(who: &str) -> f64 {
    let gil = Gil::with_policy(0_u64, policy(who));
    let over = AtomicBool::new(false);
    let mut waits: Vec<Duration> = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = gil.acquire();
            while !over.load(Ordering::Relaxed) {
                *guard += 1;
                guard.checkpoint();
            }
        });
        let mut guard = gil.acquire();
        for _ in 0..scaled(150) {
            let back = guard.release_for(|| {
                thread::sleep(Duration::from_millis(1));
                Instant::now()
            });
            waits.push(back.elapsed());
        }
        over.store(true, Ordering::Relaxed);
    });
    waits.sort();
    waits[waits.len() / 2].as_secs_f64()
}

/// How much slower a thread computes, in percent, while four others do nothing but tiny reads: alone and so, in turns.
fn lost(who: &str) -> f64 {
    let gil = Gil::with_policy(0_u64, policy(who));
    let compute = || {
        let mut guard = gil.acquire();
        let rounds = 20_000_000;
        seconds_each(rounds, || {
            for _ in 0..rounds {
                *guard = guard.wrapping_mul(31) + 1;
                guard.checkpoint();
            }
        })
    };
    let (mut alone, mut flooded) = (0.0, 0.0);
    for _ in 0..scaled(20) {
        alone += compute();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut zeros = File::open("/dev/zero").expect("a source of bytes");
                    let mut guard = gil.acquire();
                    while !over.load(Ordering::Relaxed) {
                        guard.release_for(|| zeros.read(&mut [0]).expect("a byte"));
                    }
                });
            }
            flooded += compute();
            over.store(true, Ordering::Relaxed);
        });
    }
    100.0 * (1.0 - alone / flooded)
}
