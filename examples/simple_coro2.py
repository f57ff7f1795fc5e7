"""A coroutine stage by stage: each `send` runs from one yield to the next."""

from ropewalk.coroutines import getstate


def simple_coro2(a):
    print("-> Started: a =", a)
    b = yield a
    print("-> Received: b =", b)
    c = yield a + b
    print("-> Received: c =", c)


my_coro2 = simple_coro2(14)
print(getstate(my_coro2))
print(next(my_coro2))
print(getstate(my_coro2))
print(my_coro2.send(28))
try:
    my_coro2.send(99)
except StopIteration:
    print("StopIteration")
print(getstate(my_coro2))
