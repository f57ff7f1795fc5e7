//! The examples, run as a person runs them. Most print what `examples/expected` says; their Python twins are held to
//! the same files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

fn run(example: &str, arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO"))
        .args("run --quiet --locked --package ropewalk --all-features --example".split(' '))
        .args([example, "--"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

fn prints_what_is_expected(example: &str) {
    let expected =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/expected/{example}.txt"));
    assert_eq!(run(example, &[]), std::fs::read_to_string(expected).unwrap());
}

macro_rules! examples {
    ($($name:ident)*) => {
        $(#[test] fn $name() { prints_what_is_expected(stringify!($name)); })*
    };
}

examples! { simple_coro2 averager averager_result grouper thrown_errors clean_up delegation_chain lost_update toy_interpreter }

#[test]
fn the_spinner_turns_until_the_answer_is_there() {
    let output = run("spinner_thread", &["0.25"]);
    let (first, rest) = output.split_once('\n').unwrap();
    assert!(first.starts_with("spinner object: "));
    let parts: Vec<&str> = rest.split('\r').collect();
    let (frames, end) = parts.split_at(parts.len() - 2);
    assert_eq!(end, [" ".repeat(12).as_str(), "Answer: 42\n"]);
    assert_eq!(frames[0], "");
    assert!(frames.len() > 1);
    for (frame, turn) in frames[1..].iter().zip(r"\|/-".chars().cycle()) {
        assert_eq!(*frame, format!("{turn} thinking!"));
    }
}

#[test]
fn both_policies_serve_all_requests() {
    let output = run("gil_policies", &["5"]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, policy) in lines.iter().zip(["Cpython", "IoPriority"]) {
        assert!(
            line.starts_with(&format!("{policy}: 5 requests waited ")),
            "{line}"
        );
        assert!(line.ends_with(" forced switches"), "{line}");
    }
}

#[test]
fn all_ways_find_the_same_primes() {
    let output = run("primes", &["10000"]);
    let ways: Vec<&str> = output.lines().skip(1).map(|line| line[..20].trim()).collect();
    assert_eq!(ways[..3], ["one thread", "threads", "threads with a Gil"]);
    assert_eq!(ways.len(), if cfg!(target_os = "linux") { 4 } else { 3 });
    for line in output.lines().skip(1) {
        assert_eq!(line[20..].split_whitespace().next(), Some("1229"), "{line}");
    }
}
