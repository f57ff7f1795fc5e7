"""CPython's tests of asyncio on our loop, Task and Future."""

import sys

_NAMES = (
    "base_events buffered_proto context eager_task_factory events futures futures2 locks pep492 queues runners "
    "sendfile server sock_lowlevel ssl sslproto streams subprocess taskgroups tasks threads timeouts "
    "unix_events waitfor"
)
_SINCE = {"eager_task_factory": 12, "ssl": 11, "taskgroups": 11, "timeouts": 11}

MODULES = [f"test.test_asyncio.test_{name}" for name in _NAMES.split() if sys.version_info[1] >= _SINCE.get(name, 0)]

_TASK = "Task is a subclass of asyncio.Future, as it ships, and not of the Future that is bound here in its place"

_TASKS = "sets the private _unfinished_tasks"

LISTED = {
    "LifoQueueJoinTests.test_format": _TASKS,
    "PriorityQueueJoinTests.test_format": _TASKS,
    "QueueJoinTests.test_format": _TASKS,
    "QueueGetTests.test_get_with_putters": "puts a waiter of its own into the private _putters, here a copy",
    "GenericTaskTests.test_future_subclass": _TASK,
    "CTask_CFuture_Tests.test_set_exception_causes_invalid_state": _TASK,
    "CTask_CFuture_Tests.test_set_result_causes_invalid_state": _TASK,
}


def applies(test: str) -> bool:
    # Tests of the standard library's Python versions of Future and Task, which are not bound here.
    return not test.split(".")[3].startswith("Py")


def bind() -> None:
    import asyncio
    import asyncio.unix_events

    import ropewalk.asyncio

    class Loop(ropewalk.asyncio.EventLoop):
        def __init__(self, selector: object = None) -> None:
            if selector is not None:
                selector.close()  # type: ignore[attr-defined]
            super().__init__()

    asyncio.SelectorEventLoop = asyncio.unix_events.SelectorEventLoop = Loop
    asyncio.EventLoop = Loop  # 3.13's name
    asyncio.DefaultEventLoopPolicy._loop_factory = Loop
    asyncio.Future = asyncio.futures.Future = asyncio.futures._CFuture = ropewalk.asyncio.Future
    asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = ropewalk.asyncio.Task
    for name in ("Queue", "LifoQueue", "PriorityQueue"):
        setattr(asyncio, name, getattr(ropewalk.asyncio, name))
    asyncio.gather = asyncio.tasks.gather = ropewalk.asyncio.gather
    asyncio.QueueShutDown = ropewalk.asyncio.QueueShutDown
