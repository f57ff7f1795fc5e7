"""A spinner in a task, cancelled when the answer is there; with --blocked, a thread's sleep never lets it begin.

usage: python examples/spinner_coroutine.py [SECONDS] [--blocked]
"""

import asyncio
import itertools
import sys
import time

import ropewalk


async def spin(msg: str) -> None:
    for char in itertools.cycle(r"\|/-"):
        status = f"\r{char} {msg}"
        print(status, end="", flush=True)
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            break
    blanks = " " * len(status)
    print(f"\r{blanks}\r", end="")


async def slow(seconds: float, blocked: bool) -> int:
    if blocked:
        time.sleep(seconds)  # never do this: nothing else runs on the loop meanwhile
    else:
        await asyncio.sleep(seconds)
    return 42


async def supervisor(seconds: float, blocked: bool) -> int:
    spinner = asyncio.create_task(spin("thinking!"))
    print(f"spinner object: {spinner}")
    result = await slow(seconds, blocked)
    spinner.cancel()
    return result


def main() -> None:
    numbers = [argument for argument in sys.argv[1:] if argument != "--blocked"]
    seconds = float(numbers[0]) if numbers else 3.0
    result = ropewalk.run(supervisor(seconds, "--blocked" in sys.argv))
    print(f"Answer: {result}")


if __name__ == "__main__":
    main()
