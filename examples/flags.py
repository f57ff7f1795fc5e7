"""Downloads the flags of the twenty most populous countries, one way after the other, and compares the ways.

    python examples/flags.py
    python examples/flags.py JP FR --latency 0.5
    python examples/flags.py --error-rate 0.2 --slow-rate 0.1 --timeout 2
    python examples/flags.py --base-url https://www.fluentpython.com/data/flags

Without --base-url it starts a server of its own (flag_server.py). A country that fails is named, and costs no other.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import ropewalk
from ropewalk.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed

POP20 = ["CN", "IN", "US", "ID", "BR", "PK", "NG", "BD", "RU", "JP"]
POP20 += ["MX", "PH", "VN", "ET", "EG", "DE", "IR", "TR", "CD", "FR"]

Source = tuple[str, Path, float]  # base URL, folder, seconds for an answer
Report = Callable[[str, Callable[[], int]], None]


def download(base_url: str, folder: Path, timeout: float, country: str) -> int:
    """Fetches one flag and saves it; returns its size."""
    try:
        with urllib.request.urlopen(flag_url(base_url, country), timeout=timeout) as response:
            image: bytes = response.read()
    except HTTPError as error:
        # It holds the connection, which cannot be sent from one process to another.
        raise OSError(f"HTTP status {error.code} ({error.reason})") from None
    return save(folder, country, image)


async def download_in_coroutine(base_url: str, folder: Path, timeout: float, country: str) -> int:
    try:
        image = await asyncio.wait_for(get(flag_url(base_url, country)), timeout)
    except asyncio.TimeoutError:
        raise TimeoutError("timed out") from None
    return save(folder, country, image)


async def get(url: str) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
    try:
        # After HTTP 1.0's answer the server closes the connection.
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    response = HTTPResponse(SimpleNamespace(makefile=lambda mode: io.BytesIO(answer)))  # type: ignore[arg-type]
    response.begin()
    if response.status != HTTPStatus.OK:
        raise OSError(f"HTTP status {response.status} ({response.reason})")
    return response.read()


def flag_url(base_url: str, country: str) -> str:
    return f"{base_url}/{country}/{country}.gif".lower()


def save(folder: Path, country: str, image: bytes) -> int:
    return (folder / f"{country}.gif").write_bytes(image)


# A way takes a source and countries, and reports each country with what returns its size or raises its error.


def sequentially(source: Source, countries: list[str], report: Report) -> None:
    for country in countries:
        report(country, functools.partial(download, *source, country))


def threads(source: Source, countries: list[str], report: Report) -> None:
    with ThreadPoolExecutor(max_workers=len(countries)) as executor:
        report_completed({executor.submit(download, *source, country): country for country in countries}, report)


def processes(source: Source, countries: list[str], report: Report) -> None:
    with ProcessPoolExecutor() as executor:
        report_completed({executor.submit(download, *source, country): country for country in countries}, report)


def coroutines(source: Source, countries: list[str], report: Report) -> None:
    awaitables = {download_in_coroutine(*source, country): country for country in countries}
    ropewalk.run(report_awaited(awaitables, report))


def mixed(source: Source, countries: list[str], report: Report) -> None:
    """A third by threads, a third by processes, a third by coroutines, in one `as_completed`."""
    with ThreadPoolExecutor() as some_threads, ProcessPoolExecutor() as some_processes, loop_in_thread() as loop:
        futures: dict[Future[int], str] = {}
        for country in countries[0::3]:
            futures[some_threads.submit(download, *source, country)] = country
        for country in countries[1::3]:
            futures[some_processes.submit(download, *source, country)] = country
        for country in countries[2::3]:
            futures[asyncio.run_coroutine_threadsafe(download_in_coroutine(*source, country), loop)] = country
        report_completed(futures, report)


def mixed_awaited(source: Source, countries: list[str], report: Report) -> None:
    """The same thirds, awaited in a coroutine."""
    with ThreadPoolExecutor() as some_threads, ProcessPoolExecutor() as some_processes:
        awaitables: dict[Any, str] = {}
        for country in countries[0::3]:
            awaitables[some_threads.submit(download, *source, country)] = country
        for country in countries[1::3]:
            awaitables[some_processes.submit(download, *source, country)] = country
        for country in countries[2::3]:
            awaitables[download_in_coroutine(*source, country)] = country
        ropewalk.run(report_awaited(awaitables, report))


WAYS = (sequentially, threads, processes, coroutines, mixed, mixed_awaited)


def report_completed(futures: Mapping[Future[int], str], report: Report) -> None:
    for future in as_completed(futures):
        report(futures[future], future.result)


async def report_awaited(awaitables: Mapping[Any, str], report: Report) -> None:
    async def report_one(awaitable: Awaitable[int], country: str) -> None:
        future = asyncio.ensure_future(awaitable)
        await asyncio.wait([future])
        report(country, future.result)

    await asyncio.gather(*(report_one(*item) for item in awaitables.items()))


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = ropewalk.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def local_server(options: argparse.Namespace) -> Iterator[str]:
    """Starts flag_server.py in a process of its own; its end of standard input ends it, however this process ends."""
    script = Path(__file__).with_name("flag_server.py")
    names = ("latency", "error_rate", "slow_rate")
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        os.environ["no_proxy"] = "127.0.0.1"
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def compare(base_url: str, options: argparse.Namespace) -> bool:
    """Downloads in every way, prints the table and the failures; says whether there were none."""
    rows = []
    failures = []
    for way in WAYS:
        name = way.__name__
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{name:14}", end="", flush=True)
        started = time.perf_counter()
        files = 0

        def report(country: str, size: Callable[[], int], name: str = name) -> None:
            nonlocal files
            try:
                size()
            except (OSError, HTTPException) as error:
                failures.append(f"{country} ({name}): {error}")
                print(f"-{country}-", end=" ", flush=True)
            else:
                files += 1
                print(country, end=" ", flush=True)

        way((base_url, folder, options.timeout), options.countries, report)
        rows.append((name, files, time.perf_counter() - started))
        print()
    print(f"\n{'way':14}{'files':>6}{'seconds':>10}{'speed-up':>10}")
    for name, files, seconds in rows:
        print(f"{name:14}{files:6}{seconds:10.2f}{rows[0][2] / seconds:9.1f}x")
    print(*["", *failures], sep="\nfailed: " if failures else "")
    return not failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("countries", nargs="*", default=POP20, metavar="CC", help="default: twenty")
    parser.add_argument("--base-url", help="another server, that has BASE_URL/br/br.gif")
    parser.add_argument("--folder", type=Path, default=Path("downloaded"), help="where to (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=6.1, help="seconds for an answer (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.1, help="of the own server, seconds (default: %(default)s)")
    parser.add_argument("--error-rate", type=float, default=0, help="share of countries for which it fails")
    parser.add_argument("--slow-rate", type=float, default=0, help="share of countries for which it takes 10 s")
    options = parser.parse_args()
    options.countries = sorted({country.upper() for country in options.countries})
    if options.base_url:
        return 0 if compare(options.base_url, options) else 1
    with local_server(options) as base_url:
        return 0 if compare(base_url, options) else 1


if __name__ == "__main__":
    sys.exit(main())
