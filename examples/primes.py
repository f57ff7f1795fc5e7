"""Counts primes by one thread, by threads and by processes: computing belongs to processes, waiting to threads.

usage: python examples/primes.py [BELOW] [--workers N]

Threads of one interpreter take turns at its lock, so that for computing more of them bring nothing. Processes have an
interpreter each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable

from ropewalk.futures import ProcessPoolExecutor, ThreadPoolExecutor

Count = Callable[[range], int]


def count_primes(numbers: range) -> int:
    """Counts the primes among the numbers, by trial division."""
    return sum(is_prime(number) for number in numbers)


def is_prime(number: int) -> bool:
    if number < 4 or number % 2 == 0:
        return number in (2, 3)
    divisor = 3
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 2
    return True


def one_thread(count: Count, pieces: list[range], workers: int) -> Iterable[int]:
    return map(count, pieces)


def threads(count: Count, pieces: list[range], workers: int) -> Iterable[int]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(count, pieces))


def processes(count: Count, pieces: list[range], workers: int) -> Iterable[int]:
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(count, pieces))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("below", nargs="?", type=int, default=2_000_000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: one a processor (%(default)s)")
    options = parser.parse_args()
    # Many pieces: larger numbers take longer, and nobody shall wait for the last one.
    step = max(1, options.below // 100)
    pieces = [range(start, min(start + step, options.below)) for start in range(0, options.below, step)]
    print(f"{'primes by':14}{'found':>9}{'seconds':>10}{'speed-up':>10}")
    first = 0.0
    for way in (one_thread, threads, processes):
        started = time.perf_counter()
        found = sum(way(count_primes, pieces, options.workers))
        seconds = time.perf_counter() - started
        first = first or seconds
        print(f"{way.__name__:14}{found:9}{seconds:10.2f}{first / seconds:9.1f}x", flush=True)


if __name__ == "__main__":
    main()
