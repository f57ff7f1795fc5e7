//! Two coroutines awaited in turn take the sum of their times (3 s); as tasks they take the longer one (2 s).
//!
//! usage: cargo run --example say_after [UNIT]    UNIT: what is taken for a second

use std::time::{Duration, Instant};

use ropewalk::asyncio;

async fn say_after(delay: Duration, what: &str) -> asyncio::Result<()> {
    asyncio::sleep(delay).await?;
    println!("{what:>10}");
    Ok(())
}

async fn in_turn(unit: Duration) -> asyncio::Result<()> {
    say_after(unit, "hello").await?;
    say_after(2 * unit, "world").await
}

async fn by_create_task(unit: Duration) -> asyncio::Result<()> {
    let hello = asyncio::create_task(say_after(unit, "hello"));
    let world = asyncio::create_task(say_after(2 * unit, "world"));
    hello.await?;
    world.await
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(1.0), |word| word.parse())?;
    let unit = Duration::from_secs_f64(seconds);

    println!("in_turn:");
    let started = Instant::now();
    in_turn(unit).await?;
    println!("took {:.2} s", started.elapsed().as_secs_f64());

    println!("by_create_task:");
    let started = Instant::now();
    by_create_task(unit).await?;
    println!("took {:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}
