//! What is sent has the type that the body receives.

use ropewalk::coroutine::Coroutine;

fn main() {
    let coroutine = Coroutine::<(), f64>::new(|mut co| async move {
        co.yield_(()).await?;
        Ok(())
    });
    let _ = coroutine.send("spam");
}
