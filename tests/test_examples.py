"""The examples. Most print what `examples/expected` says; their Rust twins are held to the same files."""

import io
import itertools
import keyword
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
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
    "hello",
    "return_values",
    "callbacks",
    "two_kinds",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_is_expected(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *(["0.01"] if name == "hello" else [])])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == (EXAMPLES / "expected" / f"{name}.txt").read_text()


def run(name, capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_the_spinner_turns_until_the_answer_is_there(capsys, monkeypatch):
    check_spinner(run("spinner_thread", capsys, monkeypatch, "0.25"), r"<Thread\(Thread-\d+ \(spin\), initial\)>")


TASK = r"<Task pending name='Task-\d+' coro=<spin\(\) running at .*spinner_coroutine\.py:\d+>>"


def test_the_spinner_in_a_task_turns_until_it_is_cancelled(capsys, monkeypatch):
    check_spinner(run("spinner_coroutine", capsys, monkeypatch, "0.25"), TASK)


def test_a_spinner_never_begins_beside_a_coroutine_that_blocks_the_thread(capsys, monkeypatch):
    first, rest = run("spinner_coroutine", capsys, monkeypatch, "0.25", "--blocked").split("\n", 1)
    assert re.fullmatch(f"spinner object: {TASK}", first)
    assert rest == "Answer: 42\n"


def check_spinner(output, spinner):
    first, rest = output.split("\n", 1)
    assert re.fullmatch(f"spinner object: {spinner}", first)
    empty, *frames, blanks, answer = rest.split("\r")
    assert (empty, blanks, answer) == ("", " " * 12, "Answer: 42\n")
    assert frames
    assert frames == [f"{turn} thinking!" for turn in itertools.islice(itertools.cycle(r"\|/-"), len(frames))]


def test_coroutines_say_after_in_turn_and_by_create_task(capsys, monkeypatch):
    first, second = re.fullmatch(
        r"in_turn:\n {5}hello\n {5}world\ntook (.+) s\nby_create_task:\n {5}hello\n {5}world\ntook (.+) s\n",
        run("say_after", capsys, monkeypatch, "0.05"),
    ).groups()
    # Timers never fire early.
    assert float(first) >= 0.15
    assert float(second) >= 0.10


def test_two_tasks_wait_for_input_at_the_same_time(capsys, monkeypatch):
    *lines, last = run("two_io_tasks", capsys, monkeypatch, "0.05").splitlines()
    assert lines[:2] == ["task 1 begins", "task 2 begins"]
    assert sorted(lines[2:4]) == ["task 1 is done, which took 2 s", "task 2 is done, which took 3 s"]
    assert lines[4:] == ["['result 1', 'result 2']"]
    assert float(re.fullmatch(r"both took (.+) s", last)[1]) >= 3


def test_a_name_is_told_of_as_soon_as_its_answer_is_there(capsys, monkeypatch):
    others_are_told_of = threading.Event()

    class Output(io.StringIO):
        def write(self, text):
            length = super().write(text)
            if "last.dev" in self.getvalue() and "unknown.dev" in self.getvalue():
                others_are_told_of.set()
            return length

    def getaddrinfo(host, *_, **__):
        if host == "first.dev":
            assert others_are_told_of.wait(150)
        if host == "unknown.dev":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(sys, "stdout", Output())
    run("dns_probe", capsys, monkeypatch, "first.dev", "unknown.dev", "last.dev")
    *others, last = sys.stdout.getvalue().splitlines()
    assert (sorted(others), last) == (["  unknown.dev", "+ last.dev"], "+ first.dev")


def test_the_names_that_are_asked_for_by_default_are_short_keywords(capsys, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    output = run("dns_probe", capsys, monkeypatch)
    assert sorted(output.splitlines()) == sorted(f"+ {word}.dev".lower() for word in keyword.kwlist if len(word) <= 4)


def test_the_dates_are_printed_until_ctrl_c():
    # A test run in the background is told to ignore it, and what it starts would be, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, str(EXAMPLES / "date_printers.py"), "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            seen = set()
            while len(seen) < 2:
                seen.add(
                    re.sub(r"Time: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$", "", process.stdout.readline().rstrip("\n"))
                )
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    assert seen == {"Task: 1 ", "Task: 2 "}
    assert output.endswith("\nstopped by Ctrl-C\n")
    assert (process.returncode, errors) == (0, "")


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
