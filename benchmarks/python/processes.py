"""ropewalk.futures.ProcessPoolExecutor against the standard library's, multiprocessing.Pool, loky, pebble and mpire."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from measure import bench, main, scaled

WORKERS = 2

Submit = Callable[..., Callable[[], Any]]


@contextlib.contextmanager
def pool(who: str, workers: int = WORKERS) -> Iterator[Submit]:
    """A pool with its workers started, as a function that submits a call and returns one that waits for its result."""
    with open_pool(who, workers) as submit:
        # A function of this script: what it takes to load such a one is there, too.
        for wait in [submit(burn, 0.05) for _ in range(2 * workers)]:
            wait()
        yield submit


@contextlib.contextmanager
def open_pool(who: str, workers: int = WORKERS) -> Iterator[Submit]:
    if who == "multiprocessing.Pool":
        with multiprocessing.Pool(workers) as processes:
            yield lambda fn, *args: processes.apply_async(fn, args).get
    elif who == "mpire":
        import mpire

        with mpire.WorkerPool(workers) as processes:
            yield lambda fn, *args: processes.apply_async(fn, args).get
    elif who == "pebble":
        import pebble

        with pebble.ProcessPool(max_workers=workers) as processes:
            yield lambda fn, *args: processes.schedule(fn, args=args).result
    else:
        with executor(who, workers) as processes:
            yield lambda fn, *args: processes.submit(fn, *args).result


def executor(who: str, workers: int) -> Any:
    if who == "ropewalk":
        from ropewalk.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(workers)
    if who == "loky":
        import loky

        return loky.ProcessPoolExecutor(workers)
    from concurrent.futures import ProcessPoolExecutor

    # The default start method is the one that is fastest in what is measured; to start, the comparable one is spawn.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn") if who == "stdlib spawn" else None)


def nothing() -> None:
    pass


@bench("pipelined", unit="us")
def pipelined(who: str) -> float:
    count = scaled(10_000)
    with pool(who) as submit:
        started = time.perf_counter()
        for wait in [submit(nothing) for _ in range(count)]:
            wait()
        return (time.perf_counter() - started) / count


@bench("round trip", unit="us")
def round_trip(who: str) -> float:
    count = scaled(2_000)
    with pool(who) as submit:
        started = time.perf_counter()
        for _ in range(count):
            submit(nothing)()
        return (time.perf_counter() - started) / count


def burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def times_ideal(who: str, seconds: float, count: int) -> float:
    """How much longer it takes than the calls' own time, shared between the workers."""
    with pool(who) as submit:
        started = time.perf_counter()
        for wait in [submit(burn, seconds) for _ in range(count)]:
            wait()
        return (time.perf_counter() - started) / (seconds * count / WORKERS)


@bench("20 us calls", unit="x ideal")
def calls_of_20_us(who: str) -> float:
    return times_ideal(who, 20e-6, scaled(10_000))


@bench("100 us calls", unit="x ideal")
def calls_of_100_us(who: str) -> float:
    return times_ideal(who, 100e-6, scaled(5_000))


@bench("1 ms calls", unit="x ideal")
def calls_of_1_ms(who: str) -> float:
    return times_ideal(who, 1e-3, scaled(1_000))


@bench("200 short calls beside one of 300 ms", unit="ms")
def head_of_line(who: str) -> float:
    with pool(who) as submit:
        started = time.perf_counter()
        long = submit(time.sleep, 0.3)
        for wait in [submit(nothing) for _ in range(200)]:
            wait()
        elapsed = time.perf_counter() - started
        long()
        return elapsed


def repeated(who: str, call: Callable[[Submit], Any], count: int) -> float:
    with pool(who) as submit:
        call(submit)
        started = time.perf_counter()
        for _ in range(count):
            call(submit)
        return (time.perf_counter() - started) / count


def send_bytes(who: str, megabytes: int, count: int) -> float:
    data = bytes(megabytes * 1_000_000)
    return repeated(who, lambda submit: submit(len, data)(), count)


def send_array(who: str, megabytes: int, count: int) -> float:
    import numpy

    array = numpy.ones(megabytes * 125_000)
    return repeated(who, lambda submit: submit(len, array)(), count)


@functools.cache
def make_array(size: int) -> Any:
    """Made once in a worker: what is measured is the way back."""
    import numpy

    return numpy.ones(size)


def receive_array(who: str, megabytes: int, count: int) -> float:
    return repeated(who, lambda submit: submit(make_array, megabytes * 125_000)(), count)


@bench("1 MB bytes argument", unit="ms")
def bytes_1(who: str) -> float:
    return send_bytes(who, 1, scaled(100))


@bench("10 MB bytes argument", unit="ms")
def bytes_10(who: str) -> float:
    return send_bytes(who, 10, scaled(10))


@bench("100 MB bytes argument", unit="ms")
def bytes_100(who: str) -> float:
    return send_bytes(who, 100, scaled(3))


@bench("1 MB NumPy argument", unit="ms")
def array_1(who: str) -> float:
    return send_array(who, 1, scaled(100))


@bench("10 MB NumPy argument", unit="ms")
def array_10(who: str) -> float:
    return send_array(who, 10, scaled(10))


@bench("100 MB NumPy argument", unit="ms")
def array_100(who: str) -> float:
    return send_array(who, 100, scaled(3))


@bench("100 MB NumPy result", unit="ms")
def result_100(who: str) -> float:
    return receive_array(who, 100, scaled(3))


@bench("start 2 workers and stop", unit="ms")
def start_and_stop(who: str) -> float:
    count = scaled(5)
    started = time.perf_counter()
    for _ in range(count):
        with open_pool(who) as submit:
            for wait in [submit(time.sleep, 0.001) for _ in range(WORKERS)]:
                wait()
    return (time.perf_counter() - started) / count


# Workers that are spawned import this module.
if __name__ == "__main__":
    main()
