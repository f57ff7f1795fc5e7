"""A running average. An error that the coroutine does not handle ends it."""

from ropewalk.coroutines import getstate, primed


@primed
def averager():
    total, count, average = 0.0, 0, None
    while True:
        term = yield average
        total += float(term)
        count += 1
        average = total / count


coro_avg = averager()
print(getstate(coro_avg))
for term in ["40", "50", "spam", "60"]:
    try:
        print(f"{term}: {coro_avg.send(term)}")
    except ValueError:
        print(f"{term}: not a number")
    except StopIteration:
        print(f"{term}: StopIteration")
print(getstate(coro_avg))
