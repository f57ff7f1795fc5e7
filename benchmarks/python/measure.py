"""What every Python benchmark program shares: the register of its benches, and the lines that it prints."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable

Bench = Callable[[str], float]

SECONDS = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}
BENCHES: dict[str, tuple[str, Bench]] = {}
QUICK = "--quick" in sys.argv


def scaled(count: int) -> int:
    """`count`, or a tenth of it in a quick run."""
    return max(1, count // 10) if QUICK else count


def bench(name: str, unit: str) -> Callable[[Bench], Bench]:
    """Registers a function that measures one contender: seconds for units of time, else the value itself."""

    def register(function: Bench) -> Bench:
        BENCHES[name] = (unit, function)
        return function

    return register


def main() -> None:
    who, name, *_ = sys.argv[1:]
    unit, function = BENCHES[name]
    gc.freeze()
    try:
        value = function(who) * SECONDS.get(unit, 1)
    except ImportError as error:
        print(json.dumps({"skip": str(error)}))
        return
    print(json.dumps({"bench": name, "who": who, "unit": unit, "value": value}))
