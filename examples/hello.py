"""The smallest coroutine that waits: `asyncio.run`'s on ropewalk's loop.

usage: python examples/hello.py [SECONDS]
"""

import asyncio
import sys

import ropewalk


async def main(seconds: float) -> None:
    print("hello")
    await asyncio.sleep(seconds)
    print("world")


ropewalk.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
