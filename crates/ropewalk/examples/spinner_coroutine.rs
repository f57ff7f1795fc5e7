//! A spinner in a task, cancelled when the answer is there; with --blocked, a thread's sleep never lets it begin.
//!
//! usage: cargo run --example spinner_coroutine [SECONDS] [--blocked]

use std::io::{Write, stdout};
use std::time::Duration;

use ropewalk::asyncio;

async fn spin(message: &str) -> asyncio::Result<()> {
    for char in r"\|/-".chars().cycle() {
        let status = format!("\r{char} {message}");
        print!("{status}");
        stdout().flush()?;
        if asyncio::sleep(Duration::from_millis(100)).await.is_err() {
            print!("\r{}\r", " ".repeat(status.len()));
            break; // cancelled
        }
    }
    Ok(())
}

async fn slow(time: Duration, blocked: bool) -> asyncio::Result<u32> {
    if blocked {
        std::thread::sleep(time); // never do this: nothing else runs on the loop meanwhile
    } else {
        asyncio::sleep(time).await?;
    }
    Ok(42)
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let (flags, numbers): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word == "--blocked");
    let seconds = numbers.first().map_or(Ok(3.0), |word| word.parse())?;
    let spinner = asyncio::create_task(spin("thinking!"));
    println!("spinner object: {spinner:?}");
    let result = slow(Duration::from_secs_f64(seconds), !flags.is_empty()).await?;
    spinner.cancel();
    // Unless it never began, it ends by itself when it has cleaned up.
    if let Err(error) = spinner.await
        && !error.is_cancelled()
    {
        return Err(error);
    }
    println!("Answer: {result}");
    Ok(())
}
