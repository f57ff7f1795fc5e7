"""CPython's tests of concurrent.futures on our Future, ThreadPoolExecutor, wait and as_completed."""

MODULES = ["test.test_concurrent_futures"]

# Bound by the suite `processes`.
PROCESSES = {"BrokenProcessPool", "ProcessPoolExecutor", "WorkerDied"}

LISTED: dict[str, str] = {}


def applies(test: str) -> bool:
    # Process pools have a suite of their own.
    return "Process" not in test


def bind() -> None:
    import concurrent.futures
    import concurrent.futures.thread

    import ropewalk.futures

    class Future(ropewalk.futures.Future[object]):
        """The tests make futures in a given state by writing `_state`, `_exception` and then `_result`.

        Ours get there by the steps that an executor would take.
        """

        @property
        def _state(self) -> str:
            return super()._state

        @_state.setter
        def _state(self, state: str) -> None:
            self.wanted = state

        @property
        def _exception(self) -> None: ...

        @_exception.setter
        def _exception(self, exception: BaseException | None) -> None:
            if exception is not None:
                self.set_running_or_notify_cancel()
                self.set_exception(exception)

        @property
        def _result(self) -> None: ...

        @_result.setter
        def _result(self, result: object) -> None:
            if self.wanted.startswith("CANCELLED"):
                self.cancel()
            if (self.wanted not in ("PENDING", "CANCELLED") and not self.done()) or self.wanted.endswith("NOTIFIED"):
                self.set_running_or_notify_cancel()
            if self.running() and self.wanted == "FINISHED":
                self.set_result(result)

    ropewalk.futures.Future = Future
    for name in set(ropewalk.futures.__all__) - PROCESSES:
        for module in (concurrent.futures, concurrent.futures._base, concurrent.futures.thread):
            if hasattr(module, name):
                setattr(module, name, getattr(ropewalk.futures, name))
