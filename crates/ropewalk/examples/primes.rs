//! Counts primes by one thread, by threads, by threads that take turns at a [`Gil`], and by processes.
//!
//! ```sh
//! cargo run --release --example primes -- [BELOW]
//! ```
//!
//! The twin of `examples/primes.py`. Rust's threads compute side by side; under an interpreter's lock, which `Gil` is, more of
//! them bring nothing, and processes, each with a lock of its own, do.

#![allow(clippy::redundant_closure)] // The function is a static on Linux and a function elsewhere.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

#[cfg(target_os = "linux")]
use ropewalk::futures::ProcessPoolExecutor;
use ropewalk::futures::{Executor, ThreadPoolExecutor};
use ropewalk::gil::Gil;

type Found = Result<u64, ropewalk::futures::Error>;
type Way = fn(Vec<Range<u64>>, usize) -> Found;

/// Counts the primes in a range, by trial division.
#[cfg_attr(target_os = "linux", ropewalk::remote)]
fn count_primes(numbers: Range<u64>) -> u64 {
    numbers.filter(|&number| is_prime(number)).count() as u64
}

fn is_prime(number: u64) -> bool {
    if number < 4 || number.is_multiple_of(2) {
        return number == 2 || number == 3;
    }
    (3..)
        .step_by(2)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

fn one_thread(pieces: Vec<Range<u64>>, _workers: usize) -> Found {
    Ok(pieces.into_iter().map(|piece| count_primes(piece)).sum())
}

fn threads(pieces: Vec<Range<u64>>, workers: usize) -> Found {
    let pool = ThreadPoolExecutor::builder().max_workers(workers).build();
    pool.map(|piece| count_primes(piece), pieces)?.sum()
}

fn threads_with_a_gil(pieces: Vec<Range<u64>>, workers: usize) -> Found {
    let pool = ThreadPoolExecutor::builder().max_workers(workers).build();
    let gil = Arc::new(Gil::new(()));
    let count = move |piece| {
        let _interpreter = gil.acquire();
        count_primes(piece)
    };
    pool.map(count, pieces)?.sum()
}

#[cfg(target_os = "linux")]
fn processes(pieces: Vec<Range<u64>>, workers: usize) -> Found {
    let pool = ProcessPoolExecutor::builder().max_workers(workers).build()?;
    pool.map(&count_primes, pieces.into_iter().map(|piece| (piece,)))?
        .sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    let below: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 5_000_000,
    };
    let workers = available_parallelism()?.get();
    // Many pieces: larger numbers take longer, and nobody shall wait for the last one.
    let step = (below / 100).max(1);
    let pieces: Vec<_> = (0..below)
        .step_by(usize::try_from(step)?)
        .map(|start| start..(start + step).min(below))
        .collect();
    println!(
        "{:20}{:>9}{:>10}{:>10}",
        "primes by", "found", "seconds", "speed-up"
    );
    let mut first = None;
    for (name, way) in [
        ("one thread", one_thread as Way),
        ("threads", threads),
        ("threads with a Gil", threads_with_a_gil),
        #[cfg(target_os = "linux")]
        ("processes", processes),
    ] {
        let started = Instant::now();
        let found = way(pieces.clone(), workers)?;
        let seconds = started.elapsed().as_secs_f64();
        let speed_up = *first.get_or_insert(seconds) / seconds;
        println!("{name:20}{found:9}{seconds:10.2}{speed_up:9.1}x");
    }
    Ok(())
}
