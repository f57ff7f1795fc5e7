"""`yield from`: the caller sends values through `grouper` to the averager beneath it, whose result comes back there."""

from typing import NamedTuple

from ropewalk.coroutines import primed


class Result(NamedTuple):
    count: int
    average: float


def averager():
    total, count = 0.0, 0
    while (term := (yield)) is not None:
        total += term
        count += 1
    return Result(count, total / count)


@primed
def grouper(results, key):
    while True:
        results[key] = yield from averager()


def report(results):
    for key, result in sorted(results.items()):
        group, unit = key.split(";")
        print(f"{result.count:2} {group:5} averaging {result.average:.2f}{unit}")


DATA = {
    "girls;kg": [40.9, 38.5, 44.3, 42.2, 45.2, 41.7, 44.5, 38.0, 40.6, 44.5],
    "girls;m": [1.6, 1.51, 1.4, 1.3, 1.41, 1.39, 1.33, 1.46, 1.45, 1.43],
    "boys;kg": [39.0, 40.8, 43.2, 40.8, 43.1, 38.6, 41.4, 40.6, 36.3],
    "boys;m": [1.38, 1.5, 1.32, 1.25, 1.37, 1.48, 1.25, 1.49, 1.46],
}

results: dict[str, Result] = {}
for key, values in DATA.items():
    group = grouper(results, key)
    for value in values:
        group.send(value)
    group.send(None)  # ends the averager; without it nothing would be reported
report(results)
