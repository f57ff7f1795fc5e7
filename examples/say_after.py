"""Two coroutines awaited in turn take the sum of their times (3 s); as tasks they take the longer one (2 s).

usage: python examples/say_after.py [UNIT]    UNIT: what is taken for a second
"""

import asyncio
import sys
import time

import ropewalk


async def say_after(delay: float, what: str) -> None:
    await asyncio.sleep(delay)
    print(f"{what:>10}")


async def in_turn(unit: float) -> None:
    await say_after(1 * unit, "hello")
    await say_after(2 * unit, "world")


async def by_create_task(unit: float) -> None:
    hello = asyncio.create_task(say_after(1 * unit, "hello"))
    world = asyncio.create_task(say_after(2 * unit, "world"))
    await hello
    await world


async def main(unit: float) -> None:
    for way in (in_turn, by_create_task):
        print(f"{way.__name__}:")
        started = time.perf_counter()
        await way(unit)
        print(f"took {time.perf_counter() - started:.2f} s")


ropewalk.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
