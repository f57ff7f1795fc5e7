"""An error thrown into a coroutine: handled it goes on, unhandled it ends."""

from ropewalk.coroutines import getstate, primed


class DemoException(Exception):
    """The one that the coroutine handles."""


@primed
def demo_exc_handling():
    print("-> coroutine started")
    while True:
        try:
            x = yield
        except DemoException:
            print("*** DemoException handled. Continuing...")
        else:
            print("-> coroutine received:", x)


print("closed:")
exc_coro = demo_exc_handling()
exc_coro.send(11)
exc_coro.send(22)
exc_coro.close()
print(getstate(exc_coro))

print("handled:")
exc_coro = demo_exc_handling()
exc_coro.send(11)
exc_coro.throw(DemoException())
print(getstate(exc_coro))

print("not handled:")
try:
    exc_coro.throw(ZeroDivisionError())
except ZeroDivisionError:
    print("ZeroDivisionError")
print(getstate(exc_coro))
