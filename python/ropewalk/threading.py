"""The event that threads and coroutines share: `threading.Event`, awaitable."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import Literal

from ropewalk import _native

__all__ = ["Event"]


class Event(_native.Event):
    """A flag that threads, and coroutines on any asyncio loop, can wait for.

    Unset at first. A drop-in for `threading.Event` with the semantics of the CPython in use: a wait that has begun ends
    with the next `set()`, also when a `clear()` follows at once; Ctrl-C ends a `wait()`, which frees the GIL.

    After a fork the child may go on using it; the waiters of the parent do not exist there.

    >>> done = Event()
    >>> done.wait(0.01)
    False
    >>> done.set()
    >>> done.wait()
    True
    """

    if sys.version_info >= (3, 11):

        def __repr__(self) -> str:
            cls = self.__class__
            status = "set" if self.is_set() else "unset"
            return f"<{cls.__module__}.{cls.__qualname__} at {id(self):#x}: {status}>"

    def isSet(self) -> bool:
        """Return true if and only if the event is set. Deprecated: use `is_set()`."""
        warnings.warn("isSet() is deprecated, use is_set() instead", DeprecationWarning, stacklevel=2)
        return self.is_set()

    async def wait_async(self) -> Literal[True]:
        """Wait in a coroutine, on whatever asyncio loop runs it, until the event is set.

        The event may be set by any thread. The wait begins when the coroutine first runs, and may be cancelled.

        >>> async def main():
        ...     done = Event()
        ...     asyncio.get_running_loop().run_in_executor(None, done.set)
        ...     return await done.wait_async()
        >>> asyncio.run(main())
        True
        """
        if not self.is_set():
            future = asyncio.get_running_loop().create_future()
            with self._waking(future):
                await future
        return True

    def _at_fork_reinit(self) -> None:
        """What `threading.Thread` calls on its own events in a forked child. There is no lock to be made anew."""
