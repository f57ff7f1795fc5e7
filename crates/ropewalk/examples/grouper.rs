//! `yield_from`: the caller sends values through `grouper` to the averager beneath it, whose result comes back there.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ropewalk::coroutine::{Coroutine, Error};

struct Result {
    count: u32,
    average: f64,
}

type Results<'a> = RefCell<BTreeMap<&'a str, Result>>;

fn averager<'a>() -> Coroutine<'a, (), Option<f64>, Result> {
    Coroutine::new(|mut co| async move {
        let (mut total, mut count) = (0.0, 0);
        while let Some(term) = co.yield_(()).await? {
            total += term;
            count += 1;
        }
        Ok(Result {
            count,
            average: total / f64::from(count),
        })
    })
}

fn grouper<'a>(results: &'a Results<'a>, key: &'a str) -> Coroutine<'a, (), Option<f64>> {
    Coroutine::new(move |mut co| async move {
        loop {
            let result = co.yield_from(averager()).await?;
            results.borrow_mut().insert(key, result);
        }
    })
}

fn report(results: &Results<'_>) {
    for (key, result) in results.borrow().iter() {
        let (group, unit) = key.split_once(';').unwrap_or((key, ""));
        println!(
            "{:2} {group:5} averaging {:.2}{unit}",
            result.count, result.average
        );
    }
}

const DATA: [(&str, &[f64]); 4] = [
    (
        "girls;kg",
        &[40.9, 38.5, 44.3, 42.2, 45.2, 41.7, 44.5, 38.0, 40.6, 44.5],
    ),
    (
        "girls;m",
        &[1.6, 1.51, 1.4, 1.3, 1.41, 1.39, 1.33, 1.46, 1.45, 1.43],
    ),
    ("boys;kg", &[39.0, 40.8, 43.2, 40.8, 43.1, 38.6, 41.4, 40.6, 36.3]),
    ("boys;m", &[1.38, 1.5, 1.32, 1.25, 1.37, 1.48, 1.25, 1.49, 1.46]),
];

fn main() -> std::result::Result<(), Error> {
    let results = Results::default();
    for (key, values) in DATA {
        let group = grouper(&results, key);
        group.prime()?;
        for &value in values {
            group.send(Some(value))?;
        }
        group.send(None)?; // ends the averager; without it nothing would be reported
    }
    report(&results);
    Ok(())
}
