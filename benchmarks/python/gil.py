"""ropewalk.gil.contention: what it costs, and how far it is off on loads whose figures are known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from measure import bench, main, scaled
from ropewalk.gil import contention


def compute(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(1000):
            pass


@bench("processor that the measurement takes", unit="%")
def overhead(_: str) -> float:
    """What the other threads of the process used, which is the one that looks, while this one computed."""
    with contention():
        started, before = time.perf_counter(), time.process_time() - time.thread_time()
        compute(scaled(10) / 10)
        used, elapsed = time.process_time() - time.thread_time() - before, time.perf_counter() - started
    return 100 * used / elapsed


def measure(*functions: Callable[[], object]) -> tuple[float, float]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    with contention() as measured:
        time.sleep(scaled(10) / 10)
    for thread in threads:
        thread.join()
    return 100 * measured.held, 100 * measured.waited


def off(found: tuple[float, float], held: float, waited: float) -> float:
    """The larger of the two errors, in points."""
    return max(abs(found[0] - held), abs(found[1] - waited))


@bench("points off: two threads that compute", unit="points")
def two(_: str) -> float:
    seconds = scaled(10) / 10 + 0.2
    return off(measure(lambda: compute(seconds), lambda: compute(seconds)), 100, 100)


@bench("points off: one computes, one sleeps", unit="points")
def one(_: str) -> float:
    seconds = scaled(10) / 10 + 0.2
    return off(measure(lambda: compute(seconds), lambda: time.sleep(seconds)), 100, 0)


@bench("points off: idle", unit="points")
def idle(_: str) -> float:
    return off(measure(), 0, 0)


main()
