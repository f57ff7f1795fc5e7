"""Downloads the flags of the twenty most populous countries, one way after the other, and compares the ways.

    python examples/flags.py
    python examples/flags.py JP FR --latency 0.5
    python examples/flags.py --error-rate 0.2 --slow-rate 0.1 --timeout 2
    python examples/flags.py --base-url https://www.fluentpython.com/data/flags

Without --base-url it starts a server of its own (flag_server.py). A country that fails is named, and costs no other.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from ropewalk.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed

POP20 = ["CN", "IN", "US", "ID", "BR", "PK", "NG", "BD", "RU", "JP"]
POP20 += ["MX", "PH", "VN", "ET", "EG", "DE", "IR", "TR", "CD", "FR"]

Download = Callable[[str], int]
Outcome = tuple[str, Callable[[], int]]


def download_one(base_url: str, folder: Path, timeout: float, country: str) -> int:
    """Fetches one flag and saves it; returns its size."""
    url = f"{base_url}/{country}/{country}.gif".lower()
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            image: bytes = response.read()
    except HTTPError as error:
        # It holds the connection, which cannot be sent from one process to another.
        raise OSError(f"HTTP status {error.code} ({error.reason})") from None
    (folder / f"{country}.gif").write_bytes(image)
    return len(image)


# A way takes a function and countries, and yields each country with what returns its size or raises its error.


def sequentially(download: Download, countries: list[str]) -> Iterator[Outcome]:
    for country in countries:
        yield country, functools.partial(download, country)


def threads(download: Download, countries: list[str]) -> Iterator[Outcome]:
    with ThreadPoolExecutor(max_workers=len(countries)) as executor:
        yield from completed(executor, download, countries)


def processes(download: Download, countries: list[str]) -> Iterator[Outcome]:
    with ProcessPoolExecutor() as executor:
        yield from completed(executor, download, countries)


def completed(executor: Executor, download: Download, countries: list[str]) -> Iterator[Outcome]:
    futures = {executor.submit(download, country): country for country in countries}
    for future in as_completed(futures):
        yield futures[future], future.result


WAYS = (sequentially, threads, processes)


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
        download = functools.partial(download_one, base_url, folder, options.timeout)
        for country, size in way(download, options.countries):
            try:
                size()
            except (OSError, HTTPException) as error:
                failures.append(f"{country} ({name}): {error}")
                print(f"-{country}-", end=" ", flush=True)
            else:
                files += 1
                print(country, end=" ", flush=True)
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
