from __future__ import annotations

import asyncio
import inspect
import types

import pytest

import ropewalk
from ropewalk.coroutines import coroutine, getstate, primed


def test_primed_generators_take_send_at_once():
    @primed
    def echo(first, *, last):
        received = yield first
        while received != last:
            received = yield received
        return "done"

    generator = echo("dropped", last=3)
    assert [generator.send(1), generator.send(2)] == [1, 2]
    with pytest.raises(StopIteration) as stop:
        generator.send(3)
    assert stop.value.value == "done"


def test_primed_keeps_the_metadata_of_the_function():
    def averager(precision: int = 2):
        """Averages."""
        yield

    decorated = primed(averager)
    assert (decorated.__name__, decorated.__doc__) == ("averager", "Averages.")
    assert inspect.signature(decorated) == inspect.signature(averager)
    assert decorated.__wrapped__ is averager


def test_priming_passes_on_what_the_generator_raises():
    @primed
    def failing():
        raise LookupError("before the first yield")
        yield

    with pytest.raises(LookupError, match="before the first yield"):
        failing()


def test_priming_a_generator_that_never_yields_is_an_error():
    @primed
    def empty():
        return
        yield

    with pytest.raises(RuntimeError, match=r"empty\(\) ended before its first yield"):
        empty()


@coroutine
def old_style(value):
    yield from asyncio.sleep(0)
    return value


async def native(value):
    await asyncio.sleep(0)
    return value


def test_coroutine_is_at_the_top_of_the_package():
    assert ropewalk.coroutine is coroutine


def test_old_and_native_coroutines_wait_for_each_other():
    @coroutine
    def both():
        first = yield from native(1)
        second = yield from old_style(2)
        return first, second

    async def main():
        return await both()

    assert asyncio.run(main()) == (1, 2)


def test_asyncio_takes_old_coroutines_wherever_it_takes_native_ones():
    async def main():
        task = asyncio.create_task(old_style(1))
        return await asyncio.gather(task, asyncio.ensure_future(old_style(2)), old_style(3))

    assert asyncio.run(main()) == [1, 2, 3]
    assert asyncio.run(old_style(4)) == 4


def test_old_coroutines_are_coroutines_to_inspect():
    assert inspect.iscoroutinefunction(old_style)
    made = old_style(1)
    assert inspect.iscoroutine(made)
    assert asyncio.iscoroutine(made)
    assert old_style.__name__ == "old_style"
    made.close()


def test_old_coroutines_wait_for_futures():
    @coroutine
    def waiting(future):
        return (yield from future)

    async def main():
        future = asyncio.get_running_loop().create_future()
        future.get_loop().call_soon(future.set_result, "set later")
        return await waiting(future)

    assert asyncio.run(main()) == "set later"


def test_a_bare_yield_gives_the_loop_a_turn():
    turns = []

    @coroutine
    def step(name):
        turns.append(name)
        yield
        turns.append(name)

    async def main():
        await asyncio.gather(step("a"), step("b"))

    asyncio.run(main())
    assert turns == ["a", "b", "a", "b"]


def test_errors_and_cancellation_reach_the_yield_from():
    seen = []

    @coroutine
    def cleaning():
        try:
            yield from asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("clean")

    async def main():
        task = asyncio.create_task(cleaning())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cancelled", "clean"]


def test_coroutine_on_a_function_that_is_no_generator_function():
    assert asyncio.run(coroutine(lambda: 5)()) == 5
    assert asyncio.run(coroutine(lambda: native(6))()) == 6

    def generator():
        yield from asyncio.sleep(0)
        return 7

    assert asyncio.run(coroutine(lambda: types.coroutine(generator)())()) == 7


def test_coroutine_leaves_native_functions_alone():
    assert coroutine(native) is native


def test_coroutine_on_a_method():
    class Account:
        balance = 10

        @coroutine
        def read(self):
            yield
            return self.balance

    assert asyncio.run(Account().read()) == 10


def test_the_states_of_a_generator():
    def watching():
        states.append(getstate(generator))
        yield

    states: list[str] = []
    generator = watching()
    states.append(getstate(generator))
    next(generator)
    states.append(getstate(generator))
    generator.close()
    states.append(getstate(generator))
    assert states == ["CREATED", "RUNNING", "SUSPENDED", "CLOSED"]


def test_the_states_of_a_native_coroutine():
    @types.coroutine
    def pause():
        yield

    async def watching():
        states.append(getstate(made))
        await pause()

    states: list[str] = []
    made = watching()
    states.append(getstate(made))
    made.send(None)
    states.append(getstate(made))
    made.close()
    states.append(getstate(made))
    assert states == ["CREATED", "RUNNING", "SUSPENDED", "CLOSED"]


def test_the_state_of_something_else_is_an_error():
    with pytest.raises(TypeError, match="expected a generator or coroutine, got list_iterator"):
        getstate(iter([]))
