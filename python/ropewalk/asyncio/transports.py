"""`SocketTransport`: what happens once for a connection; reads and writes are `ropewalk._native.Stream`."""

from __future__ import annotations

import asyncio
import socket
from asyncio import constants, selector_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from ropewalk import _native
from ropewalk.asyncio.streams import StreamReader

if TYPE_CHECKING:

    class _Transport(asyncio.Transport):
        """What asyncio's transport has and its stubs do not tell."""

        _closing: bool
        _conn_lost: int
        _empty_waiter: asyncio.Future[None] | None
        _eof: bool
        _loop: Any
        _sock: Any
        _sock_fd: int

        def __init__(self, loop: Any, sock: Any, protocol: Any, waiter: Any, extra: Any, server: Any) -> None: ...
        def _call_connection_lost(self, exc: BaseException | None) -> None: ...
        def _fatal_error(self, exc: BaseException, message: str) -> None: ...
        def _force_close(self, exc: BaseException | None) -> None: ...
        def _make_empty_waiter(self) -> asyncio.Future[None]: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

else:
    _Transport = selector_events._SelectorSocketTransport


class SocketTransport(_Transport):
    """A transport over a connected TCP or Unix socket, whose writes of one turn go out as one."""

    def __init__(
        self, loop: Any, sock: Any, protocol: Any, waiter: Any = None, extra: Any = None, server: Any = None
    ) -> None:
        self._stream = _native.Stream(loop, sock.fileno(), self)
        # In the instance, so that a call goes straight to Rust.
        self.write = self._stream.write  # type: ignore[method-assign]
        self._read_ready = self._stream.read_ready
        super().__init__(loop, sock, protocol, waiter, extra, server)

    @property
    def _buffer(self) -> _native.Stream:
        # asyncio asks whether it is empty, and clears it.
        return self._stream

    @_buffer.setter
    def _buffer(self, value: object) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return len(self._stream)

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._stream.set_protocol(protocol, isinstance(protocol, asyncio.BufferedProtocol), _reader_of(protocol))
        super().set_protocol(protocol)

    def close(self) -> None:
        self._stream.watch()
        super().close()

    def write_eof(self) -> None:
        self._stream.write_ready()  # so that the end follows now, and who asks for it hears if it cannot
        self._stream.watch()
        super().write_eof()

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        self._stream.watch()
        return super()._make_empty_waiter()

    def _force_close(self, exc: BaseException | None) -> None:
        self._stream.watch()
        super()._force_close(exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        self._stream.detach()
        super()._call_connection_lost(exc)

    # What the stream calls.

    def _may_write(self, data: bytes) -> bool:
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if data and self._conn_lost:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
        return not self._conn_lost

    def _wait_for_room(self) -> None:
        self._loop._add_writer(self._sock_fd, self._stream.write_ready)
        self._maybe_pause_protocol()

    def _drained(self) -> None:
        self._loop._remove_writer(self._sock_fd)
        self._maybe_resume_protocol()  # may write
        if len(self._stream):
            return
        if self._empty_waiter is not None:
            self._empty_waiter.set_result(None)
        if self._closing:
            self._call_connection_lost(None)
        elif self._eof:
            self._sock.shutdown(socket.SHUT_WR)

    def _write_failed(self, exc: BaseException) -> None:
        self._loop._remove_writer(self._sock_fd)
        self._fatal_error(exc, "Fatal write error on socket transport")
        if self._empty_waiter is not None:
            self._empty_waiter.set_exception(exc)


def _reader_of(protocol: Any) -> Any:
    """A weak reference to the reader that `protocol.data_received` would feed and do nothing else; or None."""
    receive = getattr(getattr(protocol, "data_received", None), "__func__", None)
    if receive is asyncio.StreamReaderProtocol.data_received and type(protocol._stream_reader) is StreamReader:
        return protocol._stream_reader_wr
    return None
