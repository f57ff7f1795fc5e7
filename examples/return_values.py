"""`await` gives what the coroutine returns, and so does `run`."""

import ropewalk


async def nested(number: int) -> int:
    return number


async def following(number: int) -> int:
    value = await nested(number)
    print(f"await nested({number}): {value}")
    return value + 1


print(f"run(following(99)): {ropewalk.run(following(99))}")
