//! The examples print what `examples/expected` says; their Python twins are held to the same files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

fn prints_what_is_expected(example: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let expected = std::fs::read_to_string(root.join(format!("examples/expected/{example}.txt"))).unwrap();
    let run = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "ropewalk",
            "--all-features",
            "--example",
            example,
        ])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
}

macro_rules! examples {
    ($($name:ident)*) => {
        $(#[test] fn $name() { prints_what_is_expected(stringify!($name)); })*
    };
}

examples! { simple_coro2 averager averager_result grouper thrown_errors clean_up delegation_chain }
