//! Two tasks that wait, as if for input, 2 s and 3 s: together they take 3 s instead of 5.
//!
//! usage: cargo run --example two_io_tasks [UNIT]    UNIT: what is taken for a second

use std::time::{Duration, Instant};

use ropewalk::asyncio::{self, ReturnWhen};

async fn task_io(number: u32, seconds: u32, unit: Duration) -> asyncio::Result<String> {
    println!("task {number} begins");
    asyncio::sleep(seconds * unit).await?;
    println!("task {number} is done, which took {seconds} s");
    Ok(format!("result {number}"))
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let unit = std::env::args().nth(1).map_or(Ok(1.0), |word| word.parse())?;
    let started = Instant::now();
    let unit_time = Duration::from_secs_f64(unit);
    let mut pending = vec![
        asyncio::create_task(task_io(1, 2, unit_time)),
        asyncio::create_task(task_io(2, 3, unit_time)),
    ];
    let mut done = asyncio::wait(&mut pending, None, ReturnWhen::AllCompleted).await?;
    assert!(pending.is_empty());
    let mut results = done
        .iter_mut()
        .map(|task| task.result())
        .collect::<asyncio::Result<Vec<_>>>()?;
    results.sort();
    println!("{results:?}");
    println!("both took {:.2} s", started.elapsed().as_secs_f64() / unit);
    Ok(())
}
