//! Only where nothing is sent is a coroutine an iterator.

use ropewalk::coroutine::Coroutine;

fn main() {
    let coroutine = Coroutine::<i32, i32>::new(|mut co| async move {
        co.yield_(1).await?;
        Ok(())
    });
    for _ in coroutine {}
}
