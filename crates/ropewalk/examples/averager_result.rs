//! A coroutine with a result: it ends when nothing more is sent, and returns what it counted.

use ropewalk::coroutine::{Coroutine, Error, Step};

#[derive(Debug)]
struct Result {
    count: u32,
    average: f64,
}

fn averager() -> Coroutine<'static, (), Option<f64>, Result> {
    Coroutine::new(|mut co| async move {
        let (mut total, mut count) = (0.0, 0);
        while let Some(term) = co.yield_(()).await? {
            total += term;
            count += 1;
        }
        Ok(Result {
            count,
            average: total / f64::from(count),
        })
    })
}

fn main() -> std::result::Result<(), Error> {
    let coro_avg = averager();
    coro_avg.prime()?;
    for term in [10.0, 30.0, 6.5] {
        coro_avg.send(Some(term))?;
    }
    if let Step::Returned(result) = coro_avg.next()? {
        println!("count={}, average={}", result.count, result.average);
    }
    Ok(())
}
