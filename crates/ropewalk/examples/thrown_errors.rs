//! An error thrown into a coroutine: handled it goes on, unhandled it ends.

use ropewalk::coroutine::{Coroutine, Error};

#[derive(Debug)]
enum Thrown {
    Demo,
    ZeroDivision,
}

fn demo_exc_handling() -> Coroutine<'static, (), i32, (), Thrown> {
    Coroutine::new(|mut co| async move {
        println!("-> coroutine started");
        loop {
            match co.yield_(()).await {
                Err(Error::Raised(Thrown::Demo)) => println!("*** DemoException handled. Continuing..."),
                x => println!("-> coroutine received: {}", x?),
            }
        }
    })
}

fn main() -> Result<(), Error<Thrown>> {
    println!("closed:");
    let exc_coro = demo_exc_handling();
    exc_coro.prime()?;
    exc_coro.send(11)?;
    exc_coro.send(22)?;
    exc_coro.close()?;
    println!("{}", exc_coro.state());

    println!("handled:");
    let exc_coro = demo_exc_handling();
    exc_coro.prime()?;
    exc_coro.send(11)?;
    exc_coro.throw(Thrown::Demo)?;
    println!("{}", exc_coro.state());

    println!("not handled:");
    if let Err(Error::Raised(Thrown::ZeroDivision)) = exc_coro.throw(Thrown::ZeroDivision) {
        println!("ZeroDivisionError");
    }
    println!("{}", exc_coro.state());
    Ok(())
}
