"""The examples. Most print what `examples/expected` says; their Rust twins are held to the same files."""

import itertools
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = [
    "simple_coro2",
    "averager",
    "averager_result",
    "grouper",
    "thrown_errors",
    "clean_up",
    "delegation_chain",
    "lost_update",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_is_expected(name, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == (EXAMPLES / "expected" / f"{name}.txt").read_text()


def run(name, capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_spinner_turns_until_the_answer_is_there(capsys, monkeypatch):
    output = run("spinner_thread", capsys, monkeypatch, "0.25")
    first, rest = output.split("\n", 1)
    assert re.fullmatch(r"spinner object: <Thread\(Thread-\d+ \(spin\), initial\)>", first)
    empty, *frames, blanks, answer = rest.split("\r")
    assert (empty, blanks, answer) == ("", " " * 12, "Answer: 42\n")
    assert frames
    assert frames == [f"{turn} thinking!" for turn in itertools.islice(itertools.cycle(r"\|/-"), len(frames))]


@pytest.mark.skipif(sys.platform != "linux", reason="watches the GIL on Linux alone")
def test_the_contention_of_threads_and_processes_is_reported(capsys, monkeypatch):
    head, *rows = run("gil_contention", capsys, monkeypatch, "100000").splitlines()
    assert head.split() == ["seconds", "GIL", "held", "waited", "for", "threads", "waiting"]
    ways = ["one_after_the_other", "threads", "processes"]
    assert [row.split()[:2] for row in rows] == [[work, way] for work in ("compute", "wait") for way in ways]
    assert all(re.search(r" \d+\.\d\d +\d+% +\d+% +\d+\.\d$", row) for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="process pools are there on Linux alone")
def test_all_ways_find_the_same_primes(capsys, monkeypatch):
    head, *rows = run("primes", capsys, monkeypatch, "10000").splitlines()
    assert head.split() == ["primes", "by", "found", "seconds", "speed-up"]
    assert [row.split()[:2] for row in rows] == [[way, "1229"] for way in ("one_thread", "threads", "processes")]
