"""ThreadPoolExecutor."""

import concurrent.futures
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from ropewalk import _native
from ropewalk.futures._base import Executor

# 3.13 counts the processors that this process may use.
_cpu_count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)

# What lives when the interpreter exits, and what a forked child begins anew with. Additions happen under the lock, so
# that the interpreter's exit sees all of them; it is reentrant because a signal handler may make a pool, too.
_lock = threading.RLock()
_exiting = False
_pools: "weakref.WeakSet[ThreadPoolExecutor]" = weakref.WeakSet()
_queues: "weakref.WeakKeyDictionary[threading.Thread, _native.WorkQueue]" = weakref.WeakKeyDictionary()


class ThreadPoolExecutor(_native.ThreadPoolExecutor, Executor, concurrent.futures.ThreadPoolExecutor):  # type: ignore[misc]
    """Makes calls in threads that it starts on demand and keeps.

    As `concurrent.futures.ThreadPoolExecutor`, of which it is an instance. `max_workers` defaults to min(32, cpus +
    4). An idle thread is used before a new one is started. `initializer(*initargs)` is called in each thread first;
    if it raises, the pool is broken and all its calls fail with BrokenThreadPool. With `max_pending`, at most so many
    calls wait for a thread: `submit` waits for room, and raises `queue.Full` in a thread of the pool itself, where
    waiting would be a deadlock.

    Calls that are queued when the interpreter exits are still made. In the child of a fork the pool starts anew,
    without threads; the calls that were queued are cancelled there, and their callbacks are left to the parent.

    >>> with ThreadPoolExecutor(max_workers=2, thread_name_prefix="flags") as pool:
    ...     pool.submit(pow, 2, 5).result()
    32
    """

    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_pending: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, (_cpu_count() or 1) + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_pending is not None and max_pending <= 0:
            raise ValueError("max_pending must be greater than 0")
        self._max_workers = max_workers
        self._max_pending = max_pending
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{self._counter()}"
        self._initializer = initializer
        self._initargs = initargs
        self._threads: set[threading.Thread] = set()
        self._thread_lock = threading.RLock()
        self._set_up(max_workers, max_pending)
        with _lock:
            _pools.add(self)
            if _exiting:
                self._work_queue.close_at_exit()

    def _start_thread(self, queue: _native.WorkQueue) -> None:
        with self._thread_lock:
            thread = threading.Thread(
                name=f"{self._thread_name_prefix}_{len(self._threads)}",
                target=queue.work,
                args=(self._initializer, self._initargs, _breathe),
            )
            thread.start()
            self._threads.add(thread)
            with _lock:
                _queues[thread] = queue

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; with `wait`, return when all threads have ended.

        Calls that are queued are still made, or cancelled with `cancel_futures`. Can be called again.
        """
        self._close(cancel_futures)
        if wait:
            self._wait_for_threads()
            for thread in list(self._threads):
                thread.join()


def _breathe() -> None:
    """Do nothing: the interpreter looks whether another thread wants the GIL whenever a function is called."""


def _at_exit() -> None:
    global _exiting
    with _lock:
        _exiting = True
        threads, pools = list(_queues.items()), list(_pools)
    for pool in pools:
        pool._work_queue.close_at_exit()
    for _, queue in threads:
        queue.close_at_exit()
    for thread, _ in threads:
        thread.join()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _queues.clear()
    for pool in list(_pools):
        pool._threads = set()
        pool._thread_lock = threading.RLock()
        pool._after_fork(pool._max_workers, pool._max_pending)


# Before non-daemon threads are joined, as the standard library's pool: `atexit` would be too late.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]
