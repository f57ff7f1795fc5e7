"""The GIL is not thread safety: a switch between reading and writing loses an update.

Where a switch comes is up to chance; here two events make it come at the worst moment.
"""

import contextlib
import threading

from ropewalk.threading import Event

balance = 0


def deposit(amount: int, lock, between) -> None:
    global balance
    with lock:
        before = balance
        between()
        balance = before + amount


def two_deposits(lock, *, other_can_run: bool) -> int:
    global balance
    balance = 0
    first_has_read, second_is_done = Event(), Event()

    def switch() -> None:
        first_has_read.set()
        if other_can_run:
            second_is_done.wait()

    def second() -> None:
        first_has_read.wait()
        deposit(10, lock, between=lambda: None)
        second_is_done.set()

    threads = [threading.Thread(target=deposit, args=(10, lock, switch)), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return balance


print("two deposits of 10")
print(f"without a lock: {two_deposits(contextlib.nullcontext(), other_can_run=True)}")
print(f"with a lock: {two_deposits(threading.Lock(), other_can_run=False)}")
