"""Helpers for generator-based coroutines: priming, `asyncio.coroutine` as it was, and the state of any coroutine."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal, ParamSpec, TypeVar, overload

__all__ = ["coroutine", "getstate", "primed"]

P = ParamSpec("P")
T = TypeVar("T")
Y = TypeVar("Y")
S = TypeVar("S")
R = TypeVar("R")


def primed(function: Callable[P, Generator[Y, S, R]]) -> Callable[P, Generator[Y, S, R]]:
    """Decorates a generator function so that what it makes has run to its first `yield` and takes `send` at once.

    The first yielded value is dropped. A generator that ends before it yields is a RuntimeError.

    >>> @primed
    ... def averager():
    ...     total, count, average = 0, 0, None
    ...     while True:
    ...         total += yield average
    ...         count += 1
    ...         average = total / count
    >>> average = averager()
    >>> average.send(10), average.send(30)
    (10.0, 20.0)
    """

    @functools.wraps(function)
    def primer(*args: P.args, **kwargs: P.kwargs) -> Generator[Y, S, R]:
        generator = function(*args, **kwargs)
        try:
            next(generator)
        except StopIteration:
            raise RuntimeError(f"{function.__qualname__}() ended before its first yield") from None
        return generator

    return primer


@types.coroutine
def _delegate(generator: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    return (yield from generator)


@overload
def coroutine(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def coroutine(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def coroutine(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]: ...
def coroutine(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Makes a generator function a coroutine function: `asyncio.coroutine`, which Python 3.11 removed.

    Inside, `yield from` waits for native coroutines, futures and other such coroutines; what it makes can be awaited
    and is a coroutine to asyncio and to `inspect`, on every version. Of a function that is no generator function it
    awaits the result if that can be awaited, and else gives it as it is. A native coroutine function stays as it is.

    Unlike the original it makes native coroutines, since from Python 3.12 on asyncio takes no generators. New code
    has no need of it: write `async def`.

    >>> import asyncio
    >>> @coroutine
    ... def add(a, b):
    ...     yield from asyncio.sleep(0)
    ...     return a + b
    >>> asyncio.run(add(1, 2))
    3
    """
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if inspect.isgenerator(result):
            return await _delegate(result)
        return await result if inspect.isawaitable(result) else result

    if inspect.isgeneratorfunction(function):
        # Marks the code itself, without which its generators may not `yield from` a native coroutine.
        function = types.coroutine(function)
    return wrapper


def getstate(coroutine: Any) -> Literal["CREATED", "RUNNING", "SUSPENDED", "CLOSED"]:
    """Tells where a generator, a coroutine or a Rust coroutine is in its life.

    One vocabulary for what `inspect.getgeneratorstate` and `inspect.getcoroutinestate` tell of one kind each.
    Anything else is a TypeError.

    >>> generator = (letter for letter in "ab")
    >>> getstate(generator), next(generator), getstate(generator)
    ('CREATED', 'a', 'SUSPENDED')
    """
    state: str
    if hasattr(coroutine, "gi_frame"):
        state = inspect.getgeneratorstate(coroutine)
    elif hasattr(coroutine, "cr_frame"):
        state = inspect.getcoroutinestate(coroutine)
    else:
        raise TypeError(f"expected a generator or coroutine, got {type(coroutine).__name__}")
    return state.partition("_")[2]  # type: ignore[return-value]
