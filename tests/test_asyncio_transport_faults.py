"""Transports and streams when something goes wrong: a peer that resets, callbacks that raise, ten thousand of them.

What has to happen is what happens on asyncio's own loop: most tests run there too, and compare.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import re
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import ropewalk
import ropewalk.asyncio

CERTIFICATE = Path(__file__).with_name("localhost.pem")
GUARD = 60  # seconds: nothing may hang

Notes = list[Any]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(loop: asyncio.AbstractEventLoop, scenario: Callable[[Notes], Coroutine[Any, Any, None]]) -> Notes:
    """What a scenario notes, and what was reported to the loop's exception handler."""
    notes: Notes = []
    reports: Notes = []

    def report(_: Any, context: dict[str, Any]) -> None:
        message = re.sub(r"(in callback) .*", r"\1", context["message"])
        reports.append((message, type(context.get("exception"))))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(report)
        await asyncio.wait_for(scenario(notes), GUARD)
        for _ in range(10):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), GUARD)

    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return [*notes, *reports]


def as_with_asyncio(scenario: Callable[[Notes], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that a scenario goes as on asyncio's loop, and leaves no descriptor."""

    def test() -> None:
        gc.collect()
        expected = run(asyncio.SelectorEventLoop(), scenario)
        before = descriptors()
        found = run(ropewalk.new_event_loop(), scenario)
        gc.collect()
        assert descriptors() == before
        assert found == expected
        assert found, "the scenario notes nothing"

    test.__name__ = scenario.__name__
    return test


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def outcome(awaitable: Any) -> Any:
    """The result, or the kind of the exception."""
    try:
        return await awaitable
    except Exception as error:
        return type(error)


async def serve(callback: Any, **options: Any) -> tuple[Any, socket.socket]:
    """A server of streams, and a plain socket that is connected to it."""
    server = await asyncio.start_server(callback, "127.0.0.1", 0, **options)
    return server, socket.create_connection(server.sockets[0].getsockname())


async def accepted(**options: Any) -> tuple[Any, socket.socket, Any, Any]:
    """The same, and the streams of the connection."""
    streams: asyncio.Queue[Any] = asyncio.Queue()
    server, client = await serve(lambda *pair: streams.put_nowait(pair), **options)
    return server, client, *await streams.get()


async def ended(server: Any, writer: Any) -> Any:
    """How the connection was lost."""
    how = await outcome(writer.wait_closed())
    server.close()
    return how


@as_with_asyncio
async def test_a_reset_before_the_connection_is_accepted(notes: Notes) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def read(reader: Any, writer: Any) -> None:
        seen.put_nowait((type(writer.get_extra_info("peername")), await outcome(reader.read())))
        writer.close()

    server, client = await serve(read)
    reset(client)  # the loop has not run since
    notes.append(await seen.get())
    server.close()


@as_with_asyncio
async def test_a_reset_while_nothing_is_read(notes: Notes) -> None:
    server, client, reader, writer = await accepted()
    read = asyncio.ensure_future(outcome(reader.read(1)))
    await asyncio.sleep(0)
    reset(client)
    notes += [await read, await ended(server, writer), await outcome(reader.read(1)), await outcome(writer.drain())]


@as_with_asyncio
async def test_a_reset_in_the_middle_of_a_read(notes: Notes) -> None:
    server, client, reader, writer = await accepted()
    read = asyncio.ensure_future(outcome(reader.readexactly(10)))
    client.send(b"part")
    while not reader._buffer:
        await asyncio.sleep(0)
    reset(client)
    notes += [await read, bytes(reader._buffer), await ended(server, writer)]


@as_with_asyncio
async def test_a_reset_in_the_middle_of_a_write(notes: Notes) -> None:
    server, client, _reader, writer = await accepted()
    writer.write(bytes(20_000_000))
    drain = asyncio.ensure_future(outcome(writer.drain()))
    await asyncio.sleep(0)
    assert not drain.done()
    reset(client)
    notes += [await drain, await ended(server, writer), writer.transport.get_write_buffer_size()]


@as_with_asyncio
async def test_a_reset_after_a_close_that_still_writes(notes: Notes) -> None:
    server, client, _reader, writer = await accepted()
    writer.write(bytes(20_000_000))
    writer.close()
    await asyncio.sleep(0)
    reset(client)
    notes += [await ended(server, writer), writer.transport.get_write_buffer_size()]


@as_with_asyncio
async def test_a_reset_while_reading_is_paused(notes: Notes) -> None:
    server, client, reader, writer = await accepted(limit=10)
    client.send(bytes(100))
    while not reader._paused:
        await asyncio.sleep(0)
    reset(client)
    await asyncio.sleep(0)
    notes.append(writer.is_closing())
    notes.append(await outcome(reader.readexactly(100)))  # resumes
    notes += [await outcome(reader.read(1)), await ended(server, writer)]


@as_with_asyncio
async def test_a_reset_while_reading_is_paused_and_writing_waits(notes: Notes) -> None:
    server, client, reader, writer = await accepted(limit=10)
    client.send(bytes(100))
    while not reader._paused:
        await asyncio.sleep(0)
    writer.write(bytes(20_000_000))
    drain = asyncio.ensure_future(outcome(writer.drain()))
    await asyncio.sleep(0)
    reset(client)
    notes += [await drain, await ended(server, writer)]


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=CERTIFICATE)
    server.load_cert_chain(CERTIFICATE)
    return server, client


@as_with_asyncio
async def test_a_reset_of_the_client_in_a_tls_handshake(notes: Notes) -> None:
    server, client = await serve(lambda *_: notes.append("never"), ssl=tls()[0])
    await asyncio.sleep(0.001)
    client.send(b"\x16\x03\x01")
    await asyncio.sleep(0.001)
    reset(client)
    await asyncio.sleep(0.01)
    server.close()
    notes.append("the server lives")


async def listener(act: Callable[[socket.socket], object]) -> tuple[socket.socket, asyncio.Future[Any]]:
    """A plain server for one connection, which it gives to `act` in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with listening:
            act(listening.accept()[0])

    return listening, asyncio.ensure_future(asyncio.to_thread(accept))


def read_and_reset(sock: socket.socket) -> None:
    sock.recv(10)
    reset(sock)


@as_with_asyncio
async def test_a_reset_of_the_server_in_a_tls_handshake(notes: Notes) -> None:
    listening, served = await listener(read_and_reset)
    address = listening.getsockname()
    opened = asyncio.open_connection(*address, ssl=tls()[1], server_hostname="localhost")
    notes.append(await outcome(opened))
    await served


if sys.version_info >= (3, 11):

    @as_with_asyncio
    async def test_a_reset_in_start_tls(notes: Notes) -> None:
        listening, served = await listener(read_and_reset)
        _reader, writer = await asyncio.open_connection(*listening.getsockname())
        notes.append(await outcome(writer.start_tls(tls()[1], server_hostname="localhost")))
        writer.close()
        await served


@as_with_asyncio
async def test_a_connection_that_is_refused(notes: Notes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    notes.append(await outcome(asyncio.open_connection(*address)))


@as_with_asyncio
async def test_a_connect_that_is_given_up(notes: Notes) -> None:
    # A queue that is full: further connections are neither taken nor refused.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listening.getsockname())
        opening = asyncio.ensure_future(asyncio.open_connection(*listening.getsockname()))
        for _ in range(5):
            await asyncio.sleep(0)
        notes.append(opening.done())
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        for sock in waiting:
            sock.close()


class Raising(asyncio.Protocol):
    """Raises in one callback, and notes all."""

    def __init__(self, where: str, notes: Notes) -> None:
        self.where, self.notes = where, notes
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, callback: str, *arguments: Any) -> None:
        self.notes.append((callback, *arguments))
        if callback == self.where:
            raise ZeroDivisionError

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made")

    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)

    def eof_received(self) -> None:
        self.note("eof_received")

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)
        self.note("connection_lost", type(exc))


class RaisingBuffered(Raising, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> Any:
        self.note("get_buffer")
        return {"empty buffer": b"", "no buffer": None, "read-only buffer": b"1234"}.get(self.where, bytearray(4))

    def buffer_updated(self, nbytes: int) -> None:
        self.note("buffer_updated", nbytes)


def life(kind: type[Raising], where: str) -> Callable[[Notes], Coroutine[Any, Any, None]]:
    async def scenario(notes: Notes) -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        protocol = kind(where, notes)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
        far.send(b"data")
        while len(notes) == 1:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        if not transport.is_closing():
            transport.write(bytes(1_000_000))
            for _ in range(5):
                await asyncio.sleep(0)
            received = 0
            while received < 1_000_000 and not transport.is_closing():
                with contextlib.suppress(BlockingIOError):
                    received += len(far.recv(1 << 20))
                await asyncio.sleep(0)
            notes.append(received == 1_000_000)
        far.close()
        await protocol.lost
        await asyncio.sleep(0)
        transport.close()
        notes.append(near.fileno())

    scenario.__name__ = where
    return scenario


CALLBACKS = [
    "connection_made",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
    "nowhere",
]


@pytest.mark.parametrize("where", CALLBACKS)
def test_a_callback_that_raises_is_dealt_with_as_by_asyncio(where: str) -> None:
    as_with_asyncio(life(Raising, where))()


@pytest.mark.parametrize(
    "where", ["get_buffer", "buffer_updated", "empty buffer", "no buffer", "read-only buffer", "nowhere"]
)
def test_a_protocol_with_a_bad_buffer_is_dealt_with_as_by_asyncio(where: str) -> None:
    as_with_asyncio(life(RaisingBuffered, where))()


def census() -> collections.Counter[str]:
    gc.collect()
    return collections.Counter(type(thing).__qualname__ for thing in gc.get_objects())


def test_ten_thousand_connections_leave_nothing() -> None:
    async def once(number: int) -> None:
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        other, answer = await asyncio.open_connection(sock=far)
        writer.write(b"%d\n" % number)
        assert await other.readline() == b"%d\n" % number
        match number % 4:
            case 0:  # a read that is cancelled
                read = asyncio.ensure_future(reader.read(1))
                await asyncio.sleep(0)
                read.cancel()
            case 1:
                answer.transport.abort()
            case 2:
                writer.write(b"never read")
            case _:
                answer.write(b"kept")
                assert await reader.readexactly(2) == b"ke"
        writer.close()
        answer.close()
        await outcome(asyncio.gather(writer.wait_closed(), answer.wait_closed()))

    async def main() -> None:
        for number in range(200):
            await once(number)
        tasks, before, files = len(asyncio.all_tasks()), census(), descriptors()
        blocks = sys.getallocatedblocks()
        for number in range(5_000):  # two ends each
            await once(number)
        grown = census() - before
        assert all(count < 100 for count in grown.values()), grown  # caches of Python's own grow a little
        assert sys.getallocatedblocks() - blocks < 2_000  # also what the collector does not track
        assert len(asyncio.all_tasks()) == tasks
        assert descriptors() == files

    ropewalk.run(main())
