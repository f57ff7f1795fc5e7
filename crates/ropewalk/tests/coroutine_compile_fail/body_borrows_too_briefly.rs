//! A coroutine does not outlive what its body borrows.

use ropewalk::coroutine::Coroutine;

fn lengths() -> Coroutine<'static, usize> {
    let words = vec!["laid", "strand"];
    let words = &words;
    Coroutine::new(|mut co| async move {
        for word in words {
            co.yield_(word.len()).await?;
        }
        Ok(())
    })
}

fn main() {
    lengths();
}
