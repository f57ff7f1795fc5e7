//! The flag downloader in Rust, run as a person runs it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::{fs, io};

#[test]
fn every_way_saves_all_flags_but_those_that_it_names_as_failed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("flags");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    let run = Command::new(env!("CARGO"))
        .args("run --quiet --locked --package ropewalk --all-features --example flags --".split(' '))
        .args("--latency 0 --error-rate 0.2 --folder".split(' '))
        .arg(&folder)
        .current_dir(root)
        .output()
        .unwrap();
    let output = String::from_utf8(run.stdout).unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stderr), "");
    assert_eq!(run.status.code(), Some(1));

    for way in [
        "sequentially",
        "threads",
        "processes",
        "coroutines",
        "mixed",
        "mixed_awaited",
    ] {
        let failed: Vec<&str> = output
            .lines()
            .filter(|line| {
                line.starts_with("failed: ") && line.ends_with(&format!("({way}): http status: 503"))
            })
            .map(|line| &line[8..10])
            .collect();
        assert!(!failed.is_empty(), "{output}");
        let mut saved = 0;
        for entry in fs::read_dir(folder.join(way)).unwrap() {
            let path = entry.unwrap().path();
            assert!(fs::read(&path).unwrap().starts_with(b"GIF87a"));
            assert!(!failed.contains(&path.file_stem().unwrap().to_str().unwrap()));
            saved += 1;
        }
        assert_eq!(saved + failed.len(), 20);
        let row = output
            .lines()
            .find(|line| line.split_whitespace().next() == Some(way) && line.ends_with('x'))
            .unwrap();
        assert_eq!(row.split_whitespace().nth(1), Some(saved.to_string().as_str()));
    }
}
