//! A callback is called when the task is done, with the task as its argument; in the order of their adding.

use ropewalk::asyncio::{self, AnyTask, EventLoop};

async fn answer() -> asyncio::Result<u32> {
    println!("the task runs");
    Ok(42)
}

fn tell(who: &'static str) -> impl FnOnce(&AnyTask) {
    move |task| println!("{who}: done: {}", task.done())
}

fn main() -> asyncio::Result<()> {
    let event_loop = EventLoop::new()?;
    let task = event_loop.create_task(answer());
    task.add_done_callback(tell("first callback"));
    task.add_done_callback(tell("second callback"));
    println!("before the loop runs: done: {}", task.done());
    let result = event_loop.run_until_complete(async {
        let done = AnyTask::clone(&task);
        let result = task.await?;
        done.add_done_callback(tell("too late, so called at the loop's next turn"));
        asyncio::sleep(std::time::Duration::ZERO).await?;
        Ok(result)
    })?;
    println!("result: {result}"); // a value has one owner, who waited for the task
    Ok(())
}
