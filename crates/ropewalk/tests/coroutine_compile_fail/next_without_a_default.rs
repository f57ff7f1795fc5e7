//! `next` needs something to send; `prime` does not.

use ropewalk::coroutine::Coroutine;

struct Order(#[allow(dead_code)] u32);

fn main() {
    let coroutine = Coroutine::<(), Order>::new(|mut co| async move {
        co.yield_(()).await?;
        Ok(())
    });
    let _ = coroutine.prime();
    let _ = coroutine.next();
}
