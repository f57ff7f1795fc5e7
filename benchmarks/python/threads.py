"""ropewalk.futures against concurrent.futures: the thread pool and its futures."""

from __future__ import annotations

import gc
import os
import threading
import time
from types import ModuleType

from measure import bench, main, scaled


def library(who: str) -> ModuleType:
    if who == "ropewalk":
        import ropewalk.futures

        return ropewalk.futures
    import concurrent.futures

    return concurrent.futures


def nothing() -> None:
    pass


def seconds_a_task(who: str, tasks: int, repeat: int) -> float:
    """Submits all tasks, then asks for all results, on two workers that are there already."""
    with library(who).ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(nothing) for _ in range(100)]:
            future.result()
        started = time.perf_counter()
        for _ in range(repeat):
            for future in [pool.submit(nothing) for _ in range(tasks)]:
                future.result()
        return (time.perf_counter() - started) / (tasks * repeat)


@bench("pipelined", unit="us")
def pipelined(who: str) -> float:
    return seconds_a_task(who, 10_000, scaled(10))


@bench("round trip", unit="us")
def round_trip(who: str) -> float:
    return seconds_a_task(who, 1, scaled(20_000))


@bench("10 tasks", unit="us")
def ten_tasks(who: str) -> float:
    return seconds_a_task(who, 10, scaled(2_000))


@bench("100 tasks", unit="us")
def a_hundred_tasks(who: str) -> float:
    return seconds_a_task(who, 100, scaled(300))


@bench("1 000 tasks", unit="us")
def a_thousand_tasks(who: str) -> float:
    return seconds_a_task(who, 1_000, scaled(50))


@bench("100 000 tasks", unit="us")
def a_hundred_thousand_tasks(who: str) -> float:
    return seconds_a_task(who, scaled(100_000), 1)


@bench("Future()", unit="ns")
def future(who: str) -> float:
    make = library(who).Future
    count = scaled(200_000)
    started = time.perf_counter()
    for _ in range(count):
        make()
    return (time.perf_counter() - started) / count


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@bench("memory a pending task", unit="bytes")
def memory(who: str) -> float:
    count = scaled(100_000)
    release = threading.Event()
    with library(who).ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait)
        gc.collect()
        before = resident()
        futures = [pool.submit(nothing) for _ in range(count)]
        size = (resident() - before) / count
        release.set()
        futures[-1].result()
    return size


main()
