//! A running average. An error that the coroutine does not handle ends it.

use std::num::ParseFloatError;

use ropewalk::coroutine::{Coroutine, Error, Step};

fn averager() -> Coroutine<'static, Option<f64>, &'static str, (), ParseFloatError> {
    Coroutine::new(|mut co| async move {
        let (mut total, mut count) = (0.0, 0.0);
        let mut average = None;
        loop {
            let term: &str = co.yield_(average).await?;
            total += term.parse::<f64>()?;
            count += 1.0;
            average = Some(total / count);
        }
    })
}

fn main() -> Result<(), Error<ParseFloatError>> {
    let coro_avg = averager();
    coro_avg.prime()?;
    println!("{}", coro_avg.state());
    for term in ["40", "50", "spam", "60"] {
        match coro_avg.send(term) {
            Ok(Step::Yielded(average)) => println!("{term}: {:.1}", average.unwrap_or(f64::NAN)),
            Err(Error::Raised(_)) => println!("{term}: not a number"),
            Ok(Step::Returned(())) | Err(_) => println!("{term}: StopIteration"),
        }
    }
    println!("{}", coro_avg.state());
    Ok(())
}
