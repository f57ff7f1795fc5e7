//! One thread computes, another comes back from I/O again and again: how long does it wait for the lock, and what does
//! the computing thread lose? Under CPython's policy, and under io-priority.
//!
//! usage: cargo run --release -p ropewalk --example gil_policies -- [REQUESTS]

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ropewalk::gil::{Gil, Policy};

struct Report {
    waits: Vec<Duration>,
    rounds: f64,
    forced: u64,
}

fn run(policy: Policy, requests: usize) -> Report {
    let gil = Gil::with_policy(0_u64, policy);
    let over = AtomicBool::new(false);
    let mut waits = Vec::new();
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rounds = gil.acquire();
            while !over.load(Ordering::Relaxed) {
                *rounds += 1;
                rounds.checkpoint();
            }
        });
        let mut guard = gil.acquire();
        for _ in 0..requests {
            let back = guard.release_for(|| {
                thread::sleep(Duration::from_millis(1)); // the I/O
                Instant::now()
            });
            waits.push(back.elapsed());
        }
        over.store(true, Ordering::Relaxed);
    });
    waits.sort();
    let forced = gil.statistics().forced;
    let rounds = gil.into_inner() as f64 / started.elapsed().as_secs_f64();
    Report {
        waits,
        rounds,
        forced,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let requests = match std::env::args().nth(1) {
        Some(requests) => requests.parse::<usize>()?.max(1),
        None => 200,
    };
    for policy in [Policy::Cpython, Policy::IoPriority] {
        let Report {
            waits,
            rounds,
            forced,
        } = run(policy, requests);
        println!(
            "{policy:?}: {requests} requests waited {:.1} us (median), {:.1} us at most; {:.0} million rounds a second; \
             {forced} forced switches",
            waits[waits.len() / 2].as_secs_f64() * 1e6,
            waits[waits.len() - 1].as_secs_f64() * 1e6,
            rounds / 1e6,
        );
    }
    Ok(())
}
