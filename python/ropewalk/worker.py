"""A worker process of a `ropewalk.futures.ProcessPoolExecutor`: what its interpreter runs.

The pool starts it as `python -c "from ropewalk.worker import main; main()"`, with its link as standard input. Nothing
is imported here that a plain call does not need: it is the time that a worker takes to start.
"""

from __future__ import annotations

import sys
from _pickle import loads

from ropewalk import _native

# How to import the program's main module, should anything have to be looked up in it.
_main: dict[str, str] = {}


def main() -> None:
    """Make calls until the pool has no more."""
    _native.work(_set_up, _describe)
    _exit()


def _set_up(data: bytes) -> str | None:
    """Make the process like the program's; return why the worker is of no use, or None."""
    setup = loads(data)
    sys.path[:] = setup["path"]
    sys.argv[:] = setup["argv"]
    _main.update(setup["main"])
    if setup["initializer"] is not None:
        try:
            initializer, initargs = loads(setup["initializer"])
            initializer(*initargs)
        except BaseException as error:
            import logging

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            # The pool ends its workers when it hears of it: what is in multiprocessing's queues goes out before.
            _flush_multiprocessing()
            return (
                "A process in the process pool was terminated abruptly: its initializer failed with "
                f"{type(error).__name__}: {error}"
            )
    return None


def _describe(exception: BaseException) -> str:
    import traceback

    # The frames of this module and of the engine are not there: the engine made the call.
    return "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))


def import_main(error: BaseException) -> bool:
    """Import the program's main module as `__mp_main__`, if that may mend `error`; return whether it was done now.

    Functions and classes of the main module are sent by value. This is for what can only be sent by its name.
    """
    if not _main or not isinstance(error, AttributeError) or "__main__" not in str(error):
        return False
    from multiprocessing import spawn

    description = dict(_main)
    _main.clear()
    spawn.prepare(description)
    return True


def _flush_multiprocessing() -> None:
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.util"]._exit_function()


def _exit() -> None:
    # As a child of multiprocessing ends: threads that are not daemons are waited for, what is registered runs, and the
    # interpreter is not taken apart object by object.
    import atexit
    import os

    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        _flush_multiprocessing()
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105 - contextlib takes longer to import than all the rest of the exit
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        os._exit(0)
