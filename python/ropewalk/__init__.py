"""Python's concurrency system rebuilt in Rust: threads, processes and coroutines, laid into one rope."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ropewalk.asyncio import (
        EventLoopPolicy,
        LifoQueue,
        PriorityQueue,
        Queue,
        QueueShutDown,
        gather,
        install,
        new_event_loop,
        run,
        uninstall,
    )
    from ropewalk.coroutines import coroutine

__all__ = [
    "EventLoopPolicy",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "coroutine",
    "gather",
    "install",
    "new_event_loop",
    "run",
    "uninstall",
]


def __getattr__(name: str) -> object:
    # Looked up when asked for: who uses only pools or threads does not pay for importing asyncio. Nothing else is
    # imported here either, since a worker process, which starts in some ten milliseconds, imports this package.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    home = "ropewalk.coroutines" if name == "coroutine" else "ropewalk.asyncio"
    return getattr(importlib.import_module(home), name)
