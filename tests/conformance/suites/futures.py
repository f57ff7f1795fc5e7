"""CPython's tests of concurrent.futures on our Future, ThreadPoolExecutor, wait and as_completed."""

MODULES = ["test.test_concurrent_futures"]

LISTED: dict[str, str] = {}


def applies(test: str) -> bool:
    # Process pools have a suite of their own.
    return "Process" not in test


def bind() -> None:
    import concurrent.futures
    import concurrent.futures.thread

    import ropewalk.futures

    for name in ropewalk.futures.__all__:
        for module in (concurrent.futures, concurrent.futures._base, concurrent.futures.thread):
            if hasattr(module, name):
                setattr(module, name, getattr(ropewalk.futures, name))
