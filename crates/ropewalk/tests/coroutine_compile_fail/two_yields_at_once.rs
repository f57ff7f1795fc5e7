//! A body waits at one yield at a time.

use ropewalk::coroutine::Coroutine;

fn main() {
    let _ = Coroutine::<i32>::new(|mut co| async move {
        let first = co.yield_(1);
        let second = co.yield_(2);
        first.await?;
        second.await
    });
}
