"""Handles: what they hold is found by the garbage collector whoever keeps them, and how they are asked for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator

import pytest

from ropewalk.asyncio import EventLoop

Make = Callable[[EventLoop, "Owner"], asyncio.Handle]


class Owner:
    """Keeps a handle whose callback keeps it: a cycle."""

    def __init__(self, loop: EventLoop, make: Make) -> None:
        self.loop = loop
        self.handle = make(loop, self)

    def call(self, *args: object) -> None:
        pass


def soon(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    return loop.call_soon(owner.call, owner)


def soon_with_many(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    return loop.call_soon_threadsafe(print, 1, 2, 3, 4, owner)


def later(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    return loop.call_later(1000, owner.call, owner, owner, owner)


def at_once(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    return loop.call_at(0, owner.call)


def in_context(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    context = contextvars.Context()
    context.run(variable.set, owner)
    return loop.call_later(1000, int, context=context)


def reading(loop: EventLoop, owner: Owner) -> asyncio.Handle:
    return loop._add_reader(loop._ssock, owner.call, owner)  # type: ignore[attr-defined]


variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
all_kinds = pytest.mark.parametrize("make", [soon, soon_with_many, later, at_once, in_context, reading])


@pytest.fixture(autouse=True)
def no_collection_in_between() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def turn(loop: EventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def collected(ref: weakref.ref[Owner]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of a loop that nobody closed
        gc.collect()
    return ref() is None


@all_kinds
def test_a_cycle_through_a_pending_handle_lives_as_long_as_the_loop(loop: EventLoop, make: Make) -> None:
    ref = weakref.ref(Owner(loop, make))
    assert not collected(ref)
    owner = ref()
    assert owner is not None
    assert owner.handle._callback is not None  # type: ignore[attr-defined]


@all_kinds
def test_a_cycle_through_a_handle_of_a_dropped_loop_is_collected(make: Make) -> None:
    ref = weakref.ref(Owner(EventLoop(), make))
    assert collected(ref)


@all_kinds
def test_a_cycle_through_a_handle_of_a_closed_loop_is_collected(loop: EventLoop, make: Make) -> None:
    ref = weakref.ref(Owner(loop, make))
    loop.close()
    assert collected(ref)


@all_kinds
def test_a_cycle_through_a_cancelled_handle_is_collected(loop: EventLoop, make: Make) -> None:
    owner = Owner(loop, make)
    owner.handle.cancel()
    ref = weakref.ref(owner)
    del owner
    loop._remove_reader(loop._ssock)  # type: ignore[attr-defined]
    # Its context is a cancelled timer's still, which waits among the others.
    assert collected(ref) == (make is not in_context)
    for _ in range(100):
        loop.call_later(1000, print).cancel()
    assert collected(ref)


@pytest.mark.parametrize("make", [soon, soon_with_many, at_once])
def test_a_cycle_through_a_handle_that_has_run_is_collected(loop: EventLoop, make: Make) -> None:
    ref = weakref.ref(Owner(loop, make))
    turn(loop)
    assert collected(ref)


def test_a_cycle_that_a_callback_raises_through_is_collected(loop: EventLoop) -> None:
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["handle"]))
    owner = Owner(loop, lambda loop, owner: loop.call_soon(lambda: owner.missing))  # type: ignore[attr-defined]
    ref = weakref.ref(owner)
    turn(loop)
    assert reports == [owner.handle]
    reports.clear()
    del owner
    assert collected(ref)


def test_a_handler_may_cancel_the_handle_whose_callback_raised(loop: EventLoop) -> None:
    reports: list[asyncio.Handle] = []

    def handler(_: object, context: dict[str, asyncio.Handle]) -> None:
        context["handle"].cancel()
        reports.append(context["handle"])

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    turn(loop)
    (handle,) = reports
    assert handle.cancelled()


def test_a_callback_may_cancel_its_handle_by_a_weak_reference_or_what_the_collector_finds(loop: EventLoop) -> None:
    done: list[str] = []

    def by_reference() -> None:
        refs[0]().cancel()  # type: ignore[union-attr]
        done.append("weak reference")

    def by_collector() -> None:
        for handle in gc.get_referrers(by_collector):
            if isinstance(handle, asyncio.Handle):
                handle.cancel()
                done.append("collector")

    handles = [loop.call_soon(by_reference), loop.call_soon(by_collector)]
    refs = [weakref.ref(handle) for handle in handles[:1]]
    gc.collect()  # tracks them
    handles.clear()
    turn(loop)
    assert done == ["weak reference", "collector"]


def test_a_result_that_cannot_be_set_is_reported(loop: EventLoop) -> None:
    reports: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    future = loop.create_future()
    handle = loop.call_soon(future.set_result, 1)
    loop.call_soon(future.set_result, 2)
    turn(loop)
    assert future.result() == 1
    assert not handle.cancelled()
    (report,) = reports
    assert isinstance(report["exception"], asyncio.InvalidStateError)
    assert "Future.set_result(" in str(report["message"])


def test_a_young_collection_leaves_alone_what_a_kept_handle_holds(loop: EventLoop) -> None:
    seen: list[object] = []
    handles = [loop.call_soon(lambda n=n: seen.append(n)) for n in range(1000)]
    gc.collect(0)
    gc.collect(1)
    del handles[::2]
    gc.collect(0)
    gc.collect(2)
    turn(loop)
    assert seen == list(range(1000))


def test_a_handle_that_is_weakly_referenced_tells_when_it_is_gone(loop: EventLoop) -> None:
    gone: list[str] = []
    handles = [weakref.ref(loop.call_soon(int), lambda _: gone.append("soon"))]
    handles.append(weakref.ref(loop.call_at(0, int), lambda _: gone.append("at")))
    turn(loop)
    assert sorted(gone) == ["at", "soon"]
    assert [handle() for handle in handles] == [None, None]


@pytest.mark.parametrize("count", range(7))
def test_a_callback_gets_its_arguments_however_many(loop: EventLoop, count: int) -> None:
    arguments = [object() for _ in range(count)]
    seen: list[tuple[object, ...]] = []
    handle = loop.call_soon(lambda *args: seen.append(args), *arguments)
    loop.call_soon_threadsafe(lambda *args: seen.append(args), *arguments)
    loop.call_later(0, lambda *args: seen.append(args), *arguments)
    loop.call_at(0, lambda *args: seen.append(args), *arguments)
    assert handle._args == tuple(arguments)  # type: ignore[attr-defined]
    while len(seen) < 4:
        turn(loop)
    assert seen == [tuple(arguments)] * 4


def test_a_callback_may_cancel_its_own_handle(loop: EventLoop) -> None:
    seen: list[object] = []

    def cancel(*args: object) -> None:
        handle.cancel()
        seen.append(args)

    handle = loop.call_soon(cancel, [1], [2])
    turn(loop)
    assert seen == [([1], [2])]
    assert handle.cancelled()
    assert handle._args is None  # type: ignore[attr-defined]


def test_arguments_may_be_given_by_name(loop: EventLoop) -> None:
    context = contextvars.copy_context()
    assert loop.call_soon(callback=print)._callback is print  # type: ignore[attr-defined]
    assert loop.call_soon_threadsafe(print, 1, context=context)._context is context  # type: ignore[attr-defined]
    assert loop.call_at(when=1.5, callback=print).when() == 1.5
    assert loop.call_later(1000, callback=print, context=None)._callback is print  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda loop: loop.call_soon(), "call_soon() missing 1 required positional argument: 'callback'"),
        (lambda loop: loop.call_later(1), "call_later() missing 1 required positional argument: 'callback'"),
        (lambda loop: loop.call_at(), "call_at() missing 2 required positional arguments: 'when' and 'callback'"),
        (lambda loop: loop.call_soon(print, x=1), "call_soon() got an unexpected keyword argument 'x'"),
        (lambda loop: loop.call_soon(print, callback=1), "call_soon() got multiple values for argument 'callback'"),
        (lambda loop: loop.call_later(None, print), "delay must not be None"),
        (lambda loop: loop.call_at(None, print), "when cannot be None"),
    ],
)
def test_wrong_arguments_are_refused(loop: EventLoop, call: Callable[[EventLoop], object], message: str) -> None:
    with pytest.raises(TypeError) as error:
        call(loop)
    assert str(error.value) == message


def test_only_the_loop_makes_handles(loop: EventLoop) -> None:
    for handle in (loop.call_soon(print), loop.call_later(1, print)):
        with pytest.raises(TypeError, match="cannot create"):
            type(handle)()


def test_handles_made_after_others_were_freed_are_whole(loop: EventLoop) -> None:
    seen: list[int] = []
    for round_ in range(3):
        for n in range(2000):  # more than are kept for reuse
            loop.call_soon(seen.append, n)
            loop.call_later(1000, seen.append, -1).cancel()
        turn(loop)
        assert len(seen) == 2000 * (round_ + 1)
    assert seen == list(range(2000)) * 3


@pytest.mark.parametrize(
    "make", [lambda loop, last: loop.call_soon(print, last), lambda loop, last: loop.call_later(1000, lambda: last)]
)
def test_a_long_chain_of_handles_is_freed(loop: EventLoop, make: Callable[[EventLoop, object], object]) -> None:
    last: object = None
    for _ in range(100_000):
        last = make(loop, last)
    first = weakref.ref(last)
    loop.close()
    del last
    assert first() is None
