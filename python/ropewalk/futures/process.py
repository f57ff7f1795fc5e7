"""ProcessPoolExecutor."""

import concurrent.futures
import concurrent.futures.process
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ropewalk import _native, _pickling
from ropewalk.futures._base import Executor, Future

if sys.platform != "linux":
    raise NotImplementedError(f"process pools need Linux; this is {sys.platform}")

T = TypeVar("T")

# 3.13 counts the processors that this process may use.
_cpu_count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)

# What lives when the interpreter exits.
_pools: "weakref.WeakSet[ProcessPoolExecutor]" = weakref.WeakSet()
_notifiers: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
_exiting = False


class WorkerDied(BrokenProcessPool):
    """The worker process that made the call died. Other calls are not affected, and the worker is replaced.

    `pid` is the process; `signal` the number of the signal that ended it, or None; `exitcode` its exit code as in
    multiprocessing: negative for a signal, None if something else in the program waited for the process first.
    """

    def __init__(self, message: str, pid: int, signal: int | None, exitcode: int | None) -> None:
        super().__init__(message, pid, signal, exitcode)
        self.pid, self.signal, self.exitcode = pid, signal, exitcode

    def __str__(self) -> str:
        return str(self.args[0])


class Statistics(NamedTuple):
    """What a process pool has done so far."""

    workers: int
    """Workers alive."""
    queued: int
    """Calls that no worker was sent yet."""
    pending: int
    """Calls that are submitted and not over."""
    done: int
    """Calls that a worker answered."""
    restarts: int
    """Workers that were started in place of another."""
    bytes_sent: int
    """Bytes sent to workers in calls that they answered."""
    bytes_received: int
    """Bytes received in answers."""


class ProcessPoolExecutor(_native.ProcessPoolExecutor, Executor, concurrent.futures.ProcessPoolExecutor):
    """Makes calls in worker processes that it starts on demand and keeps.

    As `concurrent.futures.ProcessPoolExecutor`, of which it is an instance, with these differences:

    - A worker's death fails the call that it was making, with WorkerDied, and nothing else; the worker is replaced.
    - `submit_with` and `map` take a time limit for a call and `retries`; `future.cancel(running=True)` ends a running
      call.
    - Lambdas, closures and functions of `__main__` or an interactive session can be sent; the main module needs no
      guard.
    - Buffers of pickle protocol 5 and large `bytes` travel through shared memory. Arrays are writable in the worker.
    - `max_memory_per_child`, in bytes: a worker that holds more after a call is replaced. `max_pending`: `submit` waits
      while so many calls are pending.

    Workers are fresh interpreters and never forks: an `mp_context` that says "fork" is a ValueError. A Ctrl-C reaches
    them only through the program: when a `with` block is left by KeyboardInterrupt, the calls that are running get one
    too.

    Calls that are pending when the interpreter exits are still made. When the program dies its workers die. In the
    child of a fork the pool is of no use: `submit` raises BrokenProcessPool there.

    >>> with ProcessPoolExecutor(max_workers=1) as pool:
    ...     pool.submit(pow, 2, 5).result()
    32
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        max_pending: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = _cpu_count() or 1
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if mp_context is not None and mp_context.get_start_method(allow_none=True) == "fork":
            raise ValueError(
                "workers are fresh processes and never forks: "
                "pass no mp_context, or one with the start method 'spawn' or 'forkserver'"
            )
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        for name, limit in (("max_memory_per_child", max_memory_per_child), ("max_pending", max_pending)):
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be greater than 0")
        self._max_workers = max_workers
        setup = {
            "path": [os.getcwd() if path == "" else path for path in sys.path],
            "argv": sys.argv,
            "main": _pickling.main_module(),
            "initializer": None if initializer is None else _pickling.dump_initializer(initializer, initargs),
        }
        self._set_up(
            _command(), pickle.dumps(setup, 5), max_workers, max_tasks_per_child, max_memory_per_child, max_pending
        )
        _pools.add(self)

    def submit_with(
        self, fn: Callable[..., T], /, *args: Any, timeout: float | None = None, retries: int = 0, **kwargs: Any
    ) -> Future[T]:
        """Have `fn(*args, **kwargs)` called by a worker and return its future, as `submit`, with limits.

        A call that runs for more than `timeout` seconds, counted from when a worker begins it, fails with TimeoutError,
        and its worker is ended and replaced. A call whose worker dies is made again, up to `retries` times.
        """
        return self._submit_with(fn, args, kwargs, timeout, retries)  # type: ignore[return-value]

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: bool = False,
        task_timeout: float | None = None,
        retries: int = 0,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, as the built-in `map`, and return an iterator over the results.

        As `concurrent.futures.Executor.map`; `chunksize` items make one call. `task_timeout` and `retries` are for each
        call what `timeout` and `retries` are for `submit_with`.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        limited = _Limited(self, task_timeout, retries)
        if chunksize == 1:
            return limited.map(fn, *iterables, timeout=timeout, buffersize=buffersize, progress=progress)
        chunks = limited.map(
            _map_chunk,
            itertools.repeat(fn),
            _chunks(zip(*iterables), chunksize),  # noqa: B905 - stops at the shortest, as the built-in map
            timeout=timeout,
            buffersize=buffersize,
            progress=progress,
        )
        return _flat(chunks)

    def warm_up(self, timeout: float | None = None) -> bool:
        """Start all workers and wait for at most `timeout` seconds until they are ready; return whether they are."""
        return self._warm_up(timeout)

    def statistics(self) -> Statistics:
        """Return what the pool has done so far."""
        return Statistics(*self._statistics())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; with `wait`, return when calls and callbacks are over and the workers gone.

        With `cancel_futures`, calls that have not begun are cancelled. Can be called again.
        """
        self._shutdown(wait, cancel_futures)

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        # The standard library's name, which is looked at.
        return self._why_broken() or False

    def kill_workers(self) -> None:
        """End all workers at once: pending calls fail with BrokenProcessPool, no more are accepted (as in 3.14)."""
        self._kill(signal.SIGKILL)

    def terminate_workers(self) -> None:
        """As `kill_workers`, but workers are asked to end by SIGTERM."""
        self._kill(signal.SIGTERM)

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            # The terminal's Ctrl-C does not reach the workers: it is the program's to pass on.
            self._signal(signal.SIGINT)
        self.shutdown(wait=True)


class _Limited(Executor):
    """A pool as an executor whose calls have limits."""

    def __init__(self, pool: ProcessPoolExecutor, timeout: float | None, retries: int) -> None:
        self._pool, self._timeout, self._retries = pool, timeout, retries

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._timeout is None and self._retries == 0:
            return self._pool.submit(fn, *args, **kwargs)  # type: ignore[return-value]
        return self._pool.submit_with(fn, *args, timeout=self._timeout, retries=self._retries, **kwargs)


def _chunks(items: Iterator[T], size: int) -> Iterator[tuple[T, ...]]:
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _map_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*args) for args in chunk]


def _flat(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _command() -> list[str]:
    spawn = sys.modules.get("multiprocessing.spawn")
    executable = spawn.get_executable() if spawn is not None else sys.executable
    # The interpreter's own flags (-O, -X dev, ...), as multiprocessing passes them on.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    source = Path(__file__).parent.parent.parent
    code = f"import sys; sys.path.insert(0, {str(source)!r}); from ropewalk.worker import main; main()"
    return [os.fsdecode(executable), *flags, "-c", code]


def _start_notifier(notifier: _native.NotifierThread) -> None:
    thread = threading.Thread(name="ropewalk-notifier", target=notifier.work, daemon=True)
    thread.start()
    _notifiers.add(thread)


def _at_exit() -> None:
    pools = list(_pools)
    for pool in pools:
        pool._shutdown(False, False)
    for pool in pools:
        pool._shutdown(True, False)
    for thread in list(_notifiers):
        thread.join()


# Before non-daemon threads are joined, as the standard library's pool: `atexit` would be too late.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "Statistics", "WorkerDied"]
