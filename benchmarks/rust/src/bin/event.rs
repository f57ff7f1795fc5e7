//! The Event against one made of a mutex and a condition variable, as CPython makes its own.

use std::sync::{Condvar, Mutex};
use std::thread;

use ropewalk_benchmarks::{scaled, seconds_each};

fn main() {
    ropewalk_benchmarks::main(&[
        ("set + wait + clear", "ns", |who| {
            with(who, one_thread, one_thread)
        }),
        ("round trip", "us", |who| with(who, round_trip, round_trip)),
    ]);
}

trait Event: Default + Sync {
    fn set(&self);
    fn clear(&self);
    fn wait(&self);
}

impl Event for ropewalk::threading::Event {
    fn set(&self) {
        Self::set(self);
    }

    fn clear(&self) {
        Self::clear(self);
    }

    fn wait(&self) {
        Self::wait(self, None);
    }
}

#[derive(Default)]
struct Condition {
    flag: Mutex<bool>,
    condition: Condvar,
}

impl Event for Condition {
    fn set(&self) {
        *self.flag.lock().expect("no panic") = true;
        self.condition.notify_all();
    }

    fn clear(&self) {
        *self.flag.lock().expect("no panic") = false;
    }

    fn wait(&self) {
        let flag = self.flag.lock().expect("no panic");
        drop(self.condition.wait_while(flag, |set| !*set).expect("no panic"));
    }
}

fn with(
    who: &str,
    ours: fn(&ropewalk::threading::Event, &ropewalk::threading::Event) -> f64,
    theirs: fn(&Condition, &Condition) -> f64,
) -> f64 {
    match who {
        "ropewalk" => ours(&Default::default(), &Default::default()),
        _ => theirs(&Default::default(), &Default::default()),
    }
}

fn one_thread<E: Event>(event: &E, _: &E) -> f64 {
    let count = scaled(20_000_000);
    seconds_each(count, || {
        for _ in 0..count {
            event.set();
            event.wait();
            event.clear();
        }
    })
}

fn round_trip<E: Event>(ping: &E, pong: &E) -> f64 {
    let count = scaled(20_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                ping.wait();
                ping.clear();
                pong.set();
            }
        });
        seconds_each(count, || {
            for _ in 0..count {
                ping.set();
                pong.wait();
                pong.clear();
            }
        })
    })
}
