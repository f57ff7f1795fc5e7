"""What the tests of the process pool have workers do. Imports nothing that takes time: each worker imports it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def cube(n):
    return n * n * n


def show(*args, **kwargs):
    return args, kwargs


def pid(*_):
    return os.getpid()


def fail(message):
    raise ValueError(message, 42)


def wait_for(path):
    """Returns when the file is there."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return os.getpid()


def hang(path):
    """Says by the file that it runs, and never ends."""
    mark(path)
    while True:
        time.sleep(1)


def mark(path):
    Path(path).write_text(str(os.getpid()))
    return os.getpid()


def append(path, text):
    """One write, so that the lines of several processes do not mix."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
    return text


def append_with_pid(path, n):
    append(path, f"{n} {os.getpid()}")
    return n


def die(how):
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def die_once(path):
    if not os.path.exists(path):
        mark(path)
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def reverse(data):
    return data[::-1]


def checksum(data):
    return sum(memoryview(data)[:: max(1, len(data) // 1000)])


def make(size):
    return bytes(range(256)) * (size // 256)


class Array:
    """What a NumPy array is to pickle: an object that gives its buffer away."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        import pickle

        return Array, (pickle.PickleBuffer(self.data),)


def increment(array):
    """Writes to the argument where it lies."""
    view = memoryview(array.data)
    for index in range(0, len(view), 4096):
        view[index] = (view[index] + 1) % 256
    return array


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class UnpicklableError(Exception):
    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class TwoArguments(Exception):
    """Cannot be made again from its `args`, as pickle would."""

    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")


class BreaksWhenLoaded:
    def __reduce__(self):
        return _break, ()


def _break():
    raise LookupError("does not load")


def make_unpicklable():
    return Unpicklable()


def make_what_breaks_when_loaded():
    return BreaksWhenLoaded()


def raise_unpicklable():
    raise UnpicklableError("lost")


def raise_two_arguments():
    raise TwoArguments(7, "because")


def leave(code):
    sys.exit(code)


def use_memory(megabytes):
    import resource

    limit = 400 << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return len(bytearray(megabytes << 20))


def limit_memory_and_read(data):
    return len(data)


def limit_memory(path=None):
    import resource

    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def start_grandchild():
    """A grandchild that keeps every descriptor of the worker open."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False).pid


def fork_grandchild():
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    return child


def sum_by_a_pool_of_its_own(numbers):
    from ropewalk.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=1) as pool:
        return sum(pool.map(cube, numbers))


STATE = {}


def set_state(value):
    STATE["value"] = value


def get_state():
    return STATE.get("value")


def fail_to_initialize():
    raise LookupError("not today")


def worker_facts():
    return {"argv": sys.argv, "path": sys.path, "stdin": sys.stdin.read(), "threads": threading.active_count()}


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))


class SlowToLoad:
    """An argument that says by a file that it is being loaded, and is never through."""

    def __init__(self, path, data):
        self.path, self.data = path, data

    def __reduce_ex__(self, protocol):
        import pickle

        return hang_with, (self.path, pickle.PickleBuffer(self.data))


class SlowToPickle:
    """A result that says by a file that it is being pickled, and is never through."""

    def __init__(self, path, data):
        self.path, self.data = path, data

    def __reduce_ex__(self, protocol):
        hang(self.path)


def hang_with(path, _data):
    hang(path)


def make_slow_to_pickle(path):
    return SlowToPickle(path, bytes(1_000_000))


def hang_in_setup(path, gate):
    """An initializer that hangs until there is a gate."""
    if not os.path.exists(gate):
        hang(path)


def hang_at_exit(path):
    import atexit

    atexit.register(hang, path)


def sleep_and_tell(path, seconds):
    """Tells how it ended."""
    try:
        mark(f"{path}.began")
        time.sleep(seconds)
    except KeyboardInterrupt:
        mark(f"{path}.interrupted")
        raise
    return "slept"
