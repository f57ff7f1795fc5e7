"""Three delegating coroutines above one that yields: the caller talks to the innermost, results travel outwards."""


class HiccupError(Exception):
    def __str__(self):
        return "a hiccup"


def innermost():
    first = yield "innermost: first?"
    try:
        second = yield f"innermost: got {first}, second?"
    except HiccupError as error:
        second = yield f"innermost: handled {error}, second?"
    return first + second


def link(name, sub):
    result = yield from sub
    print(f"{name}: sub-coroutine returned {result}")
    return result * 10


chain = link("outer", link("middle", link("inner", innermost())))
print(next(chain))
print(chain.send(1))
print(chain.throw(HiccupError()))
try:
    chain.send(2)
except StopIteration as stop:
    print(f"caller: {stop.value}")


# Any iterable will do as the innermost.
def letters():
    yield from "AB"


def both():
    yield from letters()
    yield from map(str, range(1, 3))


print("".join(both()))
