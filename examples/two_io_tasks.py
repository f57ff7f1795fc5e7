"""Two tasks that wait, as if for input, 2 s and 3 s: together they take 3 s instead of 5.

usage: python examples/two_io_tasks.py [UNIT]    UNIT: what is taken for a second
"""

import asyncio
import sys
import time

import ropewalk


async def task_io(number: int, seconds: int, unit: float) -> str:
    print(f"task {number} begins")
    await asyncio.sleep(seconds * unit)
    print(f"task {number} is done, which took {seconds} s")
    return f"result {number}"


async def main(unit: float) -> None:
    tasks = [asyncio.create_task(task_io(1, 2, unit)), asyncio.create_task(task_io(2, 3, unit))]
    done, pending = await asyncio.wait(tasks)
    assert not pending
    print(sorted(task.result() for task in done))


unit = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
started = time.perf_counter()
ropewalk.run(main(unit))
print(f"both took {(time.perf_counter() - started) / unit:.2f} s")
