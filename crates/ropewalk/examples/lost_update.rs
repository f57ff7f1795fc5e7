//! A Gil is not thread safety: a switch between reading and writing loses an update.
//!
//! Where a switch comes is up to chance; here two events make it come at the worst moment. The guard lends no reference
//! across a switch, so that to lose an update in Rust takes a copy that is made by hand.

use std::sync::{Mutex, PoisonError};
use std::thread;

use ropewalk::gil::{Gil, GilGuard};
use ropewalk::threading::Event;

/// Other threads may run in `between`, as they may between any two bytecodes.
fn deposit(balance: &mut GilGuard<'_, i32>, amount: i32, between: impl FnOnce()) {
    let before = **balance;
    balance.release_for(between);
    **balance = before + amount;
}

fn without_a_lock() -> i32 {
    let balance = Gil::new(0);
    let (first_has_read, second_is_done) = (Event::new(), Event::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            deposit(&mut balance.acquire(), 10, || {
                first_has_read.set();
                second_is_done.wait(None);
            });
        });
        scope.spawn(|| {
            first_has_read.wait(None);
            deposit(&mut balance.acquire(), 10, || ());
            second_is_done.set();
        });
    });
    balance.into_inner()
}

fn with_a_lock() -> i32 {
    let balance = Gil::new(0);
    let lock = Mutex::new(());
    let first_has_read = Event::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
            deposit(&mut balance.acquire(), 10, || first_has_read.set());
        });
        scope.spawn(|| {
            first_has_read.wait(None);
            let _lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
            deposit(&mut balance.acquire(), 10, || ());
        });
    });
    balance.into_inner()
}

fn main() {
    println!("two deposits of 10");
    println!("without a lock: {}", without_a_lock());
    println!("with a lock: {}", with_a_lock());
}
