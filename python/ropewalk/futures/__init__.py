"""Calls that run elsewhere and the futures that stand for them: `concurrent.futures`, rebuilt.

Everything bears the standard library's name and behaves like it, on every version of Python alike. A future is an
instance of `concurrent.futures.Future`, works in the standard library's own `wait`, `as_completed` and
`asyncio.wrap_future`, and can be awaited in a coroutine.

>>> from ropewalk.futures import ThreadPoolExecutor, as_completed
>>> with ThreadPoolExecutor(max_workers=2) as pool:
...     futures = [pool.submit(pow, 2, n) for n in (3, 4, 5)]
...     sorted(future.result() for future in as_completed(futures))
[8, 16, 32]
"""

from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    InvalidStateError,
    TimeoutError,
)
from typing import TYPE_CHECKING, Any

from ropewalk.futures._base import DoneAndNotDoneFutures, Executor, Future, as_completed, wait
from ropewalk.futures.thread import BrokenThreadPool, ThreadPoolExecutor

if TYPE_CHECKING:
    from ropewalk.futures.process import BrokenProcessPool, ProcessPoolExecutor, WorkerDied

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenProcessPool",
    "BrokenThreadPool",
    "CancelledError",
    "DoneAndNotDoneFutures",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "WorkerDied",
    "as_completed",
    "wait",
]


def __getattr__(name: str) -> Any:
    # As in the standard library: the process pool and what it imports are loaded when they are asked for.
    if name in ("BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"):
        from ropewalk.futures import process

        return getattr(process, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
