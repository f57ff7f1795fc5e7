"""Tasks and futures of the event loop: whom they belong to, and when they are freed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import warnings
import weakref

import pytest
from conftest import RunPython

import ropewalk
import ropewalk.asyncio
import ropewalk.futures
from ropewalk.asyncio import EventLoop


def test_code_that_belongs_to_no_task_sees_none(loop: EventLoop) -> None:
    seen: list[object] = []

    def look(*_: object) -> None:
        seen.append(asyncio.current_task(loop))

    async def main() -> None:
        future = loop.create_future()
        future.add_done_callback(look)
        loop.call_soon(future.set_result, 1)  # runs no code of Python's
        loop.call_soon(look)
        loop.call_later(0.001, look)
        assert await future == 1
        assert asyncio.current_task() is task
        await asyncio.sleep(0.01)
        assert asyncio.current_task() is task
        thread.start()
        await asyncio.sleep(0)
        thread.join()

    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(look))
    task = loop.create_task(main())
    task.add_done_callback(look)
    loop.run_until_complete(task)
    look()
    assert seen == [None] * 6


def test_a_future_of_another_loop_is_refused(loop: EventLoop) -> None:
    other = EventLoop()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await other.create_future()

    loop.run_until_complete(main())
    other.close()


def test_a_task_and_a_future_are_freed_without_the_collector(loop: EventLoop) -> None:
    async def work() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    gc.disable()
    try:
        task = loop.create_task(work())
        loop.run_until_complete(task)
        ref = weakref.ref(task)
        del task
        assert ref() is None
    finally:
        gc.enable()


def test_cycles_through_tasks_futures_and_handles_are_collected() -> None:
    class Thing:
        pass

    def build() -> list[weakref.ref[object]]:
        loop = EventLoop()
        thing = Thing()
        future = loop.create_future()
        future.thing = (thing, future)  # type: ignore[attr-defined]
        future.add_done_callback(lambda _: thing)
        loop.call_soon(lambda: (thing, loop))
        loop.call_later(1000, lambda: (thing, loop))
        loop.add_reader(loop._ssock, lambda: (thing, loop))  # type: ignore[attr-defined]
        loop.close = lambda: None  # type: ignore[method-assign]
        loop._closed = True  # no ResourceWarning from a loop that nobody closes
        return [weakref.ref(thing), weakref.ref(future), weakref.ref(loop)]

    refs = build()
    for ref in refs:
        assert ref() is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the sockets that nobody closed
        gc.collect()
    assert [ref() for ref in refs] == [None, None, None]


@pytest.mark.parametrize("link", ["future.set_result(last)", "last and future.add_done_callback(last.set_result)"])
def test_a_million_futures_that_hold_each_other_are_freed(link: str, run_python: RunPython) -> None:
    code = f"""
import gc
from ropewalk.asyncio import EventLoop

gc.disable()
loop, last = EventLoop(), None
for _ in range(1_000_000):
    future = loop.create_future()
    {link}
    last = future
del future
del last
loop.close()
print("freed")
"""
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("freed\n", "")


def test_tasks_that_return_each_other_are_freed(run_python: RunPython) -> None:
    code = """
import asyncio, gc, ropewalk

async def give(last):
    return last

async def main():
    asyncio.get_running_loop().set_debug(False)
    last = None
    for _ in range(100_000):
        task = asyncio.create_task(give(last))
        await task
        last = task

gc.disable()
ropewalk.run(main())
print("freed")
"""
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("freed\n", "")


def test_ten_thousand_tasks_leave_no_object_behind(loop: EventLoop) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def main() -> None:
        tasks = [asyncio.create_task(work(n)) for n in range(10_000)]
        assert await asyncio.gather(*tasks) == list(range(10_000))

    loop.run_until_complete(main())
    gc.collect()
    before = len(gc.get_objects())
    loop.run_until_complete(main())
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert asyncio.all_tasks(loop) == set()


def test_tasks_in_a_circle_cannot_be_cancelled_and_do_not_crash(run_python: RunPython) -> None:
    done = run_python("""
import asyncio, os, ropewalk

async def main():
    tasks = []

    async def wait(other):
        await tasks[other]

    tasks += [asyncio.create_task(wait(1)), asyncio.create_task(wait(0))]
    await asyncio.sleep(0)
    try:
        tasks[0].cancel()
    except RecursionError:
        print("too deep", flush=True)
    os._exit(0)

ropewalk.run(main())
""")
    assert (done.returncode, done.stdout) == (0, "too deep\n"), done.stderr


def test_a_gathering_told_of_another_loops_future_does_nothing(loop: EventLoop) -> None:
    async def main() -> None:
        child = loop.create_future()
        gathering = ropewalk.gather(child)
        ((callback, _),) = child._callbacks
        other = asyncio.SelectorEventLoop()
        foreign = ropewalk.asyncio.Future(loop=other)
        foreign.set_result(None)
        callback(foreign)
        other.close()
        gathering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathering

    loop.run_until_complete(main())


def test_cancelling_goes_down_a_line_of_ten_thousand_tasks(loop: EventLoop) -> None:
    async def main() -> None:
        forever = loop.create_future()
        tasks: list[asyncio.Future[None]] = [forever]

        async def wait(other: asyncio.Future[None]) -> None:
            await other

        for _ in range(10_000):
            tasks.append(asyncio.create_task(wait(tasks[-1])))
        await asyncio.sleep(0)
        assert tasks[-1].cancel()
        assert forever.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await tasks[-1]
        assert all(task.cancelled() for task in tasks)

    loop.run_until_complete(main())


def test_a_task_that_is_being_freed_is_none_of_all_tasks(run_python: RunPython) -> None:
    done = run_python("""
import asyncio, gc, weakref, ropewalk.asyncio

class Task(ropewalk.asyncio.Task):
    def __del__(self):
        pass

loop = ropewalk.asyncio.EventLoop()
coro = asyncio.sleep(0)
task = Task(coro, loop=loop)
loop.close()
ref = weakref.ref(task, lambda _: print(len(asyncio.all_tasks(loop))))
coro.close()
del task
gc.collect()
""")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_task_whose_context_is_in_use_is_reported_and_the_loop_goes_on(loop: EventLoop) -> None:
    async def nothing() -> None:
        pass

    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
    context = contextvars.copy_context()
    coro = nothing()

    def run() -> None:
        task = ropewalk.asyncio.Task(coro, loop=loop, context=context)
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False

    context.run(run)
    coro.close()
    assert len(reports) == 1
    assert reports[0].endswith("is already entered")


def test_a_stock_task_runs_on_the_loop_beside_native_ones(loop: EventLoop) -> None:
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main() -> list[int]:
        stock = asyncio.Task(double(1), loop=loop)
        native = loop.create_task(double(2))
        assert type(stock) is not type(native)
        assert {stock, native} <= asyncio.all_tasks()

        async def wait_for_both() -> list[int]:
            return [await stock, await native]

        return await asyncio.Task(wait_for_both(), loop=loop)

    assert loop.run_until_complete(main()) == [2, 4]
