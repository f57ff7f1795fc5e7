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

from ropewalk.futures._base import DoneAndNotDoneFutures, Executor, Future, as_completed, wait
from ropewalk.futures.thread import BrokenThreadPool, ThreadPoolExecutor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "BrokenThreadPool",
    "CancelledError",
    "DoneAndNotDoneFutures",
    "Executor",
    "Future",
    "InvalidStateError",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]
