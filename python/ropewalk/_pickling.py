"""What `pickle` cannot do by itself: the slow road of calls and results between processes.

Workers import it too, so it stands outside `ropewalk.futures`, which takes longer to import than a worker to start.
"""

import io
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable
from typing import Any, ClassVar


def define(function: Any) -> bytes | None:
    """Pickle a function that a worker need be sent only once, or return None for one that goes with each call.

    That is a function of a module: what it does is settled when it is sent. A closure or a lambda may be another thing
    with each call, since what it refers to may have changed.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or getattr(function, "__closure__", None) or not isinstance(name, str):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return None
    return dumps(function)[0] if module == "__main__" else pickle.dumps(function, 5)


def dumps(obj: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle `obj` with lambdas, closures and what is of `__main__` by value, and with multiprocessing's own reducers.

    Returns the pickle and the buffers beside it.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = _dump(obj, buffers.append)
    if b"multiprocessing" in data:
        # It may hold what asks this process for more, and must then show the key.
        from multiprocessing import process

        data = _dump(obj, None)
        return pickle.dumps(_Keyed(bytes(process.current_process().authkey), data), 5), []
    return data, buffers


def _dump(obj: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    file = io.BytesIO()
    _pickler()(file, 5, buffer_callback).dump(obj)
    return file.getvalue()


class _Keyed:
    """A pickle that is loaded once the worker has the program's key."""

    def __init__(self, key: bytes, data: bytes) -> None:
        self._key, self._data = key, data

    def __reduce__(self) -> tuple[Any, tuple[bytes, bytes]]:
        return _load_with_key, (self._key, self._data)


def _load_with_key(key: bytes, data: bytes) -> Any:
    from multiprocessing import process

    process.current_process().authkey = key
    return pickle.loads(data)


_Pickler: Any = None


def _pickler() -> Any:
    global _Pickler
    if _Pickler is None:
        from multiprocessing.reduction import ForkingPickler

        import cloudpickle  # type: ignore[import-untyped]

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            """Cloudpickle's, with the reducers for sockets, connections and what else others have registered."""

            dispatch_table: ClassVar[Any] = ChainMap(
                ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
                cloudpickle.Pickler.dispatch_table,
            )

        _Pickler = Pickler
    return _Pickler


def dump_initializer(initializer: Callable[..., Any], initargs: tuple[Any, ...]) -> bytes:
    """Pickle what each worker calls first, with the locks and queues of multiprocessing that may be in it."""
    from multiprocessing import context, process

    before = context.get_spawning_popen()
    context.set_spawning_popen(_Starting())  # type: ignore[arg-type]
    try:
        data = _dump((initializer, initargs), None)
    finally:
        context.set_spawning_popen(before)
    return pickle.dumps(_Keyed(bytes(process.current_process().authkey), data), 5)


class _Starting:
    """What multiprocessing asks when an object is sent to a process that is being started."""

    @staticmethod
    def DupFd(fd: int) -> Any:
        # The worker may be started later, and more than one of them: each fetches its own.
        from multiprocessing import resource_sharer

        return resource_sharer.DupFd(fd)

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        return fd


def main_module() -> dict[str, Any]:
    """How a worker can import the main module, in multiprocessing's words; empty if it cannot."""
    main = sys.modules.get("__main__")
    if not isinstance(main, types.ModuleType):
        return {}
    from multiprocessing import spawn

    try:
        data = spawn.get_preparation_data("ropewalk")
    except Exception:
        return {}
    return {key: data[key] for key in ("init_main_from_name", "init_main_from_path") if key in data}
