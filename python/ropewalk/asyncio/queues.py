"""`Queue`, `LifoQueue`, `PriorityQueue`: asyncio's, in Rust, and with 3.13's `shutdown` on every version."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from ropewalk import _native

if sys.version_info >= (3, 13):
    from asyncio import QueueShutDown
else:

    class QueueShutDown(Exception):
        """Raised by a queue that has been shut down."""


T = TypeVar("T")

if TYPE_CHECKING:

    class _Queue(_native.Queue[T], asyncio.Queue[T]):
        pass

else:
    _Queue = _native.Queue


class Queue(_Queue[T]):
    """A first-in, first-out queue for the coroutines of one loop; see `asyncio.Queue`, whose interface it has.

    It is no `asyncio.Queue` to `isinstance`, and does not call `_init`, `_put` and `_get` of a subclass.

    >>> import asyncio
    >>> async def main():
    ...     queue = Queue(maxsize=1)
    ...     await queue.put("item")
    ...     return await queue.get()
    >>> asyncio.run(main())
    'item'
    """

    _order = "fifo"

    def __new__(cls, maxsize: int = 0, *_args: Any, **_kwargs: Any) -> Any:
        return super().__new__(cls, maxsize, cls._order)

    def __init_subclass__(cls) -> None:
        if overridden := {"_init", "_put", "_get"} & vars(cls).keys():
            names = ", ".join(sorted(overridden))
            raise TypeError(f"{cls.__name__} overrides {names}, which ropewalk's queues do not call: use asyncio.Queue")
        super().__init_subclass__()


class LifoQueue(Queue[T]):
    """A queue that gives out the newest item first."""

    _order = "lifo"


class PriorityQueue(Queue[T]):
    """A queue that gives out the least item first."""

    _order = "priority"
