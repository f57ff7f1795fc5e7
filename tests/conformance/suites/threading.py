"""CPython's tests of threads on our Event, by which every `threading.Thread` then tells that it has started."""

import sys

MODULES = ["test.test_threading"]

LISTED = {
    "EventTests.test_at_fork_reinit": "looks at the private _cond; there is no lock in our Event",
    "MiscTestCase.test__all__": "asks for Event's home to be the module threading",
    "ThreadTests.test_import_from_another_thread": "asks that threading be not imported yet, which binding does",
}
if sys.version_info >= (3, 11):
    LISTED["EventTests.test_repr"] = (
        "its pattern has no room for a dot in the module's name; ours is ropewalk.threading"
    )


def bind() -> None:
    import threading

    import ropewalk.threading

    threading.Event = ropewalk.threading.Event  # type: ignore[misc,assignment]
