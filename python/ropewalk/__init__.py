"""Python's concurrency system rebuilt in Rust: threads, processes and coroutines, laid into one rope."""

from ropewalk.coroutines import coroutine

__all__ = ["coroutine"]
