//! Two tasks print the date, each after pauses of its own, until Ctrl-C: a loop that runs for ever, and its clean end.
//!
//! usage: cargo run --example date_printers [SECONDS]    SECONDS: the longest pause

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ropewalk::asyncio::{self, EventLoop, signal};

async fn display_date(number: u32, longest: f64) -> asyncio::Result<()> {
    loop {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
        println!("Task: {number} Time: {:.6}", since_1970.as_secs_f64());
        asyncio::sleep(Duration::from_secs_f64(longest * random())).await?;
    }
}

/// A number from 0 to 1, from the keys that the standard library draws for its hash maps.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

fn main() -> asyncio::Result<()> {
    let longest = std::env::args().nth(1).map_or(Ok(5.0), |word| word.parse())?;
    let event_loop = EventLoop::new()?;
    let tasks = [1, 2].map(|number| event_loop.create_task(display_date(number, longest)));
    let stopped = event_loop.clone();
    event_loop.add_signal_handler(signal::SIGINT, move || stopped.stop())?;
    event_loop.run_forever()?;
    println!("\nstopped by Ctrl-C");
    event_loop.run_until_complete(async move {
        for task in &tasks {
            task.cancel();
        }
        let outcomes = asyncio::gather(tasks.into_iter().collect::<Vec<_>>());
        assert!(
            outcomes
                .return_exceptions()
                .await?
                .iter()
                .all(|outcome| outcome.is_err())
        );
        Ok(())
    })?;
    event_loop.close()
}
