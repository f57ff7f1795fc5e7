"""A spinner in a thread, told by an Event when to stop.

usage: python examples/spinner_thread.py [SECONDS]
"""

import itertools
import sys
import time
from threading import Thread

from ropewalk.threading import Event


def spin(msg: str, done: Event) -> None:
    for char in itertools.cycle(r"\|/-"):
        status = f"\r{char} {msg}"
        print(status, end="", flush=True)
        if done.wait(0.1):
            break
    blanks = " " * len(status)
    print(f"\r{blanks}\r", end="")


def slow(seconds: float) -> int:
    time.sleep(seconds)
    return 42


def supervisor(seconds: float) -> int:
    done = Event()
    spinner = Thread(target=spin, args=("thinking!", done))
    print(f"spinner object: {spinner}")
    spinner.start()
    result = slow(seconds)
    done.set()
    spinner.join()
    return result


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    result = supervisor(seconds)
    print(f"Answer: {result}")


if __name__ == "__main__":
    main()
