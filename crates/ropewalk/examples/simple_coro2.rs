//! A coroutine stage by stage: each `send` runs from one yield to the next.

use ropewalk::coroutine::{Coroutine, Error, Step};

fn simple_coro2(a: i32) -> Coroutine<'static, i32, i32> {
    Coroutine::new(move |mut co| async move {
        println!("-> Started: a = {a}");
        let b = co.yield_(a).await?;
        println!("-> Received: b = {b}");
        let c = co.yield_(a + b).await?;
        println!("-> Received: c = {c}");
        Ok(())
    })
}

fn show(step: Step<i32, ()>) {
    match step {
        Step::Yielded(value) => println!("{value}"),
        Step::Returned(()) => println!("StopIteration"),
    }
}

fn main() -> Result<(), Error> {
    let my_coro2 = simple_coro2(14);
    println!("{}", my_coro2.state());
    show(my_coro2.next()?);
    println!("{}", my_coro2.state());
    show(my_coro2.send(28)?);
    show(my_coro2.send(99)?);
    println!("{}", my_coro2.state());
    Ok(())
}
