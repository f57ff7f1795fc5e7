"""Clean-up: `finally` runs when the coroutine fails, is closed or is dropped."""

from ropewalk.coroutines import primed


class DemoException(Exception):
    """The one that the coroutine handles."""


@primed
def demo_finally():
    print("-> coroutine started")
    try:
        while True:
            try:
                x = yield
            except DemoException:
                print("*** DemoException handled. Continuing...")
            else:
                print("-> coroutine received:", x)
    finally:
        print("-> coroutine ending")


print("thrown into:")
exc_coro = demo_finally()
exc_coro.send(11)
exc_coro.throw(DemoException())
try:
    exc_coro.throw(ZeroDivisionError())
except ZeroDivisionError:
    print("ZeroDivisionError")

print("closed:")
exc_coro = demo_finally()
exc_coro.close()

print("dropped:")
exc_coro = demo_finally()
del exc_coro
