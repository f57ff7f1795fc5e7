"""Python's concurrency system rebuilt in Rust: threads, processes and coroutines, laid into one rope."""

from typing import TYPE_CHECKING, Any

from ropewalk.coroutines import coroutine

if TYPE_CHECKING:
    from ropewalk.asyncio import EventLoopPolicy, install, new_event_loop, run, uninstall

__all__ = ["EventLoopPolicy", "coroutine", "install", "new_event_loop", "run", "uninstall"]


def __getattr__(name: str) -> Any:
    # Looked up when asked for: who uses only pools or threads does not pay for importing asyncio.
    if name in __all__:
        import ropewalk.asyncio

        return getattr(ropewalk.asyncio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
