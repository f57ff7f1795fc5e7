//! `await` gives what the coroutine returns, and so does `run`.

use ropewalk::asyncio;

async fn nested(number: u32) -> asyncio::Result<u32> {
    Ok(number)
}

async fn following(number: u32) -> asyncio::Result<u32> {
    let value = nested(number).await?;
    println!("await nested({number}): {value}");
    Ok(value + 1)
}

fn main() -> asyncio::Result<()> {
    println!("run(following(99)): {}", asyncio::run(following(99))?);
    Ok(())
}
