"""Two tasks print the date, each after pauses of its own, until Ctrl-C: a loop that runs for ever, and its clean end.

usage: python examples/date_printers.py [SECONDS]    SECONDS: the longest pause
"""

import asyncio
import datetime
import random
import sys

import ropewalk


async def display_date(number: int, longest: float) -> None:
    while True:
        print(f"Task: {number} Time: {datetime.datetime.now()}", flush=True)
        await asyncio.sleep(random.uniform(0, longest))


async def end(tasks: list) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


longest = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
loop = ropewalk.new_event_loop()
tasks = [loop.create_task(display_date(number, longest)) for number in (1, 2)]
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("\nstopped by Ctrl-C")
finally:
    loop.run_until_complete(end(tasks))
    loop.close()
