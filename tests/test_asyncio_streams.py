"""Native streams: what asyncio's own do, found out by running both."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import socket
import ssl
import struct
import sys
import weakref
from asyncio import open_connection, start_server  # before ropewalk is imported, as a program may
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import ropewalk
import ropewalk.asyncio

CERTIFICATE = Path(__file__).with_name("localhost.pem")


def run_stock(coroutine: Coroutine[Any, Any, Any]) -> Any:
    loop = asyncio.SelectorEventLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


class Transport:
    """Notes what a reader asks for."""

    def __init__(self, notes: list[Any], can_pause: bool) -> None:
        self.notes, self.can_pause = notes, can_pause

    def pause_reading(self) -> None:
        self.notes.append("pause")
        if not self.can_pause:
            raise NotImplementedError

    def resume_reading(self) -> None:
        self.notes.append("resume")

    def __repr__(self) -> str:
        return "<transport>"


SEPARATORS: list[Any] = [b"\n", b"a", b"ab", b"aab", b"", bytearray(b"ba"), "text"]
if sys.version_info >= (3, 13):
    SEPARATORS += [(b"ab", b"\n"), (b"aaa", b"b"), ()]


def script(seed: int) -> list[tuple[Any, ...]]:
    """Random operations on a reader."""
    chance = random.Random(seed)
    operations: list[tuple[Any, ...]] = [("limit", chance.choice([1, 4, 20, 65536])), ("pausable", seed % 3 > 0)]
    for _ in range(60):
        number = chance.choice([-1, 0, 1, 2, 5, 9, 30])
        data = bytes(chance.choice(b"aaab\n") for _ in range(chance.choice([0, 1, 2, 5, 12, 40])))
        operations.append(
            chance.choices(
                [
                    ("feed", chance.choice([bytes, bytearray])(data)),
                    ("eof",),
                    ("error",),
                    ("read", chance.choice([number, number, None, 2.0])),
                    ("readexactly", number),
                    ("readuntil", chance.choice(SEPARATORS)),
                    ("readline",),
                    ("next",),
                    ("cancel",),
                    ("look",),
                    ("clear",),
                ],
                weights=[14, 0.3, 0.2, 3, 3, 4, 4, 2, 2, 2, 0.2],
            )[0]
        )
    return operations


async def perform(operations: list[tuple[Any, ...]]) -> list[Any]:
    """What happens, operation by operation."""
    loop = asyncio.get_running_loop()
    (_, limit), (_, can_pause), *rest = operations
    reader: Any = asyncio.StreamReader(limit, loop)
    notes: list[Any] = []
    reader.set_transport(Transport(notes, can_pause))
    pending: list[asyncio.Task[Any]] = []

    async def do(operation: str, *arguments: Any) -> None:
        try:
            result = await (reader.__anext__() if operation == "next" else getattr(reader, operation)(*arguments))
            notes.append((operation, type(result), result))
        except asyncio.CancelledError:
            notes.append((operation, "cancelled"))
        except BaseException as error:
            partial, consumed = getattr(error, "partial", None), getattr(error, "consumed", None)
            notes.append((operation, type(error), str(error), partial, consumed, repr(error.__context__)))

    for operation, *arguments in rest:
        notes.append((operation, arguments))
        if operation == "feed":
            try:
                reader.feed_data(*arguments)
            except AssertionError as error:
                notes.append(str(error))
        elif operation == "eof":
            reader.feed_eof()
        elif operation == "error":
            reader.set_exception(OSError("broken"))
        elif operation == "cancel":
            for task in pending:
                task.cancel("enough")
        elif operation == "clear":
            reader._buffer.clear()
        elif operation == "look":
            waits = reader._waiter is not None
            shown = re.sub("waiter=<[^>]*>", "waiter", repr(reader))
            notes.append((bytes(reader._buffer), reader._eof, reader._paused, waits, reader.at_eof(), shown))
            notes.append(repr(reader.exception()))
        else:
            pending.append(loop.create_task(do(operation, *arguments)))
        for _ in range(4):
            await asyncio.sleep(0)
        pending = [task for task in pending if not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending)
    notes.append(bytes(reader._buffer))
    notes.append(type(reader) is ropewalk.asyncio.StreamReader)
    return notes


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_reads_come_to_what_they_come_to_with_asyncios_reader(start: int) -> None:
    for seed in range(start, start + 100):
        operations = script(seed)
        (*expected, was_ours), (*found, is_ours) = run_stock(perform(operations)), ropewalk.run(perform(operations))
        assert found == expected, f"seed {seed}"
        assert is_ours
        assert not was_ours


async def connect_to(serve: Callable[[Any, Any], Any], **options: Any) -> tuple[Any, Any, Any]:
    server = await start_server(serve, "127.0.0.1", 0, **options)
    reader, writer = await open_connection(*server.sockets[0].getsockname()[:2])
    return server, reader, writer


async def finish(server: Any, writer: Any) -> None:
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    while len(asyncio.all_tasks()) > 1:  # the server's, which 3.11 and earlier do not wait for
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()


async def whose(connect: Callable[[Any], Coroutine[Any, Any, Any]]) -> list[type]:
    """The types of the streams of both ends, after they have carried something."""
    kinds: list[type] = []

    async def serve(reader: Any, writer: Any) -> None:
        kinds.extend([type(reader), type(writer)])
        await echo(reader, writer)

    server, reader, writer = await connect(serve)
    kinds.extend([type(reader), type(writer)])
    writer.write(b"data\nmore")
    await writer.drain()
    assert await reader.readline() == b"data\n"
    writer.write_eof()
    assert await reader.read() == b"more"
    assert reader.at_eof()
    await finish(server, writer)
    return kinds


def test_a_loop_of_ours_has_native_streams_and_others_have_asyncios() -> None:
    ours = [ropewalk.asyncio.StreamReader, ropewalk.asyncio.StreamWriter]
    assert ropewalk.run(whose(connect_to)) == ours * 2
    assert run_stock(whose(connect_to)) == [asyncio.StreamReader, asyncio.StreamWriter] * 2
    assert issubclass(ours[0], asyncio.StreamReader)
    assert issubclass(ours[1], asyncio.StreamWriter)


def test_unix_streams_are_native_too(tmp_path: Path) -> None:
    async def connect(serve: Any) -> Any:
        server = await asyncio.start_unix_server(serve, tmp_path / "socket")
        return server, *await asyncio.open_unix_connection(tmp_path / "socket")

    kinds = ropewalk.run(whose(connect))
    assert kinds == [ropewalk.asyncio.StreamReader, ropewalk.asyncio.StreamWriter] * 2


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=CERTIFICATE)
    server.load_cert_chain(CERTIFICATE)
    return server, client


def test_tls_streams_are_native_too() -> None:
    async def connect(serve: Any) -> Any:
        server_context, client_context = tls()
        server = await start_server(serve, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await open_connection("127.0.0.1", port, ssl=client_context, server_hostname="localhost")
        writer.write_eof = lambda: writer.write(b"bye")  # type: ignore[method-assign] # TLS cannot close half
        return server, reader, writer

    async def main() -> list[type]:
        kinds: list[type] = []

        async def serve(reader: Any, writer: Any) -> None:
            kinds.extend([type(reader), type(writer)])
            writer.write(await reader.readexactly(1_000_000))
            await writer.drain()
            writer.close()

        server, reader, writer = await connect(serve)
        kinds.extend([type(reader), type(writer)])
        data = random.Random(0).randbytes(1_000_000)
        writer.write(data)
        await writer.drain()
        assert await reader.read() == data
        await finish(server, writer)
        return kinds

    assert ropewalk.run(main()) == [ropewalk.asyncio.StreamReader, ropewalk.asyncio.StreamWriter] * 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="StreamWriter.start_tls came with 3.11")
def test_a_stream_goes_over_to_tls() -> None:
    server_context, client_context = tls()

    async def serve(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(server_context)
        await echo(reader, writer)

    async def main() -> None:
        server, reader, writer = await connect_to(serve)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        assert writer.get_extra_info("cipher")
        for _ in range(3):
            writer.write(b"secret\n")
            await writer.drain()
            assert await reader.readline() == b"secret\n"
        await finish(server, writer)

    ropewalk.run(main())


class Shouting(asyncio.StreamReader):
    def feed_data(self, data: Any) -> None:
        super().feed_data(bytes(data).upper())


def test_a_subclass_of_asyncios_reader_keeps_its_own_behaviour() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server, _, writer = await connect_to(echo)
        reader = Shouting(loop=loop)
        assert not isinstance(reader, ropewalk.asyncio.StreamReader)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname()[:2])
        transport.write(b"data")
        assert await reader.readexactly(4) == b"DATA"
        transport.close()
        await finish(server, writer)

    ropewalk.run(main())


def test_a_protocol_that_takes_the_data_itself_is_given_it() -> None:
    class Counting(asyncio.StreamReaderProtocol):
        count = 0

        def data_received(self, data: bytes) -> None:
            self.count += len(data)
            super().data_received(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server, _, writer = await connect_to(echo)
        reader = asyncio.StreamReader(loop=loop)
        protocol = Counting(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname()[:2])
        transport.write(b"data")
        assert await reader.readexactly(4) == b"data"
        assert protocol.count == 4
        transport.close()
        await finish(server, writer)

    ropewalk.run(main())


def test_a_reader_that_is_not_read_pauses_its_peer_and_loses_nothing() -> None:
    data = random.Random(1).randbytes(8_000_000)

    async def serve(reader: Any, writer: Any) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    async def main() -> None:
        server, reader, writer = await connect_to(serve)
        while not reader._paused:
            await asyncio.sleep(0)
        assert not writer.transport.is_reading()
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"not to be found at all, since it is text")
        assert await reader.readexactly(1_000_000) == data[:1_000_000]
        assert await reader.read() == data[1_000_000:]
        await finish(server, writer)

    ropewalk.run(main())


def test_a_reset_is_raised_by_reads_and_by_drain() -> None:
    async def main() -> None:
        peers: asyncio.Queue[Any] = asyncio.Queue()
        server, reader, writer = await connect_to(lambda *streams: peers.put_nowait(streams))
        _, peer = await peers.get()
        read = asyncio.ensure_future(reader.readexactly(4))
        await asyncio.sleep(0)
        sock = peer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.transport.abort()
        with pytest.raises(ConnectionResetError):
            await read
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        await finish(server, peer)

    ropewalk.run(main())


def test_a_read_that_is_cancelled_leaves_the_data() -> None:
    async def main() -> None:
        server, reader, writer = await connect_to(echo)
        writer.write(b"12345")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readexactly(6), 0.1)
        writer.write(b"6")
        assert await reader.readexactly(6) == b"123456"
        await finish(server, writer)

    ropewalk.run(main())


def test_data_for_a_reader_that_is_gone_is_dropped() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
        reader._transport = None  # type: ignore[attr-defined]
        ref = weakref.ref(reader)
        del reader
        gc.collect()
        assert ref() is None
        await asyncio.to_thread(far.sendall, bytes(5_000_000))  # would block if it was kept
        far.close()
        transport.close()
        await asyncio.sleep(0)

    ropewalk.run(main())


def test_async_for_gives_lines() -> None:
    async def serve(reader: Any, writer: Any) -> None:
        writer.write(b"one\ntwo\nthree")
        writer.close()

    async def main() -> None:
        server, reader, writer = await connect_to(serve)
        assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]
        await finish(server, writer)

    ropewalk.run(main())


def test_a_read_is_awaited_once() -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"data")
        read: Any = reader.read(2)
        assert asyncio.iscoroutine(read)
        assert read.__qualname__ == "StreamReader.read"
        assert await read == b"da"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await read
        with pytest.warns(RuntimeWarning, match="coroutine 'StreamReader.readline' was never awaited"):
            reader.readline()
        unused = reader.read(1)
        with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
            unused.send("value")
        unused.close()
        assert await reader.read(10) == b"ta"

    ropewalk.run(main())


def test_a_read_that_nobody_has_any_more_waits_no_longer() -> None:
    async def main() -> bytes:
        reader = asyncio.StreamReader()
        read = reader.readline()
        read.send(None)
        del read
        assert reader._waiter is None  # type: ignore[attr-defined]
        reader.feed_data(b"line\n")
        return await reader.readline()

    assert ropewalk.run(main()) == run_stock(main()) == b"line\n"


def test_a_reader_and_a_read_that_waits_for_ever_are_freed() -> None:
    async def main() -> list[weakref.ref[Any]]:
        reader: Any = asyncio.StreamReader()
        reader.itself = reader
        read: Any = reader.read(1)
        future = read.send(None)
        assert future is reader._waiter
        reader.read = read
        return [weakref.ref(reader), weakref.ref(future)]

    refs = ropewalk.run(main())
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
