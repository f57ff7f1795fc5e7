"""`ropewalk.gil`. The loads are made without computing: what holds the GIL sleeps while it does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ropewalk import gil

linux = pytest.mark.skipif(sys.platform != "linux", reason="watches the GIL on Linux alone")

LONG = 60
# A call through PyDLL keeps the GIL, one through CDLL releases it.
sleep_with_gil = ctypes.PyDLL(None).usleep
sleep_without_gil = ctypes.CDLL(None).usleep


@contextlib.contextmanager
def computing(count: int) -> Iterator[None]:
    """Threads that want the GIL all the time."""
    over = False

    def compute() -> None:
        while not over:
            pass

    threads = [threading.Thread(target=compute) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over = True
        for thread in threads:
            thread.join(LONG)


def test_it_is_enabled_unless_the_interpreter_says_otherwise(monkeypatch):
    assert gil.enabled() is getattr(sys, "_is_gil_enabled", lambda: True)()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert gil.enabled() is False
    with gil.contention() as measured:
        pass
    assert (measured.seconds, measured.held, measured.waited) == (0, 0, 0)


def test_the_switch_interval_is_that_of_sys():
    before = gil.getswitchinterval()
    assert before == sys.getswitchinterval()
    try:
        gil.setswitchinterval(0.25)
        assert sys.getswitchinterval() == gil.getswitchinterval() == 0.25
        for bad in (0, -1.0):
            with pytest.raises(ValueError, match="switch interval must be strictly positive"):
                gil.setswitchinterval(bad)
        assert gil.getswitchinterval() == 0.25
    finally:
        gil.setswitchinterval(before)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be greater than 0"):
        gil.contention(rate=rate)


@linux
def test_an_idle_program_neither_holds_nor_waits():
    with gil.contention() as measured:
        time.sleep(0.3)
    assert measured.held < 0.3
    assert measured.waited < 0.3
    assert measured.seconds > 0.25
    assert measured.samples > 0


@linux
def test_a_thread_that_keeps_the_gil_holds_it_and_lets_nobody_wait_who_does_not_want_it():
    with gil.contention() as measured:
        sleep_with_gil(300_000)
    assert measured.held > 0.7
    assert measured.waited < 0.3
    assert measured.waiting < 0.3


@linux
def test_threads_that_want_what_another_keeps_wait():
    with computing(3), gil.contention() as measured:
        sleep_with_gil(500_000)
    assert measured.held > 0.7
    assert measured.waited > 0.7
    assert 2 < measured.waiting < 4


@linux
def test_a_thread_that_works_without_the_gil_does_not_hold_it():
    with gil.contention() as measured:
        sleep_without_gil(300_000)
    assert measured.held < 0.3


@linux
def test_the_figures_can_be_read_meanwhile_and_add_up_over_several_uses():
    measured = gil.contention(rate=1000)
    assert (measured.samples, measured.seconds, measured.held, measured.waited, measured.waiting) == (0, 0, 0, 0, 0)
    with measured:
        while measured.samples < 3:
            time.sleep(0.001)
        first = measured.seconds
        assert first > 0
    between = measured.samples
    time.sleep(0.01)
    assert measured.samples == between, "nobody looks outside of the block"
    with measured:
        sleep_with_gil(100_000)
    assert measured.seconds > first + 0.09


@linux
def test_it_measures_once_however_often_it_is_entered():
    measured = gil.contention()
    with measured:
        with measured:
            sleep_with_gil(50_000)
        inner = measured.samples
        sleep_with_gil(50_000)
    assert measured.samples > inner
    assert measured.seconds < 10

    with computing(1):
        threads = [threading.Thread(target=lambda: measured.__enter__().__exit__()) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    ended = measured.samples
    time.sleep(0.02)
    assert measured.samples == ended


@linux
def test_it_decorates_functions_and_coroutine_functions():
    measured = gil.contention()

    @measured
    def work(one: int, *, two: int) -> int:
        """Doc."""
        sleep_with_gil(20_000)
        return one + two

    @measured
    async def work_async(one: int) -> int:
        await asyncio.sleep(0.02)
        return one

    assert work(1, two=2) == 3
    assert (work.__name__, work.__doc__) == ("work", "Doc.")
    seconds = measured.seconds
    assert seconds > 0.015
    assert asyncio.iscoroutinefunction(work_async) if sys.version_info < (3, 14) else True
    assert asyncio.run(work_async(7)) == 7
    assert measured.seconds > seconds + 0.015


@linux
def test_an_exception_comes_through_and_ends_the_measurement():
    measured = gil.contention()
    with pytest.raises(KeyError), measured:
        raise KeyError("mine")
    samples = measured.samples
    time.sleep(0.02)
    assert measured.samples == samples


@linux
def test_it_reads_well():
    with gil.contention() as measured:
        sleep_with_gil(20_000)
    text = str(measured)
    assert text.startswith("GIL held ")
    assert text.endswith("by 0.0 threads on average")


def threads_of_ours() -> list[str]:
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    return [name for name in names if name.startswith("ropewalk-gil")]


@linux
def test_no_thread_is_left_behind():
    for _ in range(50):
        with gil.contention():
            pass
    assert threads_of_ours() == []

    gil.contention().__enter__()
    gc.collect()
    deadline = time.monotonic() + LONG
    while threads_of_ours() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threads_of_ours() == []


@linux
def test_a_measurement_may_be_running_at_a_fork_and_at_the_end_of_the_program():
    program = """
        import os, warnings
        from ropewalk import gil
        warnings.simplefilter("ignore", DeprecationWarning)
        measured = gil.contention()
        with measured:
            if not (pid := os.fork()):
                measured.__exit__()
                with measured:
                    pass
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        measured.__enter__()
        print("end")
    """
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
