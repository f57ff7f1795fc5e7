"""The same work by one thread, by threads and by processes, and what the GIL had to do with it.

Computing gains nothing from threads, and does from processes; waiting gains from threads.

usage: python examples/gil_contention.py [ROUNDS]
"""

import sys
import time

from ropewalk.futures import ProcessPoolExecutor, ThreadPoolExecutor
from ropewalk.gil import contention


def compute(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def wait(rounds: int) -> int:
    time.sleep(rounds / 10_000_000)
    return compute(3)


def one_after_the_other(function, rounds):
    return [function(rounds) for _ in range(4)]


def threads(function, rounds):
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(function, [rounds] * 4))


def processes(function, rounds):
    with ProcessPoolExecutor(max_workers=2) as pool:
        pool.warm_up()
        return list(pool.map(function, [rounds] * 4))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    print(f"{'':12}{'':22}{'seconds':>8}{'GIL held':>10}{'waited for':>12}{'threads waiting':>17}")
    for function in (compute, wait):
        for way in (one_after_the_other, threads, processes):
            with contention() as measured:
                results = way(function, rounds)
            assert len(set(results)) == 1
            print(
                f"{function.__name__:12}{way.__name__:22}{measured.seconds:8.2f}{measured.held:10.0%}"
                f"{measured.waited:12.0%}{measured.waiting:17.1f}"
            )


if __name__ == "__main__":
    main()
