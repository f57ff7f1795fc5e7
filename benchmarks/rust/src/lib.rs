//! What every Rust benchmark program shares: its arguments, and the line that it prints.

use std::time::Instant;

/// Measures one contender, by its name: seconds an operation for units of time, else the value itself.
pub type Bench = fn(&str) -> f64;

/// Runs the bench that the command line names, `PROGRAM WHO BENCH [--quick]`, and prints its result as a line of JSON.
///
/// # Panics
/// If there is no such bench.
pub fn main(benches: &[(&str, &str, Bench)]) {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, who, name, ..] = &arguments[..] else {
        panic!("usage: {} WHO BENCH [--quick]", arguments[0]);
    };
    let (_, unit, bench) = benches
        .iter()
        .find(|bench| bench.0 == name)
        .expect("a bench of this program");
    let scale = match *unit {
        "ns" => 1e9,
        "us" => 1e6,
        "ms" => 1e3,
        _ => 1.0,
    };
    let value = bench(who) * scale;
    println!(r#"{{"bench": "{name}", "who": "{who}", "unit": "{unit}", "value": {value}}}"#);
}

/// `count`, or a tenth of it in a quick run.
pub fn scaled(count: usize) -> usize {
    if std::env::args().any(|word| word == "--quick") {
        (count / 10).max(1)
    } else {
        count
    }
}

/// Seconds that one of `count` operations takes, when `work` does them all.
pub fn seconds_each(count: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64() / count as f64
}
