"""What is measured: every topic, its contenders, its rows and the targets that they have to reach."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One figure. `at_least`: ratios to reach against contenders; `at_most`: our own figure's limit, in its unit."""

    bench: str
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: float | None = None
    pinned: tuple[bool, ...] = (False,)


@dataclass(frozen=True)
class Topic:
    """One program; `contenders` besides ropewalk itself."""

    name: str
    program: str  # python/X.py or the name of a binary of rust/
    contenders: tuple[str, ...]
    rows: tuple[Row, ...]


BOTH = (True, False)

TOPICS = (
    Topic(
        "python threads",
        "python/threads.py",
        ("stdlib",),
        (
            Row("pipelined", {"stdlib": 10}),
            Row("round trip", {"stdlib": 3}, pinned=BOTH),
            Row("Future()", {"stdlib": 5}),
            Row("10 tasks"),
            Row("100 tasks"),
            Row("1 000 tasks"),
            Row("100 000 tasks"),
            Row("memory a pending task"),
        ),
    ),
    Topic(
        "python processes",
        "python/processes.py",
        ("stdlib", "multiprocessing.Pool", "loky", "pebble", "mpire"),
        (
            Row("pipelined", {"stdlib": 10, "multiprocessing.Pool": 3}),
            Row("round trip", {"stdlib": 4}, pinned=BOTH),
            Row("20 us calls"),
            Row("100 us calls"),
            Row("1 ms calls", at_most=1.15),
            Row("200 short calls beside one of 300 ms", at_most=30),
            Row("1 MB bytes argument"),
            Row("10 MB bytes argument"),
            Row("100 MB bytes argument", {"stdlib": 4}),
            Row("1 MB NumPy argument"),
            Row("10 MB NumPy argument"),
            Row("100 MB NumPy argument", {"stdlib": 8}),
            Row("100 MB NumPy result", {"stdlib": 8}),
        ),
    ),
    Topic(
        "python processes, start",
        "python/processes.py",
        ("stdlib spawn", "loky"),
        (Row("start 2 workers and stop", {"stdlib spawn": 2.5}),),
    ),
    Topic(
        "rust processes",
        "processes",
        ("procspawn",),
        (
            Row("pipelined", {"procspawn": 15}),
            Row("round trip", {"procspawn": 1}, pinned=BOTH),
        ),
    ),
    Topic(
        "rust threads",
        "threads",
        ("threadpool", "rayon", "tokio"),
        (
            Row("pipelined", {"threadpool": 0.9, "rayon": 1.0, "tokio": 2.5}),
            Row("round trip", {"rayon": 10}, pinned=BOTH),
            Row("round trip without spin", pinned=BOTH),
        ),
    ),
    Topic(
        "rust coroutines",
        "coroutine",
        ("genawaiter", "thread"),
        (
            Row("send", {"genawaiter": 0.8}),
            Row("create + drop"),
            Row("memory a coroutine"),
        ),
    ),
    Topic(
        "rust yield_from",
        "coroutine",
        ("nested await",),
        (
            Row("yield_from, 1 deep"),
            Row("yield_from, 10 deep"),
            Row("yield_from, 100 deep", {"nested await": 10}),
        ),
    ),
    Topic(
        "rust stackful coroutines",
        "coroutine",
        ("corosensei",),
        (
            Row("stackful send", {"corosensei": 0.95}),
            Row("stackful create + drop"),
            Row("memory a stackful coroutine"),
        ),
    ),
    Topic(
        "rust event loop",
        "asyncio",
        ("tokio", "smol"),
        (
            Row("spawn + join", {"tokio": 4, "smol": 3}, pinned=(True,)),
            Row("yield", {"tokio": 3, "smol": 3}, pinned=(True,)),
            Row("timer insert + cancel", {"tokio": 4, "smol": 1.5}, pinned=(True,)),
            Row("TCP echo 1 KiB", {"tokio": 0.95, "smol": 1.4}, pinned=(True,)),
            Row("TCP echo 1 KiB, 50 connections", {"tokio": 0.95, "smol": 1.4}, pinned=(True,)),
            *(Row(f"spawn + join, {count:,} tasks", pinned=(True,)) for count in (10, 100, 10_000, 1_000_000)),
            Row("memory a task", pinned=(True,)),
            Row("memory a connection", pinned=(True,)),
        ),
    ),
    Topic(
        "rust gil",
        "gil",
        (),
        (
            Row("checkpoint", at_most=1),
            Row("release + take", at_most=20),
            Row("acquire + drop"),
        ),
    ),
    Topic(
        "rust gil, policies",
        "gil",
        ("CPython's policy",),
        (
            Row("wait behind a computing thread", {"CPython's policy": 100}),
            Row("computing lost under an I/O flood", at_most=25),
        ),
    ),
    Topic(
        "rust event",
        "event",
        ("condition variable",),
        (
            Row("set + wait + clear"),
            Row("round trip", pinned=BOTH),
        ),
    ),
    Topic(
        "python event",
        "python/event.py",
        ("stdlib",),
        (
            Row("set + wait + clear", {"stdlib": 5}),
            Row("Event()", {"stdlib": 5}),
            Row("is_set"),
            Row("wait with a timeout of 0"),
            Row("round trip", pinned=BOTH),
            Row("one set lets 100 threads go"),
            Row("a coroutine's wait"),
        ),
    ),
    Topic(
        "python gil",
        "python/gil.py",
        (),
        (
            Row("processor that the measurement takes", at_most=1),
            Row("points off: two threads that compute", at_most=5),
            Row("points off: one computes, one sleeps", at_most=5),
            Row("points off: idle", at_most=5),
        ),
    ),
    Topic(
        "python event loop",
        "python/loop.py",
        ("asyncio", "uvloop", "rloop"),
        (
            Row("call_soon chain", {"uvloop": 3, "rloop": 1.5, "asyncio": 5}),
            Row("call_soon batch", {"uvloop": 2.5, "rloop": 1.1, "asyncio": 5}),
            Row("sleep(0) among 100 tasks", {"uvloop": 2, "rloop": 1.6, "asyncio": 3}),
            Row("create + gather 1 000 tasks", {"uvloop": 2, "rloop": 2, "asyncio": 2.5}),
            Row("the same, ropewalk.gather", {"uvloop": 7, "rloop": 7, "asyncio": 10}),
            Row("10 tasks"),
            Row("100 tasks"),
            Row("10 000 tasks"),
            Row("future set later + await", {"uvloop": 6, "rloop": 2.5, "asyncio": 12}),
            Row("asyncio.Queue put + get", {"uvloop": 1.3, "rloop": 1.1, "asyncio": 1.5}),
            Row("the same, ropewalk.Queue", {"uvloop": 5, "rloop": 4, "asyncio": 6}),
            Row("timers insert + cancel", {"uvloop": 6, "rloop": 1.3, "asyncio": 5}),
            Row("10 timers"),
            Row("100 timers"),
            Row("10 000 timers"),
            Row("echo 1 KiB, protocol, 1 connection", {"uvloop": 1.15, "rloop": 2.5, "asyncio": 3}),
            Row("echo 1 KiB, protocol, 50 connections", {"uvloop": 1.15, "rloop": 2.5, "asyncio": 3}),
            Row("echo 1 KiB, streams, 1 connection", {"uvloop": 1.6, "rloop": 2.5, "asyncio": 3}),
            Row("echo 1 KiB, streams, 50 connections", {"uvloop": 1.6, "rloop": 2.5, "asyncio": 3}),
            Row("reply in two writes", {"uvloop": 1.7, "rloop": 3}),
            Row("reply in two writes, 50 connections", {"uvloop": 1.7, "rloop": 3}),
            Row("echo beside 10 idle connections"),
            Row("echo beside 100 idle connections"),
            Row("echo beside 1 000 idle connections"),
            Row("echo beside 10 000 idle connections"),
            Row("aiohttp request, client + server", {"uvloop": 1.3, "rloop": 1.5, "asyncio": 1.8}),
            Row("run_in_executor round trip", {"uvloop": 2, "rloop": 2, "asyncio": 3}, pinned=BOTH),
            Row("memory a sleeping task"),
            Row("memory a timer"),
            Row("memory an idle connection"),
            Row("memory an idle connection of 10 000"),
        ),
    ),
)
