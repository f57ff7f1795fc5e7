"""Future, Executor, wait and as_completed: the face of `ropewalk._native`."""

import asyncio
import concurrent.futures
import itertools
import operator
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from concurrent.futures._base import DoneAndNotDoneFutures as DoneAndNotDoneFutures
from typing import Any, Generic, TypeVar

from ropewalk import _native

T = TypeVar("T")

_RETURN_WHEN = {FIRST_COMPLETED: 1, FIRST_EXCEPTION: 2, ALL_COMPLETED: 3}


class Future(_native.Future, concurrent.futures.Future, Generic[T]):  # type: ignore[type-arg, override]
    """A call under way in an executor; executors make them, users do not.

    As `concurrent.futures.Future`, of which it is an instance, and awaitable in a coroutine on any event loop:
    cancelling the awaiting task cancels the call if it has not begun.

    Waiting frees the GIL and ends with KeyboardInterrupt on Ctrl-C. A call under way in the parent of a fork never
    ends in the child.
    """

    # The standard library's would make the condition that ours makes when somebody asks for it.
    __init__ = object.__init__

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the call in a coroutine."""
        return asyncio.wrap_future(self).__await__()


_native.register(Future)


class Executor(concurrent.futures.Executor):
    """What makes calls: `submit`, `map`, `shutdown`; a context manager that shuts down and waits at its end."""

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: bool = False,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, as the built-in `map`, and return an iterator over the results.

        The results come in the order of the items. The calls are submitted at once; with `buffersize`, only so many
        may be under way or unread (Python 3.14's parameter, on every version). `chunksize` is there for executors
        that send calls in chunks. `progress=True` shows a bar if tqdm is installed.

        The iterator raises what a call raised when it comes to it, and TimeoutError when `timeout` seconds, counted
        from the call of `map`, are over. Closed or dropped before its end, it cancels the calls that have not begun;
        but calls whose results nobody begins to read are all made.
        """
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else timeout + time.monotonic()
        total = _length(iterables) if progress else None
        calls = zip(*iterables)  # noqa: B905 - stops at the shortest, as the built-in map
        futures: deque[concurrent.futures.Future[T]] = deque()
        try:
            for args in calls:
                futures.append(self.submit(fn, *args))
                if len(futures) == buffersize:
                    break
        except BaseException:
            for future in futures:
                future.cancel()
            raise

        # Only who has calls left to submit keeps the executor alive.
        more = None if buffersize is None else (self.submit(fn, *args) for args in calls)

        # A generator of its own, so that the calls are submitted before the first result is asked for.
        def results() -> Generator[T, None, None]:
            try:
                while futures:
                    if more is not None:
                        futures.extend(itertools.islice(more, 1))
                    yield _result_or_cancel(futures.popleft(), deadline)
            finally:
                for future in futures:
                    future.cancel()

        return _with_progress(results(), total) if progress else results()


def _result_or_cancel(future: concurrent.futures.Future[T], deadline: float | None) -> T:
    try:
        try:
            return future.result(None if deadline is None else deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        # The exception that is raised refers to this frame, and the future to the exception.
        del future


def _length(iterables: Iterable[Iterable[Any]]) -> int | None:
    shortest = min((operator.length_hint(iterable, -1) for iterable in iterables), default=0)
    return None if shortest < 0 else shortest


def _with_progress(items: Iterator[T], total: int | None) -> Iterator[T]:
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return iter(tqdm(items, total=total))


def wait(
    fs: Iterable[concurrent.futures.Future[T]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDoneFutures[T]:
    """Wait for futures of any kind, for at most `timeout` seconds, and return the sets (done, not_done).

    Returns when all are done, or with `return_when=FIRST_COMPLETED` when one is, or with `FIRST_EXCEPTION` when one
    has raised. Unlike the standard library's, it counts a cancelled future as done at once, without waiting for a
    worker to notice.
    """
    if return_when not in _RETURN_WHEN:
        raise ValueError(f"Invalid return condition: {return_when!r}")
    return DoneAndNotDoneFutures(*_native.wait(set(fs), timeout, _RETURN_WHEN[return_when]))


def as_completed(
    fs: Iterable[concurrent.futures.Future[T]], timeout: float | None = None, *, progress: bool = False
) -> Iterator[concurrent.futures.Future[T]]:
    """Return an iterator that yields futures of any kind as they are done, those that are done already first.

    A future given twice is yielded once. The iterator raises TimeoutError when `timeout` seconds, counted from this
    call, are over. `progress=True` shows a bar if tqdm is installed.
    """
    futures = set(fs)
    completed = _native.AsCompleted(futures, timeout)
    return _with_progress(completed, len(futures)) if progress else completed
