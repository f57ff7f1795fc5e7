"""`ropewalk.threading.Event`. CPython's own tests of it run in tests/conformance."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ropewalk.threading import Event

# A limit that ends a test which would hang.
LONG = 60


@contextlib.contextmanager
def running(*functions: Callable[[], Any]) -> Iterator[list[Any]]:
    """Runs functions in threads of their own; gives the list of their results, complete when the block is left."""
    results: list[Any] = []
    threads = [threading.Thread(target=lambda f=f: results.append(f())) for f in functions]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        for thread in threads:
            thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)


def run_python(program: str) -> str:
    """Runs a program of its own, for what would disturb this process; gives its output."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_unset_at_first_and_set_and_cleared_any_number_of_times():
    event = Event()
    assert event.is_set() is False
    assert event.set() is None
    event.set()
    assert event.is_set() is True
    assert event.clear() is None
    event.clear()
    assert event.is_set() is False


def test_wait_returns_whether_the_event_was_set():
    event = Event()
    assert event.wait(0.001) is False
    event.set()
    assert event.wait() is True
    assert event.wait(timeout=0) is True


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf, math.nan, 1e-12])
def test_a_timeout_that_is_no_time_at_all_returns_at_once(timeout):
    assert Event().wait(timeout) is False


@pytest.mark.parametrize("timeout", [math.inf, 1e20, 10**30, threading.TIMEOUT_MAX * 1.1])
def test_a_timeout_that_no_clock_can_express_is_an_overflow_error(timeout):
    with pytest.raises(OverflowError):
        Event().wait(timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", [], 1j])
def test_a_timeout_that_is_no_number_is_a_type_error(timeout):
    with pytest.raises(TypeError):
        Event().wait(timeout)


def test_the_longest_timeout_that_threading_takes_is_taken():
    event = Event()
    with running(lambda: event.wait(threading.TIMEOUT_MAX)) as results:
        event.set()
    assert results == [True]


def test_the_constructor_takes_no_arguments():
    with pytest.raises(TypeError):
        Event(True)  # type: ignore[call-arg]


def test_wait_frees_the_gil_and_one_set_lets_all_threads_go():
    event, waiting = Event(), threading.Barrier(101)

    def wait() -> bool:
        waiting.wait(LONG)
        return event.wait()

    with running(*[wait] * 100) as results:
        waiting.wait(LONG)
        assert results == []
        event.set()
    assert results == [True] * 100


def asleep(thread: threading.Thread) -> bool:
    """Whether a thread sleeps in the kernel."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_set_that_is_cleared_at_once_lets_the_waiters_go():
    event = Event()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(event.wait(LONG))) for _ in range(5)]
    for thread in threads:
        thread.start()
    # At 20 looks in turn: not for the GIL, which nobody holds for long.
    looks = 0
    while looks < 20:
        looks = looks + 1 if all(asleep(thread) for thread in threads) else 0
        time.sleep(0.001)
    event.set()
    event.clear()
    for thread in threads:
        thread.join(LONG)
    assert results == [True] * 5


def test_ping_pong_loses_no_wake_up():
    ping, pong = Event(), Event()

    def echo() -> int:
        for _ in range(2000):
            ping.wait()
            ping.clear()
            pong.set()
        return 2000

    with running(echo) as results:
        for _ in range(2000):
            ping.set()
            assert pong.wait(LONG)
            pong.clear()
    assert results == [2000]


def test_repr_is_that_of_the_running_version():
    event = Event()
    if sys.version_info >= (3, 11):
        assert repr(event) == f"<ropewalk.threading.Event at {id(event):#x}: unset>"
        event.set()
        assert repr(event) == f"<ropewalk.threading.Event at {id(event):#x}: set>"
    else:
        assert repr(event) == f"<ropewalk.threading.Event object at {id(event):#x}>"

    class Done(Event):
        pass

    assert "test_repr_is_that_of_the_running_version.<locals>.Done" in repr(Done())


def test_is_set_has_its_deprecated_alias():
    event = Event()
    with pytest.warns(DeprecationWarning, match=r"isSet\(\) is deprecated, use is_set\(\) instead") as caught:
        assert event.isSet() is False
    assert caught[0].filename == __file__
    event.set()
    with pytest.warns(DeprecationWarning, match="isSet"):
        assert event.isSet() is True


def test_it_takes_attributes_weak_references_and_is_collected_in_a_cycle():
    event = Event()
    event.itself = event  # type: ignore[attr-defined]
    gone = weakref.ref(event)
    del event
    gc.collect()
    assert gone() is None


def test_it_can_no_more_be_pickled_than_any_lock():
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(Event())


class Stop(Exception):
    pass


@contextlib.contextmanager
def alarms(handler: Callable[[], None]) -> Iterator[None]:
    """Calls `handler` from SIGALRM again and again, so that one alarm comes during the wait that is tested."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [None, LONG])
def test_an_exception_of_a_signal_handler_ends_a_wait(timeout):
    raised = []

    def stop() -> None:
        if not raised:
            raised.append(True)
            raise Stop

    with pytest.raises(Stop), alarms(stop):
        Event().wait(timeout)


def test_a_handler_that_returns_does_not_end_a_wait_nor_lengthen_it():
    calls = []
    with alarms(lambda: calls.append(1)):
        assert Event().wait(0.1) is False
    assert calls


def test_a_handler_may_set_and_clear_the_event_that_is_waited_for():
    event = Event()

    def flash() -> None:
        event.set()
        event.clear()

    with alarms(flash):
        assert event.wait(LONG) is True


def test_ctrl_c_ends_a_wait():
    program = """
        from ropewalk.threading import Event
        try:
            print("waiting", flush=True)
            Event().wait()
        except KeyboardInterrupt:
            print("interrupted")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LONG)[0] == "interrupted\n"
        assert process.returncode == 0


def test_the_interpreter_ends_with_daemon_threads_in_a_wait():
    program = """
        import threading
        from ropewalk.threading import Event
        event, started = Event(), threading.Barrier(6)
        def wait():
            started.wait()
            event.wait()
        for _ in range(5):
            threading.Thread(target=wait, daemon=True).start()
        started.wait()
        print("end")
    """
    assert run_python(program) == "end\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_using_an_event_that_threads_of_the_parent_wait_for():
    program = """
        import asyncio, os, threading, warnings
        from ropewalk.threading import Event
        warnings.simplefilter("ignore", DeprecationWarning)
        event, waiting = Event(), threading.Barrier(3)
        def wait():
            waiting.wait()
            assert event.wait() is True
        def wait_async():
            async def main():
                task = asyncio.ensure_future(event.wait_async())
                await asyncio.sleep(0)
                waiting.wait()
                assert await task is True
            asyncio.run(main())
        threads = [threading.Thread(target=wait), threading.Thread(target=wait_async)]
        for thread in threads:
            thread.start()
        waiting.wait()
        if not (pid := os.fork()):
            assert not event.is_set() and event.wait(0.01) is False
            mine = threading.Thread(target=lambda: event.wait() or os._exit(3))
            mine.start()
            event.set()
            mine.join()
            assert asyncio.run(event.wait_async()) is True
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert not event.is_set()
        event.set()
        for thread in threads:
            thread.join()
        print("ok")
    """
    assert run_python(program) == "ok\n"


async def begun(*waits: asyncio.Future[Any]) -> None:
    """Lets coroutines run up to their waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)


def test_a_coroutine_waits_for_a_set_in_its_own_loop():
    async def main() -> bool:
        event = Event()
        task = asyncio.create_task(event.wait_async())
        await begun(task)
        event.set()
        return await task

    assert asyncio.run(main()) is True


def test_a_coroutine_does_not_wait_for_what_is_set():
    event = Event()
    event.set()
    wait = event.wait_async()
    with pytest.raises(StopIteration) as stopped:
        wait.send(None)
    assert stopped.value.value is True


def test_a_coroutine_waits_for_a_set_by_another_thread():
    async def main() -> bool:
        event = Event()
        thread = threading.Thread(target=event.set)
        task = asyncio.create_task(event.wait_async())
        await begun(task)
        thread.start()
        try:
            return await asyncio.wait_for(task, LONG)
        finally:
            thread.join()

    assert asyncio.run(main()) is True


def test_a_coroutine_is_let_go_by_a_set_that_is_cleared_at_once():
    async def main() -> list[bool]:
        event = Event()
        tasks = [asyncio.create_task(event.wait_async()) for _ in range(3)]
        await begun(*tasks)
        event.set()
        event.clear()
        late = asyncio.create_task(event.wait_async())
        results = await asyncio.gather(*tasks)
        await begun(late)
        late.cancel()
        return results

    assert asyncio.run(main()) == [True] * 3


def test_coroutines_of_many_loops_and_threads_wait_for_one_event():
    event = Event()
    waiting = threading.Barrier(9)

    async def wait() -> list[bool]:
        tasks = [asyncio.ensure_future(event.wait_async()) for _ in range(10)]
        await begun(*tasks)
        waiting.wait(LONG)
        return await asyncio.gather(*tasks)

    def wait_in_thread() -> bool:
        waiting.wait(LONG)
        return event.wait(LONG)

    with running(*[lambda: asyncio.run(wait())] * 4, *[wait_in_thread] * 4) as results:
        waiting.wait(LONG)
        event.set()
    assert sorted(results, key=str) == [True] * 4 + [[True] * 10] * 4


def test_ten_thousand_coroutines_are_let_go_in_order():
    async def main() -> list[int]:
        event, order = Event(), []

        async def wait(number: int) -> None:
            await event.wait_async()
            order.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(10_000)]
        await begun(*tasks)
        event.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == list(range(10_000))


def test_a_wait_that_is_cancelled_or_times_out_is_forgotten():
    async def main() -> None:
        event = Event()
        tasks = [asyncio.create_task(event.wait_async()) for _ in range(3)]
        await begun(*tasks)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait_async(), 0.001)
        event.set()
        assert await tasks[0] is True
        assert await tasks[2] is True

    asyncio.run(main())


def test_a_coroutine_that_is_cancelled_after_the_set_is_cancelled():
    async def main() -> None:
        event = Event()
        task = asyncio.create_task(event.wait_async())
        await begun(task)
        event.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_set_from_a_thread_that_meets_a_cancelled_wait_harms_nobody():
    async def main() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        event = Event()
        task = asyncio.create_task(event.wait_async())
        await begun(task)
        # Set while the loop cannot run: its callback comes after the cancellation.
        thread = threading.Thread(target=event.set)
        thread.start()
        thread.join()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert errors == []

    asyncio.run(main())


def test_a_set_after_the_loop_was_closed_harms_nobody():
    event = Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(event.wait_async())
    loop.run_until_complete(begun(task))
    loop.close()
    event.set()
    assert event.is_set()
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()


def test_an_event_keeps_nobody_alive_who_waits_for_it():
    event = Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(event.wait_async())
    loop.run_until_complete(begun(task))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    gone = weakref.ref(task)
    loop.close()
    del task, loop
    gc.collect()
    assert gone() is None
    event.set()


def test_wait_async_outside_of_a_loop_is_a_runtime_error():
    with pytest.raises(RuntimeError, match="no running event loop"):
        Event().wait_async().send(None)
