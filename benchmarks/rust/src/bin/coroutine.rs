//! Coroutines against genawaiter, corosensei, `.await` through every frame, and a thread for each coroutine.
//!
//! Each contender's body gives back what it is sent. genawaiter can neither throw nor close; its generators come
//! typed by their future, ours do not.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::mpsc;

use genawaiter::GeneratorState;
use genawaiter::rc::{Co as GenawaiterCo, Gen};
use ropewalk::coroutine::{Co, Coroutine, Error, Step};
use ropewalk_benchmarks::{scaled, seconds_each};

type Echo = Coroutine<'static, u64, u64>;

fn main() {
    ropewalk_benchmarks::main(&[
        ("send", "ns", send),
        ("create + drop", "ns", create_and_drop),
        ("yield_from, 1 deep", "ns", |who| delegate(who, 1)),
        ("yield_from, 10 deep", "ns", |who| delegate(who, 10)),
        ("yield_from, 100 deep", "ns", |who| delegate(who, 100)),
        ("stackful send", "ns", stackful_send),
        ("stackful create + drop", "ns", stackful_create_and_drop),
        ("memory a coroutine", "B", memory),
        ("memory a stackful coroutine", "B", stackful_memory),
    ]);
}

fn echo() -> Echo {
    Coroutine::new(|mut co| async move {
        let mut value = 0;
        loop {
            value = co.yield_(value).await?;
        }
    })
}

fn stackful_echo() -> Echo {
    Coroutine::stackful(|co| {
        let mut value = 0;
        loop {
            value = co.yield_(value)?;
        }
    })
    .expect("a stack")
}

async fn genawaiter_echo(co: GenawaiterCo<u64, u64>) {
    let mut value = 0;
    loop {
        value = co.yield_(value).await;
    }
}

fn corosensei_echo() -> corosensei::Coroutine<u64, u64, ()> {
    let stack = corosensei::stack::DefaultStack::new(1 << 20).expect("a stack");
    corosensei::Coroutine::with_stack(stack, |yielder: &corosensei::Yielder<u64, u64>, mut value| {
        loop {
            value = yielder.suspend(value);
        }
    })
}

struct ThreadEcho(mpsc::SyncSender<u64>, mpsc::Receiver<u64>);

fn thread_echo() -> ThreadEcho {
    let (to, inbox) = mpsc::sync_channel(0);
    let (outbox, from) = mpsc::sync_channel(0);
    std::thread::spawn(move || {
        while let Ok(value) = inbox.recv() {
            if outbox.send(value).is_err() {
                break;
            }
        }
    });
    ThreadEcho(to, from)
}

fn sends(count: usize, mut send: impl FnMut(u64) -> u64) -> f64 {
    seconds_each(count, || {
        for value in 0..count as u64 {
            black_box(send(black_box(value)));
        }
    })
}

fn yielded<R>(step: Result<Step<u64, R>, Error>) -> u64 {
    match step {
        Ok(Step::Yielded(value)) => value,
        _ => unreachable!("the body yields forever"),
    }
}

fn timed(coroutine: &Echo, count: usize) -> f64 {
    yielded(coroutine.prime());
    sends(count, |value| yielded(coroutine.send(value)))
}

fn send(who: &str) -> f64 {
    let count = scaled(50_000_000);
    match who {
        "ropewalk" => timed(&echo(), count),
        "genawaiter" => {
            let mut generator = Gen::new(genawaiter_echo);
            generator.resume_with(0);
            sends(count, |value| match generator.resume_with(value) {
                GeneratorState::Yielded(value) => value,
                GeneratorState::Complete(()) => unreachable!("the body yields forever"),
            })
        }
        "thread" => {
            let ThreadEcho(to, from) = thread_echo();
            sends(scaled(50_000), |value| {
                to.send(value).expect("a thread");
                from.recv().expect("a thread")
            })
        }
        _ => panic!("who is {who}?"),
    }
}

fn create_and_drop(who: &str) -> f64 {
    let count = scaled(5_000_000);
    let repeat = |count: usize, one: fn()| seconds_each(count, || (0..count).for_each(|_| one()));
    match who {
        "ropewalk" => repeat(count, || drop(black_box(echo()))),
        "genawaiter" => repeat(count, || drop(black_box(Gen::new(genawaiter_echo)))),
        "thread" => repeat(scaled(10_000), || drop(black_box(thread_echo()))),
        _ => panic!("who is {who}?"),
    }
}

fn chain(depth: u32) -> Echo {
    match depth {
        0 => echo(),
        _ => Coroutine::new(move |mut co| async move { co.yield_from(chain(depth - 1)).await }),
    }
}

fn nested(depth: u32) -> Echo {
    fn descend<'f>(
        co: &'f mut Co<'static, u64, u64>,
        depth: u32,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'f>> {
        Box::pin(async move {
            if depth > 0 {
                return descend(co, depth - 1).await;
            }
            let mut value = 0;
            loop {
                value = co.yield_(value).await?;
            }
        })
    }
    Coroutine::new(move |mut co| async move { descend(&mut co, depth).await })
}

fn delegate(who: &str, depth: u32) -> f64 {
    match who {
        "ropewalk" => timed(&chain(depth), scaled(50_000_000)),
        "nested await" => timed(&nested(depth), scaled(50_000_000) / depth as usize),
        _ => panic!("who is {who}?"),
    }
}

fn stackful_send(who: &str) -> f64 {
    let count = scaled(50_000_000);
    match who {
        "ropewalk" => timed(&stackful_echo(), count),
        "corosensei" => {
            let mut coroutine = corosensei_echo();
            sends(count, |value| match coroutine.resume(value) {
                corosensei::CoroutineResult::Yield(value) => value,
                corosensei::CoroutineResult::Return(()) => unreachable!("the body yields forever"),
            })
        }
        _ => panic!("who is {who}?"),
    }
}

fn stackful_create_and_drop(who: &str) -> f64 {
    let count = scaled(200_000);
    match who {
        "ropewalk" => seconds_each(count, || {
            (0..count).for_each(|_| drop(black_box(stackful_echo())))
        }),
        "corosensei" => seconds_each(count, || {
            (0..count).for_each(|_| drop(black_box(corosensei_echo())))
        }),
        _ => panic!("who is {who}?"),
    }
}

/// Of a suspended coroutine, by what the process grows.
fn memory_each<T>(count: usize, make: impl Fn() -> T) -> f64 {
    let mut all = Vec::with_capacity(count);
    all.push(make());
    let before = resident_bytes();
    all.extend((1..count).map(|_| make()));
    let grown = resident_bytes() - before;
    // Threads are left to the end of the process.
    std::mem::forget(black_box(all));
    grown / (count - 1) as f64
}

fn started(coroutine: Echo) -> Echo {
    yielded(coroutine.prime());
    coroutine
}

fn memory(who: &str) -> f64 {
    match who {
        "ropewalk" => memory_each(scaled(200_000), || started(echo())),
        "genawaiter" => memory_each(scaled(200_000), || {
            let mut generator = Gen::new(genawaiter_echo);
            generator.resume_with(0);
            generator
        }),
        "thread" => memory_each(scaled(2_000), || {
            let echo = thread_echo();
            echo.0.send(0).expect("a thread");
            echo.1.recv().expect("a thread");
            echo
        }),
        _ => panic!("who is {who}?"),
    }
}

fn stackful_memory(who: &str) -> f64 {
    match who {
        "ropewalk" => memory_each(scaled(10_000), || started(stackful_echo())),
        "corosensei" => memory_each(scaled(10_000), || {
            let mut coroutine = corosensei_echo();
            coroutine.resume(0);
            coroutine
        }),
        _ => panic!("who is {who}?"),
    }
}

fn resident_bytes() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux's /proc");
    let resident = pages.split(' ').nth(1).expect("the second field");
    resident.parse::<f64>().expect("a number of pages") * 4096.0
}
