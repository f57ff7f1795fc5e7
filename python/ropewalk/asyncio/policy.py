"""How a program gets the loop: `run`, `new_event_loop`, `install`."""

from __future__ import annotations

import asyncio
import asyncio.queues
import asyncio.tasks
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from ropewalk.asyncio import gathering, queues
from ropewalk.asyncio.event_loop import EventLoop

T = TypeVar("T")


def new_event_loop() -> EventLoop:
    """Return a new event loop, to be closed by the caller; use it as `loop_factory`, too."""
    return EventLoop()


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's default policy, with loops of ropewalk."""

    _loop_factory = EventLoop


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run a coroutine on a new loop and close the loop: `asyncio.run` (PEP 3156, 3.11's treatment of Ctrl-C).

    >>> import asyncio
    >>> run(asyncio.sleep(0, "done"))
    'done'
    """
    if sys.version_info >= (3, 11):
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("asyncio.run() cannot be called from a running event loop")
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            return runner.run(main)
    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(EventLoopPolicy())
    try:
        return asyncio.run(main, debug=debug)
    finally:
        asyncio.set_event_loop_policy(policy)


# What `install` has replaced: the policy, and names in asyncio's modules.
_replaced: list[tuple[Any, str, Any]] = []
_policy: list[asyncio.AbstractEventLoopPolicy] = []


def install(*, patch: bool = False) -> None:
    """Make ropewalk's the loop of asyncio: of `asyncio.run`, `new_event_loop` and `get_event_loop`.

    With `patch`, `asyncio.gather` and asyncio's queues are ropewalk's, too, for whoever looks them up from now on.
    """
    if not _policy:
        _policy.append(asyncio.get_event_loop_policy())
        asyncio.set_event_loop_policy(EventLoopPolicy())
    if patch and not _replaced:
        for owner, module, names in (
            (gathering, asyncio.tasks, ["gather"]),
            (queues, asyncio.queues, ["Queue", "LifoQueue", "PriorityQueue"]),
        ):
            for name in names:
                for place in (asyncio, module):
                    _replaced.append((place, name, getattr(place, name)))
                    setattr(place, name, getattr(owner, name))


def uninstall() -> None:
    """Take `install` back."""
    if _policy:
        asyncio.set_event_loop_policy(_policy.pop())
    while _replaced:
        setattr(*_replaced.pop())
