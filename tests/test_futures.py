"""Future, wait, as_completed and Executor.map, for ourselves and together with the standard library's."""

import asyncio
import concurrent.futures
import gc
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ropewalk import futures
from ropewalk.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait

PATIENCE = 60.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield pool


class Gate:
    """A call that says when it has begun and ends when told to."""

    def __init__(self, pool: concurrent.futures.Executor) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self.future = pool.submit(self.call)
        assert self.begun.wait(PATIENCE)

    def call(self) -> str:
        self.begun.set()
        assert self.opened.wait(PATIENCE)
        return "through the gate"


def done_future(value: object = None) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def test_a_future_goes_through_its_states() -> None:
    future: Future[int] = Future()
    assert (future.done(), future.running(), future.cancelled(), future._state) == (False, False, False, "PENDING")
    assert future.set_running_or_notify_cancel()
    assert (future.done(), future.running(), future._state) == (False, True, "RUNNING")
    assert not future.cancel()
    future.set_result(5)
    assert (future.done(), future.running(), future._state) == (True, False, "FINISHED")
    assert (future.result(), future.exception()) == (5, None)
    assert not future.cancel()


def test_a_cancelled_future_raises_and_is_noticed_once() -> None:
    future: Future[int] = Future()
    assert future.cancel()
    assert future.cancel()
    assert (future.done(), future.cancelled(), future._state) == (True, True, "CANCELLED")
    with pytest.raises(futures.CancelledError):
        future.result()
    with pytest.raises(futures.CancelledError):
        future.exception()
    assert not future.set_running_or_notify_cancel()
    assert future._state == "CANCELLED_AND_NOTIFIED"
    with pytest.raises(RuntimeError, match="Future in unexpected state"):
        future.set_running_or_notify_cancel()


@pytest.mark.parametrize("made", [Future, concurrent.futures.Future])
def test_setting_twice_is_the_standard_librarys_error(made: Callable[[], Any]) -> None:
    future = made()
    future.set_result(1)
    with pytest.raises(
        futures.InvalidStateError, match=r"FINISHED: <Future at 0x[0-9a-f]+ state=finished returned int>"
    ):
        future.set_result(2)
    with pytest.raises(futures.InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


@pytest.mark.parametrize(
    "state", ["pending", "running", "cancelled", "finished returned str", "finished raised KeyError"]
)
def test_repr_is_the_standard_librarys(state: str) -> None:
    texts = []
    for made in (Future, concurrent.futures.Future):
        future: Any = made()
        if state == "cancelled":
            future.cancel()
        elif state != "pending":
            future.set_running_or_notify_cancel()
        if state.endswith("str"):
            future.set_result("x")
        elif state.endswith("KeyError"):
            future.set_exception(KeyError("x"))
        texts.append(repr(future).replace(hex(id(future)), "ID"))
    assert texts[0] == texts[1] == f"<Future at ID state={state}>"


def test_an_exception_comes_back_with_its_traceback(pool: ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise KeyError("no flag")

    future = pool.submit(fails)
    with pytest.raises(KeyError, match="no flag") as caught:
        future.result()
    assert caught.value is future.exception()
    assert [entry.name for entry in caught.traceback][-1] == "fails"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_thread_ends_only_the_call(pool: ThreadPoolExecutor, error: BaseException) -> None:
    def fails() -> None:
        raise error

    assert pool.submit(fails).exception() is error
    assert pool.submit(abs, -1).result() == 1


def test_a_time_out_leaves_the_call_alone(pool: ThreadPoolExecutor) -> None:
    gate = Gate(pool)
    for timeout in (0, -1, 0.001, float("-inf"), float("nan")):
        with pytest.raises(futures.TimeoutError):
            gate.future.result(timeout)
        with pytest.raises(futures.TimeoutError):
            gate.future.exception(timeout=timeout)
    with pytest.raises(OverflowError, match="timeout value is too large"):
        gate.future.result(1e300)
    with pytest.raises(TypeError):
        gate.future.result("soon")  # type: ignore[arg-type]
    gate.opened.set()
    assert gate.future.result(PATIENCE) == "through the gate"


def test_callbacks_run_in_order_and_one_that_raises_is_logged(
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(pool)
    calls: list[object] = []
    gate.future.add_done_callback(calls.append)

    def fails(_: object) -> None:
        raise ValueError("a callback that fails")

    gate.future.add_done_callback(fails)
    gate.future.add_done_callback(lambda future: calls.append(future.result()))
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.opened.set()
        pool.shutdown()
    gate.future.add_done_callback(lambda _: calls.append("late"))
    assert calls == [gate.future, "through the gate", "late"]
    assert "exception calling callback for <Future" in caplog.text
    assert "ValueError: a callback that fails" in caplog.text


def test_cancelling_runs_the_callbacks_in_the_thread_that_cancels() -> None:
    future: Future[None] = Future()
    threads: list[int] = []
    future.add_done_callback(lambda _: threads.append(threading.get_ident()))
    future.cancel()
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("ends", [lambda future: future.cancel(), lambda future: future.set_result(1)])
def test_an_interrupt_in_a_callback_is_raised_when_all_have_run(ends: Callable[[Any], object]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    future: Future[int] = Future()
    calls: list[object] = []
    future.add_done_callback(interrupted)
    future.add_done_callback(calls.append)
    with pytest.raises(KeyboardInterrupt):
        ends(future)
    assert calls == [future]
    with pytest.raises(KeyboardInterrupt):
        future.add_done_callback(interrupted)


def test_a_waiter_that_raises_keeps_nothing_else_from_being_told() -> None:
    class Fails:
        def add_result(self, _: object) -> None:
            raise LookupError("a waiter that fails")

    future: Future[int] = Future()
    calls: list[object] = []
    future._waiters.append(Fails())
    completed = as_completed([future], 0)
    future.add_done_callback(calls.append)
    with pytest.raises(LookupError):
        future.set_result(1)
    assert (next(completed), calls) == (future, [future])


def test_an_interrupted_cancel_runs_the_callbacks_and_frees_the_condition() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    future: Future[int] = Future()
    calls: list[object] = []
    future.add_done_callback(calls.append)
    future._condition.notify_all = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert calls == [future]
    free: list[bool] = []
    other = threading.Thread(target=lambda: free.append(future._condition.acquire(blocking=False)))
    other.start()
    other.join()
    assert free == [True]


def test_futures_are_collected_also_in_cycles() -> None:
    class Value:
        future: Any

    def make() -> list[weakref.ref[Any]]:
        value = Value()
        value.future = done_future(value)
        waiting: Future[None] = Future()
        waiting.add_done_callback(lambda _: waiting)
        failed: Future[None] = Future()
        error = ValueError()
        error.future = failed  # type: ignore[attr-defined]
        failed.set_exception(error)
        return [weakref.ref(value), weakref.ref(value.future), weakref.ref(waiting), weakref.ref(failed)]

    refs = make()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


def test_a_future_keeps_neither_the_function_nor_the_arguments(pool: ThreadPoolExecutor) -> None:
    class Argument:
        pass

    argument = Argument()
    ref = weakref.ref(argument)
    future = pool.submit(lambda _: None, argument)
    del argument
    future.result()
    gc.collect()
    assert ref() is None


def test_the_standard_library_waits_for_our_futures(pool: ThreadPoolExecutor) -> None:
    gate = Gate(pool)
    quick = pool.submit(pow, 2, 3)
    done, not_done = concurrent.futures.wait([gate.future, quick], return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {gate.future})
    waited = concurrent.futures.as_completed([gate.future, quick])
    assert next(waited) is quick
    gate.opened.set()
    assert next(waited) is gate.future
    assert concurrent.futures.wait([gate.future, quick]).not_done == set()
    assert isinstance(gate.future, concurrent.futures.Future)


def test_our_functions_wait_for_the_standard_librarys_futures(pool: ThreadPoolExecutor) -> None:
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as theirs:
        gate = Gate(theirs)
        ours = pool.submit(pow, 2, 3)
        assert wait([gate.future, ours], return_when=FIRST_COMPLETED) == ({ours}, {gate.future})
        failing = theirs.submit(divmod, 1, 0)
        assert wait([gate.future, failing], return_when=FIRST_EXCEPTION) == ({failing}, {gate.future})
        completed = as_completed([gate.future, ours])
        assert next(completed) is ours
        gate.opened.set()
        assert list(completed) == [gate.future]
        assert gate.future._waiters == []
        cancelled: concurrent.futures.Future[None] = concurrent.futures.Future()
        cancelled.cancel()
        cancelled.set_running_or_notify_cancel()
        assert list(as_completed([cancelled])) == [cancelled]


def test_wait_returns_when_it_is_told_to(pool: ThreadPoolExecutor) -> None:
    gate = Gate(pool)
    failed: Future[Any] = Future()
    failed.set_exception(ValueError())
    assert wait([gate.future, done_future(), failed], timeout=0).not_done == {gate.future}
    assert wait([gate.future, failed], return_when=FIRST_EXCEPTION).done == {failed}
    assert wait([], return_when=FIRST_COMPLETED) == (set(), set())
    assert wait([gate.future, gate.future], timeout=0.001) == (set(), {gate.future})
    with pytest.raises(ValueError, match="Invalid return condition: 'SOON'"):
        wait([gate.future], return_when="SOON")
    gate.opened.set()
    assert wait([gate.future]) == ({gate.future}, set())


def test_waiting_leaves_nothing_behind_in_a_future() -> None:
    future: Future[None] = Future()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        wait([future], timeout=0)
        next(as_completed([future, done_future()]))
    gc.collect()
    assert len(gc.get_objects()) - before < 100


def test_a_cancelled_future_is_done_for_wait_when_its_executor_has_noticed() -> None:
    future: Future[None] = Future()
    future.cancel()
    assert wait([future], timeout=0).done == set()
    completed = as_completed([future])
    noticed = threading.Thread(target=future.set_running_or_notify_cancel)
    noticed.start()
    assert list(completed) == [future]
    noticed.join()
    assert wait([future], timeout=0).done == {future}

    later: Future[None] = Future()
    completed = as_completed([later])
    later.cancel()
    later.set_running_or_notify_cancel()
    assert list(completed) == [later]


def test_as_completed_yields_each_once_and_counts_the_unfinished(pool: ThreadPoolExecutor) -> None:
    gate = Gate(pool)
    first = done_future()
    completed = as_completed([gate.future, first, first, gate.future], timeout=0.001)
    assert next(completed) is first
    with pytest.raises(futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        next(completed)
    assert list(completed) == []
    gate.opened.set()
    assert list(as_completed([gate.future])) == [gate.future]


def test_as_completed_is_iterated_by_one_thread_at_a_time() -> None:
    # Two who wait for one future: the second would wait for ever.
    future: Future[int] = Future()
    completed = as_completed([future])
    outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()

    def take() -> None:
        try:
            outcomes.put(next(completed))
        except ValueError as error:
            outcomes.put(str(error))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert outcomes.get(timeout=PATIENCE) == "generator already executing"
    future.set_result(1)
    assert outcomes.get(timeout=PATIENCE) is future
    for thread in threads:
        thread.join()


def test_as_completed_lets_go_of_what_it_has_yielded() -> None:
    completed = as_completed([done_future() for _ in range(3)])
    for future in completed:
        ref = weakref.ref(future)
        del future
        gc.collect()
        assert ref() is None


def test_ten_thousand_futures_of_two_pools_are_completed(pool: ThreadPoolExecutor) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as theirs:
        all_futures = [(pool if n % 10 else theirs).submit(int, n) for n in range(10_000)]
        assert sum(future.result() for future in as_completed(all_futures)) == sum(range(10_000))
        assert len(wait(all_futures).done) == 10_000


def test_map_keeps_the_order_and_takes_several_iterables(pool: ThreadPoolExecutor) -> None:
    assert list(pool.map(pow, [2, 3, 4], [3, 2])) == [8, 9]
    assert list(pool.map(abs, [])) == []
    assert list(pool.map(abs, range(-5, 5), chunksize=3)) == list(map(abs, range(-5, 5)))


def test_map_raises_when_it_comes_to_the_failure_and_then_ends(pool: ThreadPoolExecutor) -> None:
    results = pool.map(divmod, [4, 4, 4], [2, 0, 2])
    assert next(results) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_map_out_of_time_says_so(pool: ThreadPoolExecutor) -> None:
    opened = threading.Event()
    results = pool.map(lambda wait: opened.wait(PATIENCE) if wait else None, [False, True, True], timeout=0)
    with pytest.raises(futures.TimeoutError):
        list(results)
    opened.set()


def test_map_that_ends_early_cancels_the_rest() -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        gate = Gate(pool)
        ran: list[int] = []
        results = pool.map(lambda n: gate.opened.wait(PATIENCE) and ran.append(n), range(100), timeout=0)
        with pytest.raises(futures.TimeoutError):
            next(results)
        gate.opened.set()
    assert ran == []


def test_map_whose_results_nobody_reads_makes_all_calls() -> None:
    ran: list[int] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.map(ran.append, range(100))
        gc.collect()
    assert ran == list(range(100))


def test_map_over_an_iterator_that_raises_submits_no_more_and_cancels() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("in the middle")

    with ThreadPoolExecutor(max_workers=1) as pool:
        gate = Gate(pool)
        ran: list[int] = []
        with pytest.raises(LookupError, match="in the middle"):
            pool.map(ran.append, items())
        gate.opened.set()
    assert ran == []


def test_map_takes_no_more_than_its_buffer_holds(pool: ThreadPoolExecutor) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(50):
            taken.append(n)
            yield n

    results = pool.map(int, items(), buffersize=3)
    assert taken == [0, 1, 2]
    for expected, result in enumerate(results):
        assert result == expected
        assert len(taken) <= expected + 4
    assert len(taken) == 50


def test_map_asks_for_lengths_only_to_show_progress(pool: ThreadPoolExecutor) -> None:
    class Costly(list[int]):
        def __len__(self) -> int:
            raise LookupError("a query")

    assert list(pool.map(abs, Costly([-1, 2]))) == [1, 2]


def test_map_checks_its_buffersize(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        pool.map(abs, [1], buffersize="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        pool.map(abs, [1], buffersize=0)


def test_progress_is_shown(pool: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(pool.map(abs, [-1, -2], progress=True)) == [1, 2]
    assert "2/2" in capsys.readouterr().err
    assert len(list(as_completed([done_future(), done_future(), done_future()], progress=True))) == 3
    assert "3/3" in capsys.readouterr().err


def test_a_future_is_awaited_in_a_coroutine(pool: ThreadPoolExecutor) -> None:
    async def main() -> tuple[int, str]:
        return await pool.submit(pow, 2, 5), await asyncio.wait_for(pool.submit(str, 7), PATIENCE)

    assert asyncio.run(main()) == (32, "7")


def test_cancelling_the_task_that_awaits_cancels_the_call() -> None:
    async def main(future: "Future[None]") -> None:
        async def waits() -> None:
            await future

        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

    asyncio.run(main(Future()))


def test_a_loop_runs_calls_in_our_pool(pool: ThreadPoolExecutor) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        return await loop.run_in_executor(None, pow, 2, 6) + await loop.run_in_executor(pool, abs, -1)

    assert asyncio.run(main()) == 65


def test_many_threads_wait_for_one_future(pool: ThreadPoolExecutor) -> None:
    gate = Gate(pool)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(gate.future.result(PATIENCE))) for _ in range(50)]
    for thread in threads:
        thread.start()
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert results == ["through the gate"] * 50


def test_waiting_frees_the_gil(pool: ThreadPoolExecutor) -> None:
    # The call cannot end unless this thread, which waits for it, lets the other run Python code.
    assert pool.submit(lambda: sum(1 for _ in range(1000))).result(PATIENCE) == 1000
    started = time.monotonic()
    with pytest.raises(futures.TimeoutError):
        Future[None]().result(0.01)
    assert time.monotonic() - started >= 0.01


def test_the_names_are_all_there() -> None:
    for name in futures.__all__:
        assert hasattr(futures, name)
    assert set(concurrent.futures.__all__) - set(futures.__all__) <= {
        "ProcessPoolExecutor",
        "InterpreterPoolExecutor",
    }
