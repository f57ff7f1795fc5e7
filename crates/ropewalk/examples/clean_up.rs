//! Clean-up: what Python writes as `finally` runs when the coroutine fails, is closed or is dropped.

use ropewalk::coroutine::{Co, Coroutine, Error};

#[derive(Debug)]
enum Thrown {
    Demo,
    ZeroDivision,
}

async fn receive(co: &mut Co<'_, (), i32, Thrown>) -> Result<(), Error<Thrown>> {
    loop {
        match co.yield_(()).await {
            Err(Error::Raised(Thrown::Demo)) => println!("*** DemoException handled. Continuing..."),
            x => println!("-> coroutine received: {}", x?),
        }
    }
}

fn demo_finally() -> Coroutine<'static, (), i32, (), Thrown> {
    Coroutine::new(|mut co| async move {
        println!("-> coroutine started");
        let result = receive(&mut co).await;
        println!("-> coroutine ending");
        result
    })
}

fn main() -> Result<(), Error<Thrown>> {
    println!("thrown into:");
    let exc_coro = demo_finally();
    exc_coro.prime()?;
    exc_coro.send(11)?;
    exc_coro.throw(Thrown::Demo)?;
    if let Err(Error::Raised(Thrown::ZeroDivision)) = exc_coro.throw(Thrown::ZeroDivision) {
        println!("ZeroDivisionError");
    }

    println!("closed:");
    let exc_coro = demo_finally();
    exc_coro.prime()?;
    exc_coro.close()?;

    println!("dropped:");
    let exc_coro = demo_finally();
    exc_coro.prime()?;
    drop(exc_coro);
    Ok(())
}
