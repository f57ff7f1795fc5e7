"""ThreadPoolExecutor: its threads, its end, and what goes wrong around it."""

import concurrent.futures
import gc
import logging
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest

from ropewalk.futures import BrokenThreadPool, ThreadPoolExecutor

PATIENCE = 60.0


def run(program: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program that imports our pool in an interpreter of its own."""
    program = "from ropewalk.futures import *\nimport os, signal, sys, threading, time\n" + textwrap.dedent(program)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


def test_arguments_are_checked_as_in_the_standard_library() -> None:
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            ThreadPoolExecutor(max_workers=workers)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ThreadPoolExecutor(initializer=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_pending must be greater than 0"):
        ThreadPoolExecutor(max_pending=0)
    with pytest.raises(TypeError):
        ThreadPoolExecutor("two")  # type: ignore[arg-type]
    assert ThreadPoolExecutor()._max_workers == concurrent.futures.ThreadPoolExecutor()._max_workers


def test_what_cannot_be_called_fails_its_own_future() -> None:
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(5).exception()  # type: ignore[arg-type]
        assert isinstance(error, TypeError)
        assert str(error) == "'int' object is not callable"
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]


def test_arguments_reach_the_call() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda *args, **kwargs: (args, kwargs), 1, 2, fn=3, self=4).result() == (
            (1, 2),
            {"fn": 3, "self": 4},
        )


def test_threads_are_pythons_own_and_bear_the_prefix() -> None:
    with ThreadPoolExecutor(2, thread_name_prefix="flags") as pool:
        thread = pool.submit(threading.current_thread).result()
        assert (thread.name, thread.daemon) == ("flags_0", False)
        assert thread in threading.enumerate()
        assert thread in pool._threads
    assert not thread.is_alive()
    with ThreadPoolExecutor(1) as pool:
        name = pool.submit(lambda: threading.current_thread().name).result()
        assert name.startswith("ThreadPoolExecutor-")
        assert name.endswith("_0")


def test_an_idle_thread_is_used_before_a_new_one_is_started() -> None:
    with ThreadPoolExecutor(4) as pool:
        for n in range(300):
            assert pool.submit(int, n).result() == n
        assert len(pool._threads) == 1


def test_a_worker_counts_as_idle_before_another_thread_can_submit() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(100):
                # Long enough for a worker to draw breath after it.
                pool.submit(time.sleep, 0.0015).result()
            assert len(pool._threads) == 1
    finally:
        sys.setswitchinterval(interval)


def test_threads_start_on_demand_up_to_the_limit() -> None:
    with ThreadPoolExecutor(3) as pool:
        assert len(pool._threads) == 0
        together = threading.Barrier(3)
        waits = [pool.submit(together.wait, PATIENCE) for _ in range(3)]
        assert sorted(wait.result() for wait in waits) == [0, 1, 2]
        for _ in range(100):
            pool.submit(int)
        assert len(pool._threads) == 3


def test_nothing_is_accepted_after_shutdown() -> None:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(abs, -1)
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    assert future.result() == 1
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        pool.submit(abs, -1)
    with pytest.raises(RuntimeError):
        pool.map(abs, [1])


def test_shutdown_can_cancel_what_has_not_begun() -> None:
    pool = ThreadPoolExecutor(1)
    opened, begun = threading.Event(), threading.Event()
    running = pool.submit(lambda: (begun.set(), opened.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    queued = [pool.submit(int) for _ in range(10)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    assert concurrent.futures.wait(queued, PATIENCE).not_done == set()
    opened.set()
    assert running.result() == (None, True)


def test_a_pool_that_nobody_holds_ends_after_its_queue() -> None:
    pool = ThreadPoolExecutor(2)
    results = pool.map(abs, range(-50, 50))
    threads = list(pool._threads)
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is None
    assert list(results) == [abs(n) for n in range(-50, 50)]
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_failing_initializer_breaks_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    def initializer(word: str) -> None:
        raise ValueError(word)

    pool = ThreadPoolExecutor(2, initializer=initializer, initargs=("no network",))
    broken = "A thread initializer failed, the thread pool is not usable anymore"
    with pytest.raises(BrokenThreadPool, match=broken):
        pool.submit(abs, 1).result(PATIENCE)
    with pytest.raises(BrokenThreadPool, match=broken):
        pool.submit(abs, 1)
    pool.shutdown()
    assert "Exception in initializer:" in caplog.text
    assert "ValueError: no network" in caplog.text


def test_the_initializer_runs_once_in_each_thread() -> None:
    local = threading.local()

    def initializer(word: str) -> None:
        assert not hasattr(local, "word")
        local.word = word

    with ThreadPoolExecutor(2, initializer=initializer, initargs=("ready",)) as pool:
        assert {pool.submit(lambda: local.word).result() for _ in range(20)} == {"ready"}


def test_initargs_may_be_any_iterable() -> None:
    words: list[str] = []
    with ThreadPoolExecutor(1, initializer=words.append, initargs=["ready"]) as pool:
        assert pool.submit(abs, -1).result(PATIENCE) == 1
    assert words == ["ready"]
    pool = ThreadPoolExecutor(1, initializer=words.append, initargs=5)  # type: ignore[arg-type]
    with pool, pytest.raises(BrokenThreadPool):
        pool.submit(abs, -1).result(PATIENCE)


def test_a_failing_initializer_breaks_the_pool_even_if_it_cannot_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise LookupError("no log")

    monkeypatch.setattr(logging.getLogger("concurrent.futures"), "critical", fails)
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with ThreadPoolExecutor(1, initializer=fails) as pool, pytest.raises(BrokenThreadPool):
        pool.submit(abs, -1).result(PATIENCE)
    assert [type(report.exc_value) for report in unraisable] == [LookupError]


@pytest.mark.parametrize("workers_before", [0, 1])
def test_a_submit_interrupted_while_it_starts_a_thread_leaves_the_pool_whole(
    monkeypatch: pytest.MonkeyPatch, workers_before: int
) -> None:
    with ThreadPoolExecutor(2) as pool:
        opened = threading.Event()
        for _ in range(workers_before):
            begun = threading.Event()
            pool.submit(lambda begun=begun: (begun.set(), opened.wait(PATIENCE)))
            assert begun.wait(PATIENCE)

        class Interrupted(threading.Thread):
            def start(self) -> None:
                super().start()
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(abs, -1)
        assert pool.submit(abs, -2).result(PATIENCE) == 2
        assert pool.submit(abs, -3).result(PATIENCE) == 3
        opened.set()


def test_a_pool_that_gets_no_thread_says_so_and_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    class None_(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", None_)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(abs, -1)
        assert pool.submit(abs, -2).result(PATIENCE) == 2


def test_a_submit_inside_a_submit_that_starts_a_thread_does_not_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a signal handler does that submits.
    with ThreadPoolExecutor(2) as pool:
        inner: list[Any] = []

        class Nested(threading.Thread):
            def start(self) -> None:
                if not inner:
                    inner.append(None)
                    inner[0] = pool.submit(abs, -1)
                super().start()

        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", Nested)
            assert pool.submit(abs, -2).result(PATIENCE) == 2
        assert inner[0].result(PATIENCE) == 1


def test_shutdown_waits_for_a_thread_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPoolExecutor(1)
    ran: list[int] = []
    seen: list[list[int]] = []
    starting, started = threading.Event(), threading.Event()
    submitter = threading.Thread(target=pool.submit, args=(ran.append, 1))
    shutdown = threading.Thread(target=lambda: (pool.shutdown(), seen.append(list(ran))))

    class Slow(threading.Thread):
        def start(self) -> None:
            starting.set()
            assert started.wait(PATIENCE)
            super().start()

    monkeypatch.setattr(threading, "Thread", Slow)
    submitter.start()
    assert starting.wait(PATIENCE)
    shutdown.start()
    # Time for it to return too early; too little of it fails nothing.
    shutdown.join(0.05)
    started.set()
    shutdown.join(PATIENCE)
    submitter.join(PATIENCE)
    assert seen == [[1]]


def test_cancelling_what_is_queued_passes_over_futures_that_were_meddled_with() -> None:
    pool = ThreadPoolExecutor(1)
    opened, begun = threading.Event(), threading.Event()
    pool.submit(lambda: (begun.set(), opened.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    queued = [pool.submit(abs, -1) for _ in range(3)]
    queued[0].set_result(7)
    pool.shutdown(wait=False, cancel_futures=True)
    assert queued[0].result() == 7
    assert all(future.cancelled() for future in queued[1:])
    opened.set()


def test_a_bounded_pool_makes_its_submitter_wait() -> None:
    with ThreadPoolExecutor(1, max_pending=2) as pool:
        opened, begun = threading.Event(), threading.Event()
        pool.submit(lambda: (begun.set(), opened.wait(PATIENCE)))
        assert begun.wait(PATIENCE)
        results: list[int] = []
        submitter = threading.Thread(target=lambda: results.extend(pool.map(int, range(20))))
        submitter.start()
        while pool._work_queue.qsize() < 2:
            submitter.join(0.001)
        assert submitter.is_alive()
        opened.set()
        submitter.join(PATIENCE)
        assert results == list(range(20))


def test_a_call_that_fills_its_own_pool_gets_an_error_instead_of_a_deadlock() -> None:
    with ThreadPoolExecutor(1, max_pending=1) as pool:

        def fills() -> None:
            pool.submit(int)
            pool.submit(int)

        with pytest.raises(queue.Full):
            pool.submit(fills).result(PATIENCE)


def test_a_call_may_submit_to_its_own_pool() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(lambda: pool.submit(pow, 2, 3).result(PATIENCE)).result(PATIENCE) == 8


def test_a_subclass_may_take_other_arguments_and_extend_submit() -> None:
    class Pool(ThreadPoolExecutor):
        def __init__(self, word: str) -> None:
            super().__init__(1)
            self.word = word

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(fn, self.word, *args, **kwargs)

    with Pool("x") as pool:
        assert pool.submit(str.upper).result() == "X"
        assert list(pool.map(str.__add__, "ab")) == ["xa", "xb"]


def test_ten_thousand_pools_leave_nothing_behind() -> None:
    threads = threading.active_count()
    for n in range(10_000):
        pool = ThreadPoolExecutor(1)
        if n % 50 == 0:
            pool.submit(abs, n)
        pool.shutdown()
    assert threading.active_count() == threads
    if os.path.exists("/proc/self/fd"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            with ThreadPoolExecutor(2) as pool:
                pool.map(int, range(4))
        assert len(os.listdir("/proc/self/fd")) == before


def test_many_threads_submit_and_cancel_at_random() -> None:
    counts: queue.SimpleQueue[int] = queue.SimpleQueue()
    with ThreadPoolExecutor(4) as pool:

        def submits(seed: int) -> None:
            futures = [pool.submit(pow, seed, 1) for _ in range(500)]
            cancelled = sum(future.cancel() for future in futures[::3])
            done = sum(not future.cancelled() and future.result(PATIENCE) == seed for future in futures)
            counts.put(cancelled + done)

        threads = [threading.Thread(target=submits, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [counts.get() for _ in threads] == [500] * 8


def test_c_functions_in_a_row_do_not_keep_the_gil() -> None:
    # Never a Python function, never an empty queue: without a breath this thread would have to wait for the end of it.
    pool = ThreadPoolExecutor(1)
    opened, begun = threading.Event(), threading.Event()
    pool.submit(lambda: (begun.set(), opened.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    calls = [pool.submit(pow, 3, 100_000) for _ in range(20_000)]
    opened.set()
    calls[0].result(PATIENCE)
    assert not calls[-1].done()
    pool.shutdown(cancel_futures=True)


def test_queued_calls_are_made_before_the_interpreter_exits() -> None:
    outcome = run(
        """
        pool = ThreadPoolExecutor(1)
        for n in range(5):
            pool.submit(lambda n=n: (time.sleep(0.01), print(n, flush=True)))
        """
    )
    assert (outcome.stdout.split(), outcome.stderr, outcome.returncode) == (list("01234"), "", 0)


def test_submitting_while_the_interpreter_exits_is_an_error() -> None:
    outcome = run(
        """
        pool = ThreadPoolExecutor(1)
        def late():
            while True:
                try:
                    pool.submit(abs, 1)
                except RuntimeError as error:
                    print(error)
                    break
        pool.submit(late)
        """
    )
    assert outcome.stdout == "cannot schedule new futures after interpreter shutdown\n"
    assert (outcome.stderr, outcome.returncode) == ("", 0)


def test_a_pool_made_after_the_interpreter_began_to_exit_accepts_nothing() -> None:
    outcome = run(
        """
        import atexit
        def late():
            try:
                ThreadPoolExecutor(1).submit(abs, -1)
            except RuntimeError as error:
                print(error)
        atexit.register(late)
        """
    )
    assert outcome.stdout == "cannot schedule new futures after interpreter shutdown\n"
    assert (outcome.stderr, outcome.returncode) == ("", 0)


@pytest.mark.parametrize("waits", ["future.result()", "wait([future])", "next(as_completed([future]))", "full()"])
def test_ctrl_c_ends_a_wait(waits: str) -> None:
    outcome = run(
        f"""
        pool = ThreadPoolExecutor(1, max_pending=1)
        opened, begun = threading.Event(), threading.Event()
        future = pool.submit(lambda: (begun.set(), opened.wait()))
        begun.wait()
        def full():
            pool.submit(int)
            pool.submit(int)
        armed = False
        def interrupt(*_):
            global armed
            if armed:
                armed = False
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, interrupt)
        def interrupts():
            # Again and again: the first may come before the wait.
            while not opened.wait(0.05):
                os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupts).start()
        try:
            armed = True
            {waits}
        except KeyboardInterrupt:
            print("interrupted")
        opened.set()
        """
    )
    assert (outcome.stdout, outcome.stderr, outcome.returncode) == ("interrupted\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_begins_anew_in_the_child_of_a_fork() -> None:
    outcome = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(2)
        opened, begun = threading.Event(), threading.Event()
        pool.submit(lambda: (begun.set(), opened.wait()))
        pool.submit(opened.wait)
        begun.wait()
        queued = pool.submit(abs, -1)
        pid = os.fork()
        if pid == 0:
            print("child", queued.cancelled(), pool.submit(pow, 2, 3).result(), flush=True)
            pool.shutdown()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        opened.set()
        print("parent", queued.result(), pool.submit(pow, 2, 4).result())
        """
    )
    assert (outcome.stdout, outcome.stderr, outcome.returncode) == ("child True 8\nparent 1 16\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_waits_for_no_lock_and_leaves_the_callbacks_to_the_parent() -> None:
    outcome = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        parent = os.getpid()
        pool = ThreadPoolExecutor(1)
        opened, begun, held = (threading.Event() for _ in range(3))
        pool.submit(lambda: (begun.set(), opened.wait()))
        begun.wait()
        queued = pool.submit(abs, -1)
        queued.add_done_callback(lambda future: print("called", os.getpid() == parent, future.result(), flush=True))
        def holds():
            with queued._condition:
                held.set()
                opened.wait()
        threading.Thread(target=holds).start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            print("child", queued.cancelled(), queued._state, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        opened.set()
        """
    )
    expected = "child True CANCELLED_AND_NOTIFIED\ncalled True 1\n"
    assert (outcome.stdout, outcome.stderr, outcome.returncode) == (expected, "", 0)
