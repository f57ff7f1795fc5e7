//! A spinner in a thread, told by an Event when to stop.
//!
//! usage: cargo run -p ropewalk --example spinner_thread -- [SECONDS]

use std::error::Error;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use ropewalk::threading::Event;

fn spin(message: &str, done: &Event) -> io::Result<()> {
    let mut out = io::stdout();
    for character in ['\\', '|', '/', '-'].into_iter().cycle() {
        write!(out, "\r{character} {message}")?;
        out.flush()?;
        if done.wait(Duration::from_millis(100)) {
            break;
        }
    }
    write!(out, "\r{}\r", " ".repeat(message.len() + 3))
}

fn slow(time: Duration) -> i32 {
    thread::sleep(time);
    42
}

fn supervisor(time: Duration) -> io::Result<i32> {
    let done = Event::new();
    let spinner = thread::Builder::new().name("spinner".into());
    println!("spinner object: {spinner:?}");
    thread::scope(|scope| {
        let spinner = spinner.spawn_scoped(scope, || spin("thinking!", &done))?;
        let result = slow(time);
        done.set();
        match spinner.join() {
            Ok(spun) => spun.map(|()| result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse()?,
        None => 3.0,
    };
    let result = supervisor(Duration::try_from_secs_f64(seconds)?)?;
    println!("Answer: {result}");
    Ok(())
}
