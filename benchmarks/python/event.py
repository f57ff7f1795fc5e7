"""ropewalk.threading.Event against threading.Event, and how exact ropewalk.gil.contention is."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from measure import bench, main, scaled


def make(who: str) -> Any:
    if who == "ropewalk":
        import ropewalk.threading

        return ropewalk.threading.Event()
    return threading.Event()


@bench("set + wait + clear", unit="ns")
def one_thread(who: str) -> float:
    event = make(who)
    set_, wait, clear = event.set, event.wait, event.clear
    count = scaled(1_000_000)
    started = time.perf_counter()
    for _ in range(count):
        set_()
        wait()
        clear()
    return (time.perf_counter() - started) / count


@bench("Event()", unit="ns")
def create(who: str) -> float:
    cls = type(make(who))
    count = scaled(500_000)
    started = time.perf_counter()
    for _ in range(count):
        cls()
    return (time.perf_counter() - started) / count


@bench("is_set", unit="ns")
def is_set(who: str) -> float:
    is_set = make(who).is_set
    count = scaled(5_000_000)
    started = time.perf_counter()
    for _ in range(count):
        is_set()
    return (time.perf_counter() - started) / count


@bench("wait with a timeout of 0", unit="ns")
def timeout(who: str) -> float:
    wait = make(who).wait
    count = scaled(500_000)
    started = time.perf_counter()
    for _ in range(count):
        wait(0)
    return (time.perf_counter() - started) / count


@bench("round trip", unit="us")
def round_trip(who: str) -> float:
    ping, pong = make(who), make(who)
    count = scaled(10_000)

    def echo() -> None:
        for _ in range(count):
            ping.wait()
            ping.clear()
            pong.set()

    thread = threading.Thread(target=echo)
    thread.start()
    started = time.perf_counter()
    for _ in range(count):
        ping.set()
        pong.wait()
        pong.clear()
    elapsed = time.perf_counter() - started
    thread.join()
    return elapsed / count


@bench("one set lets 100 threads go", unit="us")
def many(who: str) -> float:
    rounds = scaled(50)
    elapsed = 0.0
    for _ in range(rounds):
        event, waiting = make(who), threading.Barrier(101)

        def wait(event: Any = event, waiting: threading.Barrier = waiting) -> None:
            waiting.wait()
            event.wait()

        threads = [threading.Thread(target=wait) for _ in range(100)]
        for thread in threads:
            thread.start()
        waiting.wait()
        time.sleep(0.005)
        started = time.perf_counter()
        event.set()
        for thread in threads:
            thread.join()
        elapsed += time.perf_counter() - started
    return elapsed / rounds


@bench("a coroutine's wait", unit="us")
def coroutine(who: str) -> float:
    count = scaled(50_000)

    async def run() -> float:
        if who == "ropewalk":
            event = make(who)
            wait = event.wait_async
        else:
            event = asyncio.Event()
            wait = event.wait
        started = time.perf_counter()
        for _ in range(count):
            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            event.set()
            await task
            event.clear()
        return (time.perf_counter() - started) / count

    return asyncio.run(run())


main()
