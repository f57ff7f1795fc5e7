"""Generator-based and native coroutines await each other and take turns on one loop."""

import asyncio
import types

import ropewalk


@types.coroutine
def turn():
    """A generator-based coroutine, for `await`."""
    yield from asyncio.sleep(0)


@ropewalk.coroutine
def generator_based(rounds: int):
    """The removed `asyncio.coroutine`, on every version of Python."""
    for number in range(rounds):
        print(f"generator-based: {number}")
        yield from native_turn()
    return "generator-based"


async def native_turn() -> None:
    await asyncio.sleep(0)


async def native(rounds: int) -> str:
    for number in range(rounds):
        print(f"native: {number}")
        await turn()
    return "native"


async def main() -> None:
    print(await asyncio.gather(generator_based(3), native(3)))


ropewalk.run(main())
