"""Transports over sockets: what CPython's own tests do not look at."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import sys
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import ropewalk
import ropewalk.asyncio


class Recorder(asyncio.Protocol):
    """Notes what happens to a connection."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)


async def connect(near: socket.socket) -> tuple[Any, Recorder]:
    """A transport of ours over one end of a pair of sockets."""
    near.setblocking(False)
    return await asyncio.get_running_loop().connect_accepted_socket(Recorder, near)


def on_a_pair(test: Callable[[socket.socket, socket.socket], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test on both ends of a pair of sockets, and counts descriptors after it."""

    def run() -> None:
        before = len(os.listdir("/proc/self/fd"))
        near, far = socket.socketpair()
        ropewalk.run(test(near, far))
        far.close()
        assert near.fileno() == -1
        assert len(os.listdir("/proc/self/fd")) == before

    run.__name__ = test.__name__
    return run


async def receive(far: socket.socket, size: int) -> bytes:
    """Reads from the far end in a thread, so that the loop can go on."""

    def read() -> bytes:
        parts, left = [], size
        while left and (part := far.recv(min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    return await asyncio.to_thread(read)


@on_a_pair
async def test_transports_are_asyncios(near: socket.socket, far: socket.socket) -> None:
    transport, _ = await connect(near)
    assert isinstance(transport, asyncio.Transport)
    assert type(transport) is ropewalk.asyncio.SocketTransport
    assert transport.get_extra_info("socket").fileno() == near.fileno()
    transport.close()


@on_a_pair
async def test_writes_of_one_turn_go_out_as_one(near: socket.socket, far: socket.socket) -> None:
    transport, _ = await connect(near)
    far.setblocking(False)
    for n in range(200):
        transport.write(b"%03d" % n)
    assert transport.get_write_buffer_size() == 600
    with pytest.raises(BlockingIOError):
        far.recv(1)
    await asyncio.sleep(0)
    assert transport.get_write_buffer_size() == 0
    assert far.recv(1000) == b"".join(b"%03d" % n for n in range(200))
    transport.close()


@on_a_pair
async def test_what_is_written_is_what_it_was_at_the_time(near: socket.socket, far: socket.socket) -> None:
    transport, _ = await connect(near)
    data = bytearray(b"before")
    transport.write(data)
    transport.write(memoryview(data)[:3])
    data[:] = b"after!"
    transport.writelines([b"", bytearray(b"-"), b"end"])
    await asyncio.sleep(0)
    assert far.recv(100) == b"beforebef-end"
    with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
        transport.write("text")
    transport.close()


@on_a_pair
async def test_a_slow_reader_pauses_the_writer_and_nothing_is_lost(near: socket.socket, far: socket.socket) -> None:
    transport, protocol = await connect(near)
    expected = b""
    for n in range(400):
        chunk = bytes([n % 256]) * 10_007
        transport.write(chunk)
        expected += chunk
    assert protocol.events == ["made", "pause"]
    assert await receive(far, len(expected)) == expected
    while transport.get_write_buffer_size():
        await asyncio.sleep(0)
    assert protocol.events == ["made", "pause", "resume"]
    transport.close()


@on_a_pair
async def test_close_sends_what_is_left_and_abort_does_not(near: socket.socket, far: socket.socket) -> None:
    transport, protocol = await connect(near)
    big = b"x" * 5_000_000
    transport.write(big)
    transport.write(b"end")
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert await receive(far, 5_000_010) == big + b"end"
    assert await protocol.lost is None
    transport.write(b"late")

    one, other = socket.socketpair()
    transport, protocol = await connect(one)
    transport.write(b"never sent")
    transport.abort()
    assert await protocol.lost is None
    assert other.recv(100) == b""
    other.close()


@on_a_pair
async def test_write_eof_comes_after_the_data(near: socket.socket, far: socket.socket) -> None:
    transport, protocol = await connect(near)
    transport.write(b"data")
    transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.write(b"more")
    assert await receive(far, 100) == b"data"
    far.send(b"answer")
    far.shutdown(socket.SHUT_WR)
    assert await protocol.lost is None
    assert protocol.data == b"answer"
    assert protocol.events == ["made", "eof", "lost"]


@on_a_pair
async def test_write_eof_ends_the_connection_at_once_unless_data_has_to_wait(
    near: socket.socket, far: socket.socket
) -> None:
    far.setblocking(False)
    transport, protocol = await connect(near)
    transport.write(b"data")
    transport.write_eof()
    assert (far.recv(100), far.recv(100)) == (b"data", b"")
    far.close()
    assert await protocol.lost is None


@on_a_pair
async def test_a_peer_that_vanishes_ends_the_connection(near: socket.socket, far: socket.socket) -> None:
    transport, protocol = await connect(near)
    far.close()
    for _ in range(10):
        transport.write(b"into the void")
        await asyncio.sleep(0)
    assert isinstance(await protocol.lost, (OSError, type(None)))
    assert protocol.events[-1] == "lost"
    transport.write(b"late")


def test_a_reset_is_told_to_the_protocol() -> None:
    async def main() -> None:
        served: asyncio.Future[Recorder] = asyncio.get_running_loop().create_future()

        def serve() -> Recorder:
            served.set_result(Recorder())
            return served.result()

        server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        protocol = await served
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert isinstance(await protocol.lost, ConnectionResetError)
        server.close()
        await server.wait_closed()

    ropewalk.run(main())


@on_a_pair
async def test_a_protocol_that_raises_loses_its_connection_alone(near: socket.socket, far: socket.socket) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    transport, protocol = await connect(near)
    protocol.data_received = lambda data: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    far.send(b"x")
    assert isinstance(await protocol.lost, ZeroDivisionError)
    assert reports[0]["message"] == "Fatal error: protocol.data_received() call failed."
    assert transport.is_closing()


@on_a_pair
async def test_pausing_leaves_data_unread(near: socket.socket, far: socket.socket) -> None:
    transport, protocol = await connect(near)
    transport.pause_reading()
    far.send(b"data")
    await asyncio.sleep(0.001)
    assert protocol.data == b""
    transport.resume_reading()
    while not protocol.data:
        await asyncio.sleep(0)
    assert protocol.data == b"data"
    transport.close()


def test_a_write_between_two_runs_goes_out_at_once() -> None:
    loop = ropewalk.new_event_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, protocol = loop.run_until_complete(connect(near))
    transport.write(b"data")
    assert far.recv(100) == b"data"
    transport.close()
    loop.run_until_complete(protocol.lost)
    loop.close()
    far.close()


def test_a_write_on_a_closed_loop_goes_out_and_keeps_nothing() -> None:
    loop = ropewalk.new_event_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport = loop.run_until_complete(connect(near))[0]
    loop.close()
    transport.write(b"data")
    assert far.recv(100) == b"data"
    far.close()
    ref = weakref.ref(transport)
    del loop, transport
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        gc.collect()
    assert ref() is None


@pytest.mark.parametrize("place", ["callback", "flush"])
def test_what_is_written_in_a_run_that_an_exception_ends_goes_out(place: str) -> None:
    loop = ropewalk.new_event_loop()
    pairs = [socket.socketpair() for _ in range(2)]
    (first, protocol), (second, _) = (loop.run_until_complete(connect(near)) for near, _ in pairs)
    pairs[1][1].setblocking(False)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def fill_and_write() -> None:
        protocol.pause_writing = interrupt  # type: ignore[method-assign]
        pairs[0][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        first.set_write_buffer_limits(high=0)
        first.write(bytes(60_000))  # more than the socket takes, less than is sent at once
        second.write(b"data")

    if place == "callback":
        loop.call_soon(second.write, b"data")
        loop.call_soon(interrupt)
    else:
        loop.call_soon(fill_and_write)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert pairs[1][1].recv(100) == b"data"
    for transport in (first, second):
        transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for _, far in pairs:
        far.close()


def test_a_child_that_exits_does_not_send_what_its_parent_has_written() -> None:
    near, far = socket.socketpair()

    async def main() -> None:
        transport, _ = await connect(near)
        transport.write(b"data")
        if child := os.fork():
            os.waitpid(child, 0)
            transport.close()
        else:
            sys.exit()

    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads may run
            ropewalk.run(main())
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert far.recv(100) == b"data"
    assert far.recv(100) == b""
    far.close()


def test_a_closed_connection_is_freed() -> None:
    async def main() -> weakref.ref[Any]:
        near, far = socket.socketpair()
        transport, protocol = await connect(near)
        transport.write(b"data")
        transport.close()
        await protocol.lost
        far.close()
        return weakref.ref(transport)

    ref = ropewalk.run(main())
    gc.collect()
    assert ref() is None


def test_a_thousand_connections_echo_and_go() -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(4))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1000)
        address = server.sockets[0].getsockname()

        async def ask(n: int) -> None:
            reader, writer = await asyncio.open_connection(*address[:2])
            writer.write(struct.pack("i", n))
            assert await reader.read() == struct.pack("i", n)
            writer.close()
            await writer.wait_closed()

        for start in range(0, 1000, 100):
            await asyncio.gather(*[ask(n) for n in range(start, start + 100)])
        server.close()
        await server.wait_closed()

    before = len(os.listdir("/proc/self/fd"))
    ropewalk.run(main())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
