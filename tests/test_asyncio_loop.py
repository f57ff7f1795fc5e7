"""The event loop: what CPython's own tests (conformance/suites/asyncio.py) do not look at."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import signal
import socket
import sys
import threading
import weakref

import pytest
from conftest import RunPython

import ropewalk
import ropewalk.asyncio
import ropewalk.futures
from ropewalk.asyncio import EventLoop


def test_classes_are_asyncios(loop: EventLoop) -> None:
    async def main() -> None:
        assert isinstance(asyncio.current_task(), asyncio.Task)
        assert isinstance(asyncio.current_task(), asyncio.Future)
        assert isinstance(loop.create_future(), asyncio.Future)
        assert asyncio.isfuture(loop.create_future())

    loop.run_until_complete(main())
    handle, timer = loop.call_soon(print), loop.call_later(1, print)
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.TimerHandle)


def test_callbacks_run_first_in_first_out_and_new_ones_in_the_next_turn(loop: EventLoop) -> None:
    seen: list[object] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "next turn")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    loop.call_soon_threadsafe(seen.append, "third")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["first", "second", "third"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["first", "second", "third", "next turn"]


def test_timers_run_by_deadline_whatever_the_order_they_were_made_in(loop: EventLoop) -> None:
    seen: list[int] = []
    now = loop.time()
    for n in (3, 1, 2, 0):
        loop.call_at(now + n / 1000, seen.append, n)
    loop.call_at(now + 4 / 1000, loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3]


def test_a_cancelled_timer_does_not_run(loop: EventLoop) -> None:
    seen: list[int] = []
    handle = loop.call_later(0, seen.append, 1)
    handle.cancel()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == []
    assert handle.cancelled()


def test_a_hundred_thousand_cancelled_timers_leave_nothing_behind(loop: EventLoop) -> None:
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    for _ in range(100_000):
        loop.call_later(3600, print, thing).cancel()
    del thing
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ref() is None


def count_call_soon(base: type[asyncio.BaseEventLoop]) -> int:
    """How often the `call_soon` of a subclass is called for tasks that sleep, wait for a future and are gathered."""

    class Loop(base):  # type: ignore[misc, valid-type]
        def call_soon(self, callback, *args, context=None):  # type: ignore[no-untyped-def]
            scheduled.append(callback)
            return super().call_soon(callback, *args, context=context)

    async def work(future: asyncio.Future[int]) -> int:
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        return await future

    async def main() -> list[int]:
        future = loop.create_future()
        tasks = [loop.create_task(work(future)) for _ in range(3)]
        await asyncio.sleep(0)
        future.set_result(7)
        return await ropewalk.gather(*tasks)  # type: ignore[no-any-return]

    scheduled: list[object] = []
    loop = Loop()
    try:
        assert loop.run_until_complete(main()) == [7, 7, 7]
    finally:
        loop.close()
    return len(scheduled)


def test_the_steps_of_tasks_go_through_a_call_soon_that_a_subclass_has() -> None:
    assert count_call_soon(EventLoop) == count_call_soon(asyncio.SelectorEventLoop) > 10


def test_a_callback_that_raises_is_reported_and_the_others_run(loop: EventLoop) -> None:
    reports: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    seen: list[int] = []
    handle = loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]
    (report,) = reports
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["handle"] is handle


def test_each_callback_runs_in_its_context(loop: EventLoop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    def look_and_set() -> None:
        seen.append(variable.get())
        variable.set(7)

    loop.call_soon(look_and_set)
    loop.call_soon(look_and_set)
    context = contextvars.copy_context()
    context.run(variable.set, 5)
    loop.call_soon(look_and_set, context=context)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [0, 0, 5]
    assert context[variable] == 7


def test_a_sleeping_loop_is_woken_by_another_thread(loop: EventLoop) -> None:
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
    loop.call_soon(thread.start)
    loop.run_forever()  # hangs when the wake-up is lost
    thread.join()


def test_many_threads_lose_no_callback(loop: EventLoop) -> None:
    seen: list[int] = []

    def push() -> None:
        for _ in range(500):
            loop.call_soon_threadsafe(seen.append, 1)

    async def main() -> None:
        threads = [threading.Thread(target=push) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(seen) < 2000:
            await asyncio.sleep(0.001)
        for thread in threads:
            thread.join()

    loop.run_until_complete(main())


@pytest.mark.parametrize("attach", ["call_soon", "call_later", "call_at", "create_task", "call_soon_threadsafe"])
def test_a_closed_loop_refuses(attach: str) -> None:
    loop = EventLoop()
    loop.close()
    loop.close()
    coro = asyncio.sleep(0)
    arguments = {"call_later": (1, print), "call_at": (1, print), "create_task": (coro,)}.get(attach, (print,))
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, attach)(*arguments)
    coro.close()


def test_a_loop_does_not_run_in_a_loop(loop: EventLoop) -> None:
    async def main() -> None:
        other = EventLoop()
        coro = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
                other.run_until_complete(coro)
            with pytest.raises(RuntimeError, match="This event loop is already running"):
                loop.run_until_complete(coro)
        finally:
            coro.close()
            other.close()

    loop.run_until_complete(main())


def test_descriptors_are_given_back() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    EventLoop().close()
    before = count()
    for _ in range(200):
        EventLoop().close()
    assert count() == before


def test_readers_and_writers_are_told_until_removed(loop: EventLoop) -> None:
    near, far = socket.socketpair()
    seen: list[bytes] = []

    def read() -> None:
        seen.append(far.recv(1))
        if len(seen) == 3:
            assert loop.remove_reader(far)
            assert not loop.remove_reader(far)
            loop.stop()

    loop.add_reader(far, read)
    near.send(b"abc")
    loop.run_forever()
    assert seen == [b"a", b"b", b"c"]
    loop.add_writer(near, loop.stop)
    loop.run_forever()
    assert loop.remove_writer(near)
    near.close()
    far.close()


def test_descriptors_that_cannot_be_watched_are_refused(loop: EventLoop) -> None:
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.add_reader(-1, print)

    class Closed:
        def fileno(self) -> None:
            return None

    for nothing in ("3", None, Closed()):
        with pytest.raises(ValueError, match="Invalid file object: "):
            loop.add_reader(nothing, print)  # type: ignore[arg-type]
    near, far = socket.socketpair()
    number = near.fileno()
    near.close()
    far.close()
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        loop.add_reader(number, print)
    assert error.value.errno == 9
    with open(sys.executable, "rb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)


def test_ctrl_c_cancels_the_main_task_and_clean_up_may_await(run_python: RunPython) -> None:
    program = """if True:
        import asyncio, os, signal, ropewalk.asyncio
        async def main():
            try:
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.001)
                print("cleaned up", flush=True)
        ropewalk.asyncio.run(main())
    """
    done = run_python(program)
    assert "KeyboardInterrupt" in done.stderr
    if sys.version_info >= (3, 11):
        assert done.stdout == "cleaned up\n"


def test_an_interpreter_that_ends_while_a_daemon_thread_runs_a_busy_loop_does_not_crash(run_python: RunPython) -> None:
    for _ in range(5):
        done = run_python("""
import asyncio, threading, ropewalk

started = threading.Event()

async def main():
    while True:
        started.set()
        await asyncio.sleep(0)

threading.Thread(target=lambda: ropewalk.run(main()), daemon=True).start()
started.wait()
""")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "leave",
    [
        "loop.create_task(asyncio.sleep(1)); loop._run_once()",
        "loop.call_soon(print); loop.call_later(1, print)",
        "f = loop.create_future(); f.add_done_callback(print)",
        "f = loop.create_future(); f.set_exception(ValueError())",
        "t = loop.create_task(asyncio.sleep(0)); sys.modules['x'] = t",
        "loop.close()",
        "loop.run_in_executor(None, print)",
        "threading.Thread(target=loop.run_forever, daemon=True).start()",
        "del loop",
    ],
)
def test_an_interpreter_that_ends_in_the_middle_does_not_crash(leave: str, run_python: RunPython) -> None:
    done = run_python(f"import asyncio, sys, threading, ropewalk.asyncio; loop = ropewalk.asyncio.EventLoop()\n{leave}")
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr
    assert "panicked" not in done.stderr


def test_exit_functions_find_the_loops_of_daemon_threads_running_whenever_they_were_registered(
    run_python: RunPython,
) -> None:
    done = run_python("""
import asyncio, atexit, threading

def ask(name):
    print(name, asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "answers"), loop).result())

atexit.register(ask, "before")
import ropewalk.asyncio
atexit.register(ask, "after")
loop = ropewalk.asyncio.EventLoop()
running = threading.Event()
loop.call_soon(running.set)
threading.Thread(target=loop.run_forever, daemon=True).start()
running.wait()
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after answers\nbefore answers\n", "")


def test_install_makes_it_asyncios_loop_and_uninstall_takes_it_back() -> None:
    async def kind() -> type:
        return type(asyncio.get_running_loop())

    before = asyncio.run(kind())
    ropewalk.asyncio.install()
    try:
        ropewalk.asyncio.install()
        assert asyncio.run(kind()) is EventLoop
    finally:
        ropewalk.asyncio.uninstall()
        ropewalk.asyncio.uninstall()
    assert asyncio.run(kind()) is before
    assert ropewalk.asyncio.run(kind()) is EventLoop


def test_the_executor_is_ropewalks_unless_the_user_sets_one(loop: EventLoop) -> None:
    async def main() -> None:
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("asyncio")
        with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mine") as own:
            name = await loop.run_in_executor(own, lambda: threading.current_thread().name)
            assert name.startswith("mine")

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_an_executors_exceptions_and_cancellations_reach_the_loop_and_back(loop: EventLoop) -> None:
    started, go = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        go.wait(60)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        loop.set_default_executor(ropewalk.futures.ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, block)
        while not started.is_set():
            await asyncio.sleep(0.001)
        ran: list[int] = []
        queued = loop.run_in_executor(None, ran.append, 1)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        await asyncio.sleep(0)  # the callback that cancels the call
        go.set()
        await blocked
        assert await loop.run_in_executor(None, len, "four") == 4
        assert ran == []

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_a_result_that_comes_after_the_loop_is_closed_harms_no_one(run_python: RunPython) -> None:
    program = """if True:
        import threading, ropewalk.asyncio
        loop = ropewalk.asyncio.EventLoop()
        go = threading.Event()
        loop.call_soon(loop.run_in_executor, None, go.wait)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        go.set()
    """
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_addresses_that_need_no_look_up_need_no_thread(loop: EventLoop) -> None:
    async def main() -> None:
        before = threading.active_count()
        (found,) = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert found[4] == ("127.0.0.1", 80)
        assert threading.active_count() == before

    loop.run_until_complete(main())


def test_debug_mode_reports_slow_tasks_and_wrong_threads(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def main() -> None:
        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                loop.call_soon(print)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    loop.run_until_complete(main())
    assert any("Executing <Task" in record.getMessage() for record in caplog.records)


def test_signal_handlers_run_in_the_loop(loop: EventLoop) -> None:
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("signal"), loop.stop()))
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    assert seen == ["signal"]
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_the_package_offers_the_loop_without_importing_asyncio(run_python: RunPython) -> None:
    program = "import sys, ropewalk; assert 'asyncio' not in sys.modules; print(ropewalk.run, ropewalk.EventLoopPolicy)"
    assert run_python(program).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        ropewalk.walk  # noqa: B018


def test_a_child_of_a_fork_runs_a_loop_of_its_own_and_leaves_its_parents_alone(run_python: RunPython) -> None:
    program = """if True:
        import asyncio, os, signal, socket, ropewalk
        async def child():
            await asyncio.sleep(0.001)
            return 7
        async def main():
            loop = asyncio.get_running_loop()
            signalled = loop.create_future()
            loop.add_signal_handler(signal.SIGUSR1, signalled.set_result, "signal")
            near, far = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=near)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    asyncio._set_running_loop(None)
                    writer.close()
                    loop.remove_signal_handler(signal.SIGUSR1)
                    own = ropewalk.new_event_loop()
                    code = own.run_until_complete(child())
                    own.close()
                finally:
                    os._exit(code)
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.001)
            far.send(b"hello")
            print((await reader.readexactly(5)).decode())
            os.kill(os.getpid(), signal.SIGUSR1)
            print(await signalled)
            writer.close()
            far.close()
        ropewalk.run(main())
    """
    done = run_python(program)
    assert (done.returncode, done.stdout) == (0, "hello\nsignal\n"), done.stderr
