"""The event loop: asyncio's, with its hot half in Rust.

`EventLoop` is an `asyncio.SelectorEventLoop` whose callbacks, timers, tasks, futures and polling are native.
"""

from ropewalk.asyncio.event_loop import EventLoop, Future, Task
from ropewalk.asyncio.policy import EventLoopPolicy, install, new_event_loop, run, uninstall

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "Future",
    "Task",
    "install",
    "new_event_loop",
    "run",
    "uninstall",
]
