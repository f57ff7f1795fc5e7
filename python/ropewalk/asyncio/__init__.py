"""The event loop: asyncio's, with its hot half in Rust.

`EventLoop` is an `asyncio.SelectorEventLoop` whose callbacks, timers, tasks, futures and polling are native.
`gather` and the queues are asyncio's in Rust: explicit imports, or in asyncio's place after `install(patch=True)`.
"""

from ropewalk.asyncio.event_loop import EventLoop, Future, Task
from ropewalk.asyncio.gathering import gather
from ropewalk.asyncio.policy import EventLoopPolicy, install, new_event_loop, run, uninstall
from ropewalk.asyncio.queues import LifoQueue, PriorityQueue, Queue, QueueShutDown
from ropewalk.asyncio.streams import StreamReader, StreamWriter
from ropewalk.asyncio.transports import SocketTransport

__all__ = [
    "EventLoop",
    "EventLoopPolicy",
    "Future",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "SocketTransport",
    "StreamReader",
    "StreamWriter",
    "Task",
    "gather",
    "install",
    "new_event_loop",
    "run",
    "uninstall",
]
