//! The smallest coroutine that waits.
//!
//! usage: cargo run --example hello [SECONDS]

use std::time::Duration;

use ropewalk::asyncio;

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(1.0), |word| word.parse())?;
    println!("hello");
    asyncio::sleep(Duration::from_secs_f64(seconds)).await?;
    println!("world");
    Ok(())
}
