"""`EventLoop`: what runs once for a run or a connection; the rest is `ropewalk._native.Loop`."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import atexit
import contextlib
import gc
import selectors
import signal
import socket
import sys
import threading
import time
import weakref
from asyncio import events, sslproto
from asyncio.futures import _copy_future_state  # type: ignore[attr-defined]
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ropewalk.futures
from ropewalk import _native
from ropewalk.asyncio.transports import SocketTransport

Future, Task = _native.loop_types()


if TYPE_CHECKING:

    class _Asyncio(asyncio.SelectorEventLoop):
        """What asyncio's loop has and its stubs do not tell."""

        _default_executor: Any
        _thread_id: Any
        _csock: Any
        _signal_handlers: Any
        _asyncgen_firstiter_hook: Any
        _asyncgen_finalizer_hook: Any

        def __init__(self, selector: Any) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_default_executor(self) -> None: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...
        def _check_running(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...

else:
    _Asyncio = asyncio.SelectorEventLoop


# Its methods take any argument types, where asyncio's stubs match those of the callback.
class EventLoop(_native.Loop, _Asyncio):  # type: ignore[misc]
    """An event loop: `asyncio.SelectorEventLoop` on ropewalk's engine.

    Tasks and futures that it makes are `ropewalk.asyncio.Task` and `Future`, subclasses of asyncio's. A loop is used by
    one thread at a time; from others, use `call_soon_threadsafe`. A child process of `fork` must not use it.

    >>> loop = EventLoop()
    >>> loop.run_until_complete(asyncio.sleep(0, "done"))
    'done'
    >>> loop.close()
    """

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        _loops.add(self)

    def run_forever(self) -> None:
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
            events._set_running_loop(self)
            with self._woken_by_signals():
                self._run()
        finally:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Let signals write to the loop, so that one that comes just before the loop sleeps wakes it."""
        if threading.current_thread() is not threading.main_thread():
            _elsewhere.add(self)
            try:
                yield
            finally:
                _elsewhere.discard(self)
            return
        fd = self._csock.fileno()
        before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        ours = before in (-1, fd)
        if not ours:
            signal.set_wakeup_fd(before)  # the user's own
        try:
            yield
        finally:
            if ours and not self._signal_handlers:  # these need it between runs, too
                now = signal.set_wakeup_fd(-1)
                if now != fd:
                    signal.set_wakeup_fd(now)

    def close(self) -> None:
        super().close()
        self._empty()

    def _make_socket_transport(
        self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
    ) -> SocketTransport:
        self._ensure_fd_no_transport(sock)
        return SocketTransport(self, sock, protocol, waiter, extra, server)

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        **options: Any,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        tls: Any = sslproto.SSLProtocol(self, protocol, sslcontext, waiter, **options)
        SocketTransport(self, rawsock, tls, extra=extra, server=server)
        return tls._app_transport

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        if executor is None and self._default_executor is None and not self._closed:
            self._default_executor = ropewalk.futures.ThreadPoolExecutor(thread_name_prefix="asyncio")
        if executor is not None or self._debug or not isinstance(self._default_executor, ropewalk.futures.Executor):
            return super().run_in_executor(executor, func, *args)
        # What asyncio's `wrap_future` comes to, with fewer calls.
        self._check_closed()
        self._check_default_executor()
        call = self._default_executor.submit(func, *args)
        future = self.create_future()

        def depart(_: object) -> None:
            # The loop may be closed by the time that the call is done: then no one waits.
            with contextlib.suppress(RuntimeError):
                self.call_soon_threadsafe(_copy_future_state, call, future)

        def follow(_: object) -> None:
            if future.cancelled():
                call.cancel()

        future.add_done_callback(follow)
        call.add_done_callback(depart)
        return future

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if _is_literal(host) and (port is None or isinstance(port, int)) and not self._debug:
            # Nothing to look up: no thread is needed, and no one waits.
            return socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)


_loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()


def _before_collection(phase: str, info: dict[str, int]) -> None:
    """Have a full collection see the pending handles that somebody keeps, which are not tracked before."""
    if phase == "start" and info["generation"] == 2:
        for loop in list(_loops):
            loop._track_kept()


gc.callbacks.append(_before_collection)


# Loops that run in other threads than the main one.
_elsewhere: set[EventLoop] = set()


class _AtExit:
    """Halts the loops of daemon threads once every function registered with `atexit` has run, whatever their order.

    The registration is the only one to refer to the instance, and is dropped then.
    """

    ending = False

    def __call__(self) -> None:
        self.ending = True

    def __del__(self) -> None:
        if self.ending:
            _halt()


atexit.register(_AtExit())


def _halt() -> None:
    """Halt the loops of daemon threads, waiting a second for busy ones.

    An interpreter that ends takes such a thread away where it next runs Python: the process aborts if Rust called that.
    """
    alive = {thread.ident for thread in threading.enumerate()}  # not those of a forked child's parent
    loops = [loop for loop in list(_elsewhere) if loop._thread_id in alive]
    halted: list[None] = []
    for loop in loops:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(_native.halt, halted)
    deadline = time.monotonic() + 1
    while len(halted) < sum(loop in _elsewhere for loop in loops) and time.monotonic() < deadline:
        time.sleep(0.001)


class _Selector:
    """Stands where asyncio keeps a selector, for those who look: the engine polls."""

    def __init__(self, event_loop: EventLoop) -> None:
        self._loop = weakref.ref(event_loop)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        event_loop = self._loop()
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        events = event_loop._interest(fd) if event_loop else 0
        if not events:
            raise KeyError(f"{fileobj!r} is not registered")
        return selectors.SelectorKey(fileobj, fd, events, None)

    def close(self) -> None:
        pass


def _is_literal(host: object) -> bool:
    if isinstance(host, str):
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError, ValueError):
                socket.inet_pton(family, host)
                return True
    return False


class _Tasks(weakref.WeakSet[Any]):
    """asyncio's set of all tasks, with the native ones, which a list links, added when it is looked through."""

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield from _native.all_tasks()


# The set's class is changed, since `_asyncio` holds the set itself.
for _name in ("_all_tasks", "_scheduled_tasks"):
    if hasattr(asyncio.tasks, _name):
        getattr(asyncio.tasks, _name).__class__ = _Tasks
