#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use crate::asyncio::{self, Result, Runner, testing};

mod barrier;
mod cancel;
mod condition;
mod event;
mod event_loop;
mod future;
mod gather;
mod lock;
mod misuse;
mod net;
mod queue;
mod runner;
mod semaphore;
mod shield;
mod signal;
mod sleep;
mod streams;
mod subprocess;
mod task;
mod task_group;
mod threads;
mod timeouts;
mod waiting;

/// Runs a program on a virtual clock.
fn run<T: 'static>(main: impl Future<Output = Result<T>> + 'static) -> Result<T> {
    Runner::with_loop(testing::virtual_clock().unwrap()).run(main)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Lets every other task have `count` turns.
async fn turns(count: usize) -> Result<()> {
    for _ in 0..count {
        asyncio::sleep(Duration::ZERO).await?;
    }
    Ok(())
}

/// The time on the running loop's clock, in seconds.
fn now() -> f64 {
    asyncio::get_running_loop().unwrap().time().as_secs_f64()
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn note(&self, what: impl ToString) {
        self.0.borrow_mut().push(what.to_string());
    }

    #[track_caller]
    fn is<const N: usize>(&self, expected: [&str; N]) {
        assert_eq!(*self.0.borrow(), expected);
    }
}

/// Notes when it is dropped, and in which thread.
struct Witness(Log, std::thread::ThreadId);

impl Witness {
    fn new(log: &Log) -> Self {
        Self(log.clone(), std::thread::current().id())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        assert_eq!(std::thread::current().id(), self.1, "dropped in a foreign thread");
        self.0.note("dropped");
    }
}

/// A task that ends after so many seconds, with their number.
fn after(count: u64) -> asyncio::Task<u64> {
    asyncio::create_task(async move {
        asyncio::sleep(seconds(count)).await?;
        Ok(count)
    })
}

/// A task that fails after so many seconds.
fn failing_after(count: u64) -> asyncio::Task<u64> {
    asyncio::create_task(async move {
        asyncio::sleep(seconds(count)).await?;
        Err(Failure(count).into())
    })
}

#[derive(Debug, PartialEq)]
struct Failure(u64);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failure {}", self.0)
    }
}

impl std::error::Error for Failure {}

fn failure(error: &asyncio::Error) -> Option<u64> {
    error.downcast_ref().map(|Failure(number)| *number)
}
