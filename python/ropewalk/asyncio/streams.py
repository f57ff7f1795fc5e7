"""`StreamReader` and `StreamWriter`: asyncio's, with their hot half in Rust.

asyncio makes the streams of `open_connection` and `start_server` itself. So its two classes give instances of ours when
they are called for one of our loops; their subclasses, and other loops, have them as they were.
"""

from __future__ import annotations

import asyncio
import functools
from asyncio import events
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ropewalk import _native

if TYPE_CHECKING:

    class _Reader(asyncio.StreamReader):
        pass

    class _Writer(asyncio.StreamWriter):
        """What asyncio's writer has and its stubs do not tell."""

        _protocol: Any
        _reader: Any
        _transport: Any

else:

    class _Reader(_native.StreamReader, asyncio.StreamReader):
        pass

    _Writer = asyncio.StreamWriter


class StreamReader(_Reader):
    r"""What a connection receives: `asyncio.StreamReader` of the version in use, fed without a call into Python.

    Its methods return awaitables that are coroutines to asyncio (`asyncio.iscoroutine`), not to `inspect`. A read that
    is cancelled takes nothing.

    >>> import ropewalk
    >>> async def main():
    ...     reader = asyncio.StreamReader()  # what `asyncio.open_connection` does
    ...     reader.feed_data(b"one\ntwo")
    ...     return type(reader) is StreamReader, await reader.readline()
    >>> ropewalk.run(main())
    (True, b'one\n')
    """


class StreamWriter(_Writer):
    """What a connection sends: `asyncio.StreamWriter`, whose `drain` makes no frame if there is nothing to wait for.

    >>> import socket
    >>> import ropewalk
    >>> async def main():
    ...     near, far = socket.socketpair()
    ...     _, writer = await asyncio.open_connection(sock=near)
    ...     writer.write(b"data")
    ...     await writer.drain()
    ...     await asyncio.sleep(0)  # what is written in one turn goes out as one
    ...     writer.close()
    ...     await writer.wait_closed()
    ...     with far:
    ...         return type(writer) is StreamWriter, far.recv(100)
    >>> ropewalk.run(main())
    (True, b'data')
    """

    def drain(self) -> Coroutine[Any, Any, None]:
        protocol, reader = self._protocol, self._reader
        kind = type(protocol)
        if (
            kind is asyncio.StreamReaderProtocol
            and not (protocol._paused or protocol._connection_lost)
            and (reader is None or reader.exception() is None)
            and not self._transport.is_closing()
        ):
            return _native.drained()
        return super().drain()


def _is_ours(event_loop: object) -> bool:
    if event_loop is None:
        event_loop = events._get_running_loop()
    return isinstance(event_loop, _native.Loop)


def _hook(stock: Any, ours: Any, place: int) -> None:
    """Have `stock(...)` make an instance of `ours` when its argument `loop`, at `place`, is a loop of ours."""

    @functools.wraps(stock.__init__)  # for those who ask for the signature
    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is stock and _is_ours(kwargs.get("loop", args[place] if len(args) > place else None)):
            return ours.__new__(ours)
        following = super(stock, cls).__new__
        return following(cls) if following is object.__new__ else following(cls, *args, **kwargs)

    stock.__new__ = staticmethod(__new__)


_hook(asyncio.StreamReader, StreamReader, 1)
_hook(asyncio.StreamWriter, StreamWriter, 3)
