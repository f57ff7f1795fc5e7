"""The interpreter's own lock, seen from outside: what it costs a program that has threads."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from sys import getswitchinterval, setswitchinterval
from typing import Any, TypeVar, cast

from ropewalk import _native

__all__ = ["Contention", "contention", "enabled", "getswitchinterval", "setswitchinterval"]

_F = TypeVar("_F", bound=Callable[..., Any])


def enabled() -> bool:
    """Whether this interpreter has a GIL that is on: always, but on a free-threaded build.

    >>> enabled()
    True
    """
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_gil_enabled is None or bool(is_gil_enabled())


class Contention:
    """What a measurement by `contention()` found, up to now; of all its times together if it is used again."""

    def __init__(self, rate: float) -> None:
        self._sampler = _native.GilSampler(rate)

    @property
    def samples(self) -> int:
        """How many looks the figures rest on."""
        return self._sampler.read()[0]

    @property
    def seconds(self) -> float:
        """How long was measured."""
        return self._sampler.read()[1]

    @property
    def held(self) -> float:
        """The share of time in which some thread held the GIL, from 0 to 1."""
        return self._share(0)

    @property
    def waited(self) -> float:
        """The share of time in which at least one thread waited for the GIL, from 0 to 1."""
        return self._share(1)

    @property
    def waiting(self) -> float:
        """How many threads waited for the GIL, on average over the time."""
        return self._share(2)

    def _share(self, number: int) -> float:
        _, seconds, *sums = self._sampler.read()
        return sums[number] / seconds if seconds else 0.0

    def __enter__(self) -> Contention:
        if enabled():
            self._sampler.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._sampler.stop()

    def __call__(self, function: _F) -> _F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def measured(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def measured(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

        return cast(_F, measured)

    def __str__(self) -> str:
        return (
            f"GIL held {self.held:.0%} of {self.seconds:.2f} s, waited for {self.waited:.0%}, "
            f"by {self.waiting:.1f} threads on average"
        )


def contention(*, rate: float = 250.0) -> Contention:
    """Measure how much of the time threads hold the interpreter's GIL and wait for it.

    A context manager, and a decorator of functions and coroutine functions; entered several times at once it measures
    once. A Rust thread that never takes the GIL looks `rate` times a second, at 10 to 20 microseconds a look. What
    computes without the GIL, as NumPy may, counts as not holding it; a thread that would go on to wait for the GIL but
    has no processor to do so does not count as waiting. Where the GIL is off, there is nothing to measure: all figures
    are 0.

    Raises NotImplementedError where it cannot be watched: elsewhere than on Linux with glibc, or without /proc.

    >>> import time
    >>> with contention() as idle:
    ...     time.sleep(0.1)
    >>> idle.waited
    0.0
    >>> busy = contention()
    >>> @busy
    ... def compute():
    ...     return sum(range(10**6))
    >>> compute()
    499999500000
    >>> 0 <= busy.held <= 1
    True
    """
    if not rate > 0:
        raise ValueError("rate must be greater than 0")
    return Contention(rate)
