//! The examples, run as a person runs them. Most print what `examples/expected` says; their Python twins are held to
//! the same files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

fn command(example: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args("run --quiet --locked --package ropewalk --all-features --example".split(' '))
        .args([example, "--"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    command
}

fn run(example: &str, arguments: &[&str]) -> String {
    let run = command(example, arguments).output().unwrap();
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

#[cfg(target_os = "linux")]
examples! { hello return_values group_clean_up }

#[test]
fn the_spinner_turns_until_the_answer_is_there() {
    spinner_turns("spinner_thread", "spinner object: ");
}

#[cfg(target_os = "linux")]
#[test]
fn the_spinner_of_a_coroutine_turns_and_does_not_when_the_loop_is_blocked() {
    let object = "spinner object: <Task pending name='Task-2'>";
    spinner_turns("spinner_coroutine", object);
    let blocked = run("spinner_coroutine", &["0.01", "--blocked"]);
    assert_eq!(blocked, format!("{object}\nAnswer: 42\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn tasks_wait_at_the_same_time() {
    let output = run("say_after", &["0.05"]);
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["in_turn:", "hello", "world"]);
    assert_eq!(lines[4..7], ["by_create_task:", "hello", "world"]);
    for line in [lines[3], lines[7]] {
        assert!(line.starts_with("took ") && line.ends_with(" s"), "{line}");
    }
    let output = run("two_io_tasks", &["0.05"]);
    let lines: Vec<&str> = output.lines().collect();
    let expected = [
        "task 1 begins",
        "task 2 begins",
        "task 1 is done, which took 2 s",
        "task 2 is done, which took 3 s",
        r#"["result 1", "result 2"]"#,
    ];
    assert_eq!(lines[..5], expected);
    assert!(lines[5].starts_with("both took "));
}

#[cfg(target_os = "linux")]
#[test]
fn callbacks_are_called_in_the_order_of_their_adding() {
    let expected = "before the loop runs: done: false\nthe task runs\nfirst callback: done: true\n\
                    second callback: done: true\ntoo late, so called at the loop's next turn: done: true\nresult: 42\n";
    assert_eq!(run("callbacks", &[]), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_known_are_marked() {
    assert_eq!(
        run("dns_probe", &["127.0.0.1", "", "::1"]),
        "+ 127.0.0.1\n+ ::1\n  \n"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn dates_are_printed_until_ctrl_c() {
    use std::io::{BufRead, BufReader, Read};

    // Cargo becomes the example, which so has its number.
    let mut process = command("date_printers", &["0.01"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).unwrap(), 0);
        let (task, time) = line.split_once(" Time: ").unwrap();
        assert!(time.trim_end().parse::<f64>().unwrap() > 0.0);
        seen.insert(task.to_owned());
    }
    assert!(seen.iter().eq(["Task: 1", "Task: 2"]));
    // SAFETY: a system call on numbers; the process is not waited for yet.
    assert_eq!(unsafe { libc::kill(process.id() as i32, libc::SIGINT) }, 0);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\nstopped by Ctrl-C\n"), "{rest}");
    assert!(process.wait().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn an_http_client_asks_a_server_by_hyper() {
    let output = run("http_client", &[]);
    let lines: Vec<_> = output
        .lines()
        .map(|line| line.split_once("http://127.0.0.1:").unwrap().1)
        .map(|line| line.split_once('/').unwrap().1)
        .collect();
    assert_eq!(
        lines,
        ["hello: 200 OK, 12 bytes", "flag: 404 Not Found, 12 bytes"]
    );
}

fn spinner_turns(example: &str, object: &str) {
    let output = run(example, &["0.25"]);
    let (first, rest) = output.split_once('\n').unwrap();
    assert!(first.starts_with(object), "{first}");
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
