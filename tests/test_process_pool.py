"""`ropewalk.futures.ProcessPoolExecutor`: what it does when nothing goes wrong, and when a call does."""

import asyncio
import concurrent.futures
import concurrent.futures.process
import gc
import multiprocessing
import operator
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref

import calls
import pytest

from ropewalk.futures import (
    BrokenProcessPool,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    TimeoutError,
    WorkerDied,
    as_completed,
    wait,
)

# What lasts so long hangs, on any machine.
HANG = 60


@pytest.fixture
def pool():
    with ProcessPoolExecutor(max_workers=2) as pool:
        yield pool


@pytest.fixture
def single():
    with ProcessPoolExecutor(max_workers=1) as pool:
        yield pool


def until(condition, what="it"):
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"{what} never came about"
        time.sleep(0.001)


def test_a_call_runs_in_another_process(pool):
    future = pool.submit(calls.pid)
    assert future.result(HANG) != os.getpid()
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None


def test_arguments_of_all_kinds_arrive(pool):
    assert pool.submit(calls.show, 1, "two", three=3).result(HANG) == ((1, "two"), {"three": 3})
    assert pool.submit(calls.show).result(HANG) == ((), {})
    assert pool.submit(calls.show, fn=1, self=2).result(HANG) == ((), {"fn": 1, "self": 2})


def test_it_is_an_executor_of_the_standard_library(pool):
    assert isinstance(pool, concurrent.futures.ProcessPoolExecutor)
    assert isinstance(pool.submit(calls.pid), concurrent.futures.Future)


def test_ten_thousand_results_are_each_their_own_calls(pool):
    futures = [pool.submit(calls.cube, n) for n in range(10_000)]
    assert [future.result(HANG) for future in futures] == [n**3 for n in range(10_000)]


def test_map_keeps_the_order(pool):
    assert list(pool.map(calls.cube, range(100))) == [n**3 for n in range(100)]
    assert list(pool.map(operator.mul, [1, 2, 3], [4, 5, 6])) == [4, 10, 18]
    assert list(pool.map(calls.cube, [])) == []


@pytest.mark.parametrize("chunksize", [2, 3, 7, 1000])
def test_map_in_chunks_gives_the_same(pool, chunksize):
    assert list(pool.map(calls.cube, range(20), chunksize=chunksize)) == [n**3 for n in range(20)]


def test_map_refuses_a_chunksize_below_one(pool):
    with pytest.raises(ValueError, match=r"chunksize must be >= 1\."):
        pool.map(calls.cube, [1], chunksize=0)


def test_map_takes_no_more_than_its_buffer(pool):
    taken = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    results = pool.map(calls.cube, items(), buffersize=3)
    assert len(taken) == 3
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [n**3 for n in range(1, 100)]


def test_map_raises_when_it_comes_to_the_failed_call(pool):
    results = pool.map(calls.show, [1, 2])
    assert list(results) == [((1,), {}), ((2,), {})]
    with pytest.raises(ValueError, match="invalid literal"):
        list(pool.map(int, ["1", "two", "3"]))


def test_map_out_of_time_raises(single, tmp_path):
    gate = str(tmp_path / "gate")
    results = single.map(calls.wait_for, [gate], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    calls.mark(gate)


def test_an_exception_has_the_remote_traceback_as_its_cause(pool):
    with pytest.raises(ValueError, match="bad luck") as raised:
        pool.submit(calls.fail, "bad luck").result(HANG)
    assert raised.value.args == ("bad luck", 42)
    cause = raised.value.__cause__
    assert isinstance(cause, concurrent.futures.process._RemoteTraceback)
    assert "Traceback (most recent call last)" in str(cause)
    assert "raise ValueError(message, 42)" in str(cause)


def test_sys_exit_is_an_exception_of_its_call(single):
    worker = single.submit(calls.pid).result(HANG)
    with pytest.raises(SystemExit) as raised:
        single.submit(calls.leave, 3).result(HANG)
    assert raised.value.code == 3
    assert single.submit(calls.pid).result(HANG) == worker


def test_a_lambda_and_a_closure_can_be_sent(pool):
    factor = 3
    assert pool.submit(lambda n: n * factor, 14).result(HANG) == 42

    def outer(n):
        return [calls.cube(n), factor]

    assert pool.submit(outer, 2).result(HANG) == [8, 3]


def test_a_closure_is_sent_anew_with_each_call(pool):
    counter = 0

    def read():
        return counter

    assert pool.submit(read).result(HANG) == 0
    counter = 1
    assert pool.submit(read).result(HANG) == 1


def test_bound_methods_partials_and_builtins_can_be_sent(pool):
    import functools

    assert pool.submit("rope".upper).result(HANG) == "ROPE"
    assert pool.submit(functools.partial(pow, 2), 5).result(HANG) == 32
    assert pool.submit(max, [1, 3, 2]).result(HANG) == 3
    assert pool.submit(dict, a=1).result(HANG) == {"a": 1}


SCRIPT = """
import sys
from ropewalk.futures import ProcessPoolExecutor

class Point:
    def __init__(self, x):
        self.x = x
    def doubled(self):
        return Point(self.x * 2)

def double(point):
    return point.doubled()

print("started", flush=True)
with ProcessPoolExecutor(max_workers=1) as pool:
    point = pool.submit(double, Point(21)).result()
    assert type(point) is Point, type(point)
    print(point.x)
    print(list(pool.map(lambda n: n + 1, range(3))))
"""


def run_script(text, *args, **kwargs):
    return subprocess.run([sys.executable, *args], input=text, capture_output=True, text=True, timeout=HANG, **kwargs)


def test_what_main_defines_can_be_sent_without_a_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run_script("", str(script))
    assert (done.stdout, done.stderr) == ("started\n42\n[1, 2, 3]\n", "")


def test_what_an_interactive_session_defines_can_be_sent():
    done = run_script(SCRIPT.replace("    def doubled", "    def doubled"), "-")
    assert (done.stdout, done.stderr) == ("started\n42\n[1, 2, 3]\n", "")


def test_small_buffers_are_writable(pool):
    array = pool.submit(calls.increment, calls.Array(bytearray(10))).result(HANG)
    assert bytes(array.data) == b"\1" + bytes(9)
    memoryview(array.data)[0] = 9


def test_large_buffers_arrive_writable_and_the_arguments_stay_as_they_were(pool):
    size = 10_000_000
    data = bytearray(size)
    array = pool.submit(calls.increment, calls.Array(data)).result(HANG)
    expected = bytearray(size)
    expected[::4096] = b"\1" * len(expected[::4096])
    assert bytes(array.data) == expected
    assert bytes(data) == bytes(size)
    memoryview(array.data)[0] = 9


def test_readonly_buffers_stay_readonly(pool):
    array = pool.submit(calls.Array, bytes(1_000_000)).result(HANG)
    assert memoryview(array.data).readonly


@pytest.mark.parametrize("size", [0, 1, 1000, 65_000, 65_536, 3_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_all_sizes_go_there_and_back(pool, size, kind):
    data = kind(calls.make(size + 256)[:size])
    result = pool.submit(calls.reverse, data).result(HANG)
    assert type(result) is kind
    assert result == data[::-1]


def test_a_result_outlives_its_future_and_pool():
    with ProcessPoolExecutor(max_workers=1) as pool:
        array = pool.submit(calls.increment, calls.Array(bytearray(1_000_000))).result(HANG)
    del pool
    gc.collect()
    assert memoryview(array.data)[4096] == 1


def test_callbacks_run_in_order_and_late_ones_at_once(single, tmp_path):
    gate = str(tmp_path / "gate")
    future = single.submit(calls.wait_for, gate)
    seen = []
    ended = threading.Event()
    for n in range(3):
        future.add_done_callback(lambda _, n=n: seen.append(n))
    future.add_done_callback(lambda _: ended.set())
    assert seen == []
    calls.mark(gate)
    assert ended.wait(HANG)
    assert seen == [0, 1, 2]
    future.add_done_callback(lambda _: seen.append("late"))
    assert seen[-1] == "late"


def test_a_callback_that_raises_keeps_the_next_from_nothing(pool, caplog):
    future = pool.submit(calls.cube, 2)
    ended = threading.Event()

    def bad(_):
        raise LookupError("a bad callback")

    future.add_done_callback(bad)
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(HANG)
    assert "exception calling callback" in caplog.text


def test_shutdown_returns_after_the_callbacks(tmp_path):
    seen = []
    with ProcessPoolExecutor(max_workers=2) as pool:
        for n in range(100):
            pool.submit(calls.cube, n).add_done_callback(lambda future: seen.append(future.result()))
    assert sorted(seen) == [n**3 for n in range(100)]


def test_shutdown_returns_after_callbacks_that_take_longer_than_the_workers_to_exit():
    gate, seen = threading.Event(), []

    def callback(future):
        gate.wait(HANG)
        seen.append(future.result())

    pool = ProcessPoolExecutor(max_workers=1)
    future = pool.submit(calls.cube, 3)
    future.add_done_callback(callback)
    assert future.result(HANG) == 27
    closer = threading.Thread(target=lambda: (pool.shutdown(), seen.append("shut down")))
    closer.start()
    while pool.statistics().workers:  # they have exited, and the callback has not returned
        time.sleep(0.001)
    gate.set()
    closer.join(HANG)
    assert seen == [27, "shut down"]


def test_shutdown_in_a_callback_does_not_wait_for_the_callback():
    ended = threading.Event()
    pool = ProcessPoolExecutor(max_workers=1)

    def callback(future):
        pool.shutdown()
        ended.set()

    pool.submit(calls.cube, 3).add_done_callback(callback)
    assert ended.wait(HANG)


def test_wait_and_as_completed_take_them(pool):
    futures = [pool.submit(calls.cube, n) for n in range(20)]
    assert wait(futures, HANG).done == set(futures)
    assert {future.result() for future in as_completed(futures)} == {n**3 for n in range(20)}


def test_the_standard_librarys_wait_and_as_completed_take_them(pool):
    for _ in range(20):
        futures = [pool.submit(calls.cube, n) for n in range(20)]
        done = [future.result() for future in concurrent.futures.as_completed(futures, HANG)]
        assert sorted(done) == [n**3 for n in range(20)]
        futures = [pool.submit(calls.cube, n) for n in range(20)]
        assert concurrent.futures.wait(futures, HANG).done == set(futures)


def test_the_standard_librarys_wait_sees_a_cancelled_one(single, tmp_path):
    gate = str(tmp_path / "gate")
    first = single.submit(calls.wait_for, gate)
    second = single.submit(calls.cube, 2)
    until(first.running)
    thread = threading.Timer(0, second.cancel)
    thread.start()
    waited = concurrent.futures.wait([first, second], HANG, return_when="FIRST_COMPLETED")
    thread.join()
    assert waited.done == {second}
    calls.mark(gate)


def test_wait_sees_the_first_exception(single, tmp_path):
    gate = str(tmp_path / "gate")
    bad = single.submit(calls.fail, "early")
    late = single.submit(calls.wait_for, gate)
    assert wait([bad, late], HANG, return_when="FIRST_EXCEPTION") == ({bad}, {late})
    calls.mark(gate)


def test_futures_of_processes_and_threads_mix(pool):
    with ThreadPoolExecutor(2) as threads:
        futures = [executor.submit(calls.cube, n) for n in range(10) for executor in (pool, threads)]
        results = sorted(future.result() for future in as_completed(futures, HANG))
    assert results == sorted([n**3 for n in range(10)] * 2)


def test_a_future_can_be_awaited(pool):
    async def main():
        loop = asyncio.get_running_loop()
        first = await pool.submit(calls.cube, 3)
        second = await loop.run_in_executor(pool, calls.cube, 4)
        many = await asyncio.gather(*(asyncio.wrap_future(pool.submit(calls.cube, n)) for n in range(10)))
        return first, second, many

    assert asyncio.run(main()) == (27, 64, [n**3 for n in range(10)])


def test_a_call_that_has_not_begun_is_cancelled_and_never_runs(single, tmp_path):
    gate, never = str(tmp_path / "gate"), tmp_path / "never"
    first = single.submit(calls.wait_for, gate)
    futures = [single.submit(calls.mark, str(never)) for _ in range(1000)]
    until(first.running)
    assert repr(first).endswith("state=running>")
    assert not first.cancel()
    assert all(future.cancel() for future in futures)
    assert all(future.cancelled() and future.cancel() for future in futures)
    with pytest.raises(CancelledError):
        futures[0].result()
    calls.mark(gate)
    first.result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8
    assert not never.exists()


def test_a_running_call_is_cancelled_by_ending_its_worker(single, tmp_path):
    path = tmp_path / "runs"
    future = single.submit(calls.hang, str(path))
    until(path.exists)
    assert not future.cancel()
    assert future.cancel(running=True)
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8
    assert not future.cancel(running=True) or future.cancelled()


def test_cancelling_what_is_done_does_nothing(pool):
    future = pool.submit(calls.cube, 2)
    assert future.result(HANG) == 8
    assert not future.cancel()
    assert not future.cancel(running=True)
    assert future.result() == 8


def test_result_out_of_time_raises_and_can_be_asked_again(single, tmp_path):
    gate = str(tmp_path / "gate")
    future = single.submit(calls.wait_for, gate)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    calls.mark(gate)
    assert future.result(HANG) > 0


def test_a_call_out_of_time_fails_and_its_worker_is_replaced(single, tmp_path):
    future = single.submit_with(calls.hang, str(tmp_path / "hang"), timeout=0.05)
    with pytest.raises(TimeoutError, match="longer than it may"):
        future.result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8
    assert single.statistics().restarts == 1


def test_map_passes_limits_on(single, tmp_path):
    results = single.map(calls.hang, [str(tmp_path / "hang")], task_timeout=0.05)
    with pytest.raises(TimeoutError, match="longer than it may"):
        next(results)
    assert next(single.map(calls.die_once, [str(tmp_path / "once")], retries=1)) > 0


def test_limits_that_make_no_sense_are_refused(single):
    with pytest.raises(ValueError, match="timeout must be greater than 0"):
        single.submit_with(calls.cube, 2, timeout=0)
    with pytest.raises(OverflowError):
        single.submit_with(calls.cube, 2, retries=-1)


def test_arguments_that_make_no_sense_are_refused():
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            ProcessPoolExecutor(workers)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ProcessPoolExecutor(1, initializer=3)
    with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
        ProcessPoolExecutor(1, max_tasks_per_child=1.5)
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        ProcessPoolExecutor(1, max_tasks_per_child=0)
    with pytest.raises(ValueError, match="max_pending"):
        ProcessPoolExecutor(1, max_pending=0)
    with pytest.raises(ValueError, match="never forks"):
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_contexts_that_start_fresh_processes_are_accepted(method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(calls.cube, 2).result(HANG) == 8


def test_short_calls_do_not_wait_behind_a_long_one(pool, tmp_path):
    gate = str(tmp_path / "gate")
    long = pool.submit(calls.wait_for, gate)
    assert [future.result(HANG) for future in [pool.submit(calls.cube, n) for n in range(500)]] == [
        n**3 for n in range(500)
    ]
    assert not long.done()
    calls.mark(gate)


def test_a_call_sent_behind_a_long_one_does_not_wait_for_all_that_come_later(pool, tmp_path):
    gate = str(tmp_path / "gate")
    pool.warm_up(HANG)
    long = pool.submit(calls.wait_for, gate)
    try:
        until(long.running)
        early = [pool.submit(calls.cube, n) for n in range(8)]
        # There is always something in the queue, for the other worker to do.
        later = [pool.submit(time.sleep, 0.001) for _ in range(1000)]
        end = time.monotonic() + HANG
        while not all(future.done() for future in early):
            assert time.monotonic() < end
            while pool.statistics().queued < 100:
                later.append(pool.submit(time.sleep, 0.001))
    finally:
        calls.mark(gate)


def test_workers_start_on_demand_and_are_kept():
    with ProcessPoolExecutor(max_workers=4) as pool:
        assert pool.statistics().workers == 0
        assert len({pool.submit(calls.pid).result(HANG) for _ in range(10)}) == 1
        assert pool.warm_up(HANG)
        assert pool.statistics().workers == 4


def test_a_worker_is_replaced_after_so_many_calls():
    with ProcessPoolExecutor(1, max_tasks_per_child=3) as pool:
        pids = list(pool.map(calls.pid, range(9)))
    assert len(set(pids)) == 3
    assert pids == sorted(pids, key=pids.index)


def test_a_worker_with_too_much_memory_is_replaced():
    with ProcessPoolExecutor(1, max_memory_per_child=1) as pool:
        assert pool.submit(calls.pid).result(HANG) != pool.submit(calls.pid).result(HANG)
    with ProcessPoolExecutor(1, max_memory_per_child=1 << 40) as pool:
        assert pool.submit(calls.pid).result(HANG) == pool.submit(calls.pid).result(HANG)


def test_a_bounded_pool_lets_submit_wait(tmp_path):
    gate = str(tmp_path / "gate")
    with ProcessPoolExecutor(1, max_pending=2) as pool:
        futures = [pool.submit(calls.wait_for, gate) for _ in range(2)]
        third = []
        thread = threading.Thread(target=lambda: third.append(pool.submit(calls.cube, 2)))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert pool.statistics().pending == 2
        calls.mark(gate)
        thread.join(HANG)
        assert third[0].result(HANG) == 8
        assert all(future.result(HANG) for future in futures)


def test_an_initializer_runs_once_in_each_worker():
    with ProcessPoolExecutor(1, initializer=calls.set_state, initargs=("ready",)) as pool:
        assert pool.submit(calls.get_state).result(HANG) == "ready"
    with ProcessPoolExecutor(1, initializer=lambda: calls.set_state(7)) as pool:
        assert pool.submit(calls.get_state).result(HANG) == 7


def test_an_initializer_may_get_locks_and_queues():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with ProcessPoolExecutor(1, mp_context=context, initializer=queue.put, initargs=("hello",)) as pool:
        assert pool.submit(calls.cube, 2).result(HANG) == 8
        assert queue.get(timeout=HANG) == "hello"
    queue.close()
    queue.join_thread()


def test_an_initializer_that_fails_breaks_the_pool_and_says_why(capfd):
    with ProcessPoolExecutor(1, initializer=calls.fail_to_initialize) as pool:
        with pytest.raises(BrokenProcessPool, match="LookupError: not today"):
            pool.submit(calls.cube, 2).result(HANG)
        with pytest.raises(BrokenProcessPool, match="LookupError: not today"):
            pool.submit(calls.cube, 2)
    assert "Exception in initializer" in capfd.readouterr().err


def test_connections_and_managers_proxies_can_be_sent(single):
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    single.submit(lambda end: end.send("through"), sender).result(HANG)
    assert receiver.recv() == "through"
    receiver.close()
    sender.close()


def test_a_pool_in_a_worker_works(single):
    assert single.submit(calls.sum_by_a_pool_of_its_own, range(10)).result(HANG) == sum(n**3 for n in range(10))


def test_a_worker_has_the_programs_path_and_arguments_and_no_input(single):
    facts = single.submit(calls.worker_facts).result(HANG)
    assert facts["argv"] == sys.argv
    assert [path for path in sys.path if path] == [path for path in facts["path"] if path in sys.path]
    assert facts["stdin"] == ""
    assert facts["threads"] == 1


def test_after_shutdown_nothing_is_accepted():
    pool = ProcessPoolExecutor(1)
    future = pool.submit(calls.cube, 3)
    pool.shutdown()
    assert future.result() == 27
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(calls.cube, 3)
    pool.shutdown()


def test_shutdown_can_cancel_what_has_not_begun(tmp_path):
    gate = str(tmp_path / "gate")
    pool = ProcessPoolExecutor(1)
    first = pool.submit(calls.wait_for, gate)
    until(first.running)
    rest = [pool.submit(calls.cube, n) for n in range(100)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    calls.mark(gate)
    assert first.result(HANG) > 0
    pool.shutdown()


def test_a_pool_that_nobody_holds_finishes_its_calls():
    futures = [ProcessPoolExecutor(1).submit(calls.cube, 3)]
    gc.collect()
    assert futures[0].result(HANG) == 27


def test_kill_workers_breaks_the_pool(tmp_path):
    for method in ("kill_workers", "terminate_workers"):
        path = tmp_path / method
        pool = ProcessPoolExecutor(1)
        running, queued = pool.submit(calls.hang, str(path)), pool.submit(calls.cube, 2)
        until(path.exists)
        getattr(pool, method)()
        for future in (running, queued):
            with pytest.raises(BrokenProcessPool):
                future.result(HANG)
        with pytest.raises(RuntimeError):
            pool.submit(calls.cube, 2)
        pool.shutdown()


def test_statistics_count():
    with ProcessPoolExecutor(1) as pool:
        assert list(pool.map(calls.cube, range(10))) == [n**3 for n in range(10)]
        counted = pool.statistics()
    assert (counted.workers, counted.queued, counted.pending, counted.done, counted.restarts) == (1, 0, 0, 10, 0)
    assert counted.bytes_sent > 0 < counted.bytes_received


def test_worker_died_can_be_pickled():
    error = WorkerDied("gone", 7, 9, -9)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.pid, again.signal, again.exitcode) == ("gone", 7, 9, -9)


def test_a_worker_starts_without_what_it_does_not_need(single):
    modules = set(single.submit(eval, "list(__import__('sys').modules)").result(HANG))
    assert "ropewalk._native" in modules
    assert not modules & {
        "asyncio",
        "inspect",
        "multiprocessing",
        "pickle",
        "cloudpickle",
        "ropewalk.futures",
        "traceback",
    }


def test_a_pool_in_a_reference_cycle_is_collected():
    module = type(sys)("passing_cycle")
    sys.modules["passing_cycle"] = module
    exec("def f():\n    return 1", module.__dict__)
    module.pool = ProcessPoolExecutor(1)
    future = module.pool.submit(module.f)
    with pytest.raises(ModuleNotFoundError):
        future.result(HANG)
    gone = weakref.ref(module.pool)
    del sys.modules["passing_cycle"], module, future
    gc.collect()
    assert gone() is None
