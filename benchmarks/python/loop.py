"""The event loop against asyncio's, uvloop's and rloop's. CPU time where the clock would count other threads' work."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from measure import bench, main, scaled


def new_loop(who: str) -> Any:
    if who.startswith("ropewalk"):
        import ropewalk.asyncio

        return ropewalk.asyncio.EventLoop()
    if who == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if who == "rloop":
        import rloop

        return rloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def run(who: str, work: Callable[[], Awaitable[float]]) -> float:
    loop = new_loop(who)
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


def cpu() -> float:
    return time.process_time()


@bench("call_soon chain", unit="ns")
def call_soon_chain(who: str) -> float:
    loop = new_loop(who)
    left = count = scaled(500_000)

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            loop.stop()

    loop.call_soon(again)
    started = cpu()
    loop.run_forever()
    taken = cpu() - started
    loop.close()
    return taken / count


@bench("call_soon batch", unit="ns")
def call_soon_batch(who: str) -> float:
    loop = new_loop(who)
    rounds = scaled(300)

    def nothing() -> None:
        pass

    started = cpu()
    for _ in range(rounds):
        for _ in range(1000):
            loop.call_soon(nothing)
        loop.call_soon(loop.stop)
        loop.run_forever()
    taken = cpu() - started
    loop.close()
    return taken / (rounds * 1000)


@bench("sleep(0) among 100 tasks", unit="ns")
def sleep_0(who: str) -> float:
    turns = scaled(5000)

    async def spin() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def work() -> float:
        tasks = [asyncio.ensure_future(spin()) for _ in range(100)]
        started = cpu()
        for task in tasks:
            await task
        return (cpu() - started) / (turns * 100)

    return run(who, work)


async def nothing() -> None:
    pass


def gathering(who: str, gather: Callable[..., Awaitable[object]], tasks: int, rounds: int) -> float:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        started = cpu()
        for _ in range(rounds):
            await gather(*[loop.create_task(nothing()) for _ in range(tasks)])
        return (cpu() - started) / (tasks * rounds)

    return run(who, work)


@bench("create + gather 1 000 tasks", unit="ns")
def gather_asyncio(who: str) -> float:
    return gathering(who, asyncio.gather, 1000, scaled(150))


@bench("the same, ropewalk.gather", unit="ns")
def gather_own(who: str) -> float:
    if who == "ropewalk":
        import ropewalk.asyncio

        return gathering(who, ropewalk.asyncio.gather, 1000, scaled(300))
    return gathering(who, asyncio.gather, 1000, scaled(150))


def tasks_at(count: int) -> Callable[[str], float]:
    def measure(who: str) -> float:
        return gathering(who, asyncio.gather, count, max(1, scaled(100_000) // count))

    return measure


for _count, _name in ((10, "10 tasks"), (100, "100 tasks"), (10_000, "10 000 tasks")):
    bench(_name, unit="ns")(tasks_at(_count))


@bench("future set later + await", unit="ns")
def future_wake(who: str) -> float:
    count = scaled(100_000)

    async def work() -> float:
        loop = asyncio.get_running_loop()
        started = cpu()
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        return (cpu() - started) / count

    return run(who, work)


def queueing(who: str, make: Callable[[], Any]) -> float:
    count = scaled(200_000)

    async def work() -> float:
        queue = make()

        async def put() -> None:
            for n in range(count):
                await queue.put(n)

        task = asyncio.ensure_future(put())
        started = cpu()
        for _ in range(count):
            await queue.get()
        await task
        return (cpu() - started) / count

    return run(who, work)


@bench("asyncio.Queue put + get", unit="ns")
def queue_asyncio(who: str) -> float:
    return queueing(who, lambda: asyncio.Queue(100))


@bench("the same, ropewalk.Queue", unit="ns")
def queue_own(who: str) -> float:
    if who == "ropewalk":
        import ropewalk.asyncio

        return queueing(who, lambda: ropewalk.asyncio.Queue(100))
    return queueing(who, lambda: asyncio.Queue(100))


def timers_at(count: int) -> Callable[[str], float]:
    def measure(who: str) -> float:
        loop = new_loop(who)
        rounds = max(1, scaled(200_000) // count)

        def nothing() -> None:
            pass

        started = cpu()
        for _ in range(rounds):
            handles = [loop.call_later(100 + n % 7, nothing) for n in range(count)]
            for handle in handles:
                handle.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        taken = cpu() - started
        loop.close()
        return taken / (rounds * count)

    return measure


for _count, _name in (
    (1000, "timers insert + cancel"),
    (10, "10 timers"),
    (100, "100 timers"),
    (10_000, "10 000 timers"),
):
    bench(_name, unit="ns")(timers_at(_count))


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoTwice(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:100])
        self.transport.write(data[100:])


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.readexactly(1024):
            writer.write(data)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def echoing(who: str, serve: Callable[[], Awaitable[Any]], connections: int, idle: int = 0) -> float:
    """CPU time of the server's thread for a message of 1 KiB there and back, the client being plain sockets.

    Server and client have a core each, and connecting is not counted. The client is another process, so that the two do
    not share a GIL.
    """
    messages = scaled(30_000) // connections
    raise_limit()
    port: list[int] = []
    stopping: list[Callable[[], object]] = []
    ready = threading.Event()
    cores = sorted(os.sched_getaffinity(0))

    def server() -> None:
        os.sched_setaffinity(0, cores[:1])
        loop = new_loop(who)
        asyncio.set_event_loop(loop)

        async def work() -> None:
            listening = await serve()
            port.append(listening.sockets[0].getsockname()[1])
            stop = loop.create_future()
            stopping.append(lambda: loop.call_soon_threadsafe(stop.set_result, None))
            ready.set()
            await stop
            listening.close()
            await asyncio.sleep(0.01)

        loop.run_until_complete(work())
        loop.close()

    thread = threading.Thread(target=server)
    thread.start()
    ready.wait()
    clock = time.pthread_getcpuclockid(thread.ident or 0)
    command = [sys.executable, "-c", CLIENT, *map(str, (port[0], connections, messages, idle, cores[-1]))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin
        assert client.stdout
        client.stdout.readline()
        started = time.clock_gettime(clock)
        client.stdin.write(b"go\n")
        client.stdin.flush()
        client.stdout.readline()
        used = time.clock_gettime(clock) - started
    stopping[0]()
    thread.join()
    return used / (messages * connections)


CLIENT = """
import os, socket, sys
port, connections, messages, idle, core = map(int, sys.argv[1:])
os.sched_setaffinity(0, [core])
data = b"x" * 1024
def echo(socks, count):
    for _ in range(count):
        for sock in socks:
            sock.sendall(data)
        for sock in socks:
            left = 1024
            while left:
                left -= len(sock.recv(left))
def connect(count):
    socks = []
    for number in range(count):
        socks.append(socket.create_connection(("127.0.0.1", port)))
        socks[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if number % 50 == 49:
            echo(socks[-1:], 1)  # by now all are accepted: the queue never overflows
    return socks
idle, active = connect(idle), connect(connections)
echo(active, 10)
print("connected", flush=True)
sys.stdin.readline()
echo(active, messages)
print("done", flush=True)
for sock in idle + active:
    sock.close()
"""


def raise_limit() -> None:
    """Allows as many descriptors as there may be, here and in child processes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def protocol(kind: type[Echo]) -> Callable[[], Awaitable[Any]]:
    return lambda: asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)


@bench("echo 1 KiB, protocol, 1 connection", unit="us")
def echo_1(who: str) -> float:
    return echoing(who, protocol(Echo), 1)


@bench("echo 1 KiB, protocol, 50 connections", unit="us")
def echo_50(who: str) -> float:
    return echoing(who, protocol(Echo), 50)


@bench("echo 1 KiB, streams, 1 connection", unit="us")
def streams_1(who: str) -> float:
    return echoing(who, lambda: asyncio.start_server(echo_stream, "127.0.0.1", 0), 1)


@bench("echo 1 KiB, streams, 50 connections", unit="us")
def streams_50(who: str) -> float:
    return echoing(who, lambda: asyncio.start_server(echo_stream, "127.0.0.1", 0), 50)


@bench("reply in two writes", unit="us")
def two_writes(who: str) -> float:
    return echoing(who, protocol(EchoTwice), 1)


@bench("reply in two writes, 50 connections", unit="us")
def two_writes_50(who: str) -> float:
    return echoing(who, protocol(EchoTwice), 50)


def beside(idle: int) -> Callable[[str], float]:
    return lambda who: echoing(who, protocol(Echo), 1, idle)


for _count, _name in ((10, "10"), (100, "100"), (1000, "1 000"), (10_000, "10 000")):
    bench(f"echo beside {_name} idle connections", unit="us")(beside(_count))


@bench("aiohttp request, client + server", unit="us")
def aiohttp_request(who: str) -> float:
    import aiohttp
    from aiohttp import web

    count = scaled(5_000)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="x" * 1024)

    async def work() -> float:
        application = web.Application()
        application.router.add_get("/", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session:

            async def ask(times: int) -> None:
                for _ in range(times):
                    async with session.get(address) as response:
                        await response.read()

            await ask(50)
            started = cpu()
            await ask(count)
            used = cpu() - started
        await runner.cleanup()
        return used / count

    return run(who, work)


@bench("run_in_executor round trip", unit="us")
def executor(who: str) -> float:
    count = scaled(10_000)

    async def work() -> float:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, int)
        started = time.perf_counter()
        for _ in range(count):
            await loop.run_in_executor(None, int)
        taken = (time.perf_counter() - started) / count
        await loop.shutdown_default_executor()
        return taken

    return run(who, work)


def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


@bench("memory a sleeping task", unit="KiB")
def task_memory(who: str) -> float:
    count = 10_000

    async def work() -> float:
        before = resident()
        tasks = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(count)]
        await asyncio.sleep(0)
        used = resident() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return used / count

    return run(who, work)


@bench("memory a timer", unit="KiB")
def timer_memory(who: str) -> float:
    count = 10_000
    loop = new_loop(who)

    def nothing() -> None:
        pass

    before = resident()
    handles = [loop.call_later(60, nothing) for _ in range(count)]
    used = resident() - before
    for handle in handles:
        handle.cancel()
    loop.close()
    return used / count


def connection_memory(who: str, count: int) -> float:
    raise_limit()

    async def work() -> float:
        loop = asyncio.get_running_loop()
        listening = await protocol(Echo)()
        port = listening.sockets[0].getsockname()[1]
        await loop.run_in_executor(None, int)
        before = resident()
        command = [sys.executable, "-c", CLIENT, *map(str, (port, 1, 0, count - 1, min(os.sched_getaffinity(0))))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout
            await loop.run_in_executor(None, client.stdout.readline)
            used = resident() - before
            client.communicate(b"go\n")
        listening.close()
        await asyncio.sleep(0.01)
        return used / count

    return run(who, work)


bench("memory an idle connection", unit="KiB")(lambda who: connection_memory(who, 1_000))
bench("memory an idle connection of 10 000", unit="KiB")(lambda who: connection_memory(who, 10_000))

main()
