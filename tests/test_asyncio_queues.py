"""ropewalk.Queue and its siblings, and gather: what CPython's own tests do not look at."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest

import ropewalk
from ropewalk import LifoQueue, PriorityQueue, Queue, QueueShutDown, gather


@pytest.mark.parametrize(("kind", "order"), [(Queue, [2, 3, 1]), (LifoQueue, [1, 3, 2]), (PriorityQueue, [1, 2, 3])])
@pytest.mark.parametrize("run", [ropewalk.run, asyncio.run])
def test_items_come_out_in_the_queues_order_on_any_loop(kind: Any, order: list[int], run: Any) -> None:
    async def main() -> list[int]:
        queue = kind()
        for n in (2, 3, 1):
            await queue.put(n)
        return [await queue.get() for _ in range(3)]

    assert run(main()) == order


@pytest.mark.parametrize("run", [ropewalk.run, asyncio.run])
def test_a_full_queue_makes_putters_wait_and_an_empty_one_getters_in_order(run: Any) -> None:
    async def main() -> list[str]:
        queue: Queue[int] = Queue(1)
        seen: list[str] = []

        async def put(n: int) -> None:
            await queue.put(n)
            seen.append(f"put {n}")

        async def get() -> None:
            seen.append(f"got {await queue.get()}")

        await asyncio.gather(*[put(n) for n in range(3)], *[get() for _ in range(3)])
        return [event for event in seen if event.startswith("got")]

    assert run(main()) == ["got 0", "got 1", "got 2"]


def test_a_get_may_become_a_task_or_be_timed_out() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue()
        task = asyncio.create_task(queue.get())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)
        queue.put_nowait(1)
        assert await task == 1
        assert queue.empty()
        assert queue._getters == []

    ropewalk.run(main())


def test_a_cancelled_getter_passes_its_wake_up_on() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue()
        first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait(1)  # wakes the first,
        first.cancel()  # which goes
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    ropewalk.run(main())


@pytest.mark.parametrize("kind", [Queue, asyncio.Queue])
def test_a_get_that_nobody_has_any_more_takes_nothing(kind: Any) -> None:
    async def main() -> int:
        queue = kind()
        dropped = queue.get()
        dropped.send(None)
        other = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait(1)  # wakes the first
        del dropped
        return await other

    assert ropewalk.run(main()) == 1


def test_a_call_is_used_once_and_one_that_is_not_used_is_warned_of() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue()
        with pytest.warns(RuntimeWarning, match=r"coroutine 'Queue.put' was never awaited"):
            queue.put(1)
        assert queue.empty()
        put = queue.put(1)
        await put
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await put
        closed = queue.get()
        closed.close()
        assert queue.qsize() == 1

    ropewalk.run(main())


def test_join_waits_for_every_task_done() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue()
        await queue.join()
        queue.put_nowait(1)
        joined = asyncio.create_task(queue.join())
        await asyncio.sleep(0)
        assert not joined.done()
        await queue.get()
        queue.task_done()
        await joined
        with pytest.raises(ValueError, match="too many times"):
            queue.task_done()

    ropewalk.run(main())


def test_a_queue_that_is_shut_down_gives_out_what_it_has_and_then_refuses() -> None:
    async def main() -> None:
        queue: Queue[int] = Queue()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.shutdown()
        with pytest.raises(QueueShutDown):
            await waiting
        with pytest.raises(QueueShutDown):
            await queue.put(1)
        other: Queue[int] = Queue()
        other.put_nowait(1)
        other.shutdown()
        assert await other.get() == 1
        with pytest.raises(QueueShutDown):
            other.get_nowait()

    ropewalk.run(main())


def test_a_queue_belongs_to_one_loop() -> None:
    queue: Queue[int] = Queue()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)

    ropewalk.run(main())

    async def other() -> None:
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await queue.get()

    ropewalk.run(other())


def test_what_a_queue_cannot_do_for_a_subclass_it_refuses() -> None:
    with pytest.raises(TypeError, match="overrides _put"):

        class Mine(Queue[int]):
            def _put(self, item: int) -> None: ...


def test_a_priority_queue_reports_items_that_cannot_be_compared() -> None:
    async def main() -> None:
        queue: PriorityQueue[Any] = PriorityQueue()
        await queue.put(1)
        with pytest.raises(TypeError, match="not supported between"):
            await queue.put("one")

    ropewalk.run(main())


def test_cycles_through_a_queue_are_collected() -> None:
    class Thing:
        pass

    async def main() -> weakref.ref[Any]:
        thing = Thing()
        queue: Queue[Any] = Queue()
        queue.put_nowait((queue, thing, queue.get()))
        return weakref.ref(thing)

    ref = ropewalk.run(main())
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Queue.get' was never awaited"):
        gc.collect()
    assert ref() is None


def test_gather_keeps_the_order_of_its_arguments_and_takes_anything_twice() -> None:
    async def number(n: int) -> int:
        await asyncio.sleep(0.001 * (3 - n))
        return n

    async def main() -> None:
        task, coro = asyncio.create_task(number(1)), number(2)
        assert await gather(number(0), task, coro, task, coro) == [0, 1, 2, 1, 2]
        assert await gather() == []
        assert await gather(task) == [1]
        stock = asyncio.Task(number(1))
        assert await gather(stock, number(2)) == [1, 2]

    ropewalk.run(main())
    asyncio.run(main())


def test_the_first_failure_ends_a_gathering_and_the_others_go_on() -> None:
    async def main() -> None:
        async def fail() -> None:
            raise KeyError("first")

        late = asyncio.create_task(asyncio.sleep(0.001, "late"))
        with pytest.raises(KeyError, match="first"):
            await gather(late, fail(), fail())
        assert not late.done()
        assert await late == "late"
        results = await gather(fail(), asyncio.sleep(0, 1), return_exceptions=True)
        assert isinstance(results[0], KeyError)
        assert results[1] == 1

    ropewalk.run(main())


def test_cancelling_a_gathering_cancels_its_children() -> None:
    async def main() -> None:
        children = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(3)]
        outer = gather(*children)
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert all(child.cancelled() for child in children)

    ropewalk.run(main())


def test_gather_goes_with_a_task_factory() -> None:
    made: list[object] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]
        assert await gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]
        assert len(made) == 2

    ropewalk.run(main())


def test_install_with_patch_puts_gather_and_queues_in_asyncios_place_and_uninstall_takes_them_back() -> None:
    before = (asyncio.gather, asyncio.Queue, asyncio.PriorityQueue)
    ropewalk.install(patch=True)
    try:
        assert asyncio.gather is gather
        assert asyncio.Queue is Queue
        assert asyncio.tasks.gather is gather
        assert asyncio.queues.PriorityQueue is PriorityQueue  # type: ignore[comparison-overlap]
        assert asyncio.run(asyncio.wait_for(asyncio.sleep(0, 1), 30)) == 1
    finally:
        ropewalk.uninstall()
    assert (asyncio.gather, asyncio.Queue, asyncio.PriorityQueue) == before
    assert sys.modules["asyncio.tasks"].gather is before[0]
