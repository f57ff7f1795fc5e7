"""A coroutine with a result: it ends when nothing more is sent, and returns what it counted."""

from typing import NamedTuple

from ropewalk.coroutines import primed


class Result(NamedTuple):
    count: int
    average: float


@primed
def averager():
    total, count = 0.0, 0
    while (term := (yield)) is not None:
        total += term
        count += 1
    return Result(count, total / count)


coro_avg = averager()
for term in [10, 30, 6.5]:
    coro_avg.send(term)
try:
    next(coro_avg)
except StopIteration as stop:
    print(f"count={stop.value.count}, average={stop.value.average}")
