"""CPython's tests of process pools on our ProcessPoolExecutor, for the start methods that make fresh processes.

Left out are the tests that ask for forked workers: that is a ValueError here, by design.
"""

MODULES = ["test.test_concurrent_futures"]

_OWN_CALL_ONLY = "what cannot be loaded fails its own call, with what was raised, and the pool goes on"
_PROCESSES = "looks at the private _processes"
_MANAGER = "looks at the private _executor_manager_thread"

LISTED = {
    f"{executor}{test}": why
    for executor in ("ProcessPoolSpawn", "ProcessPoolForkserver")
    for test, why in {
        "ExecutorDeadlockTest.test_error_at_task_unpickle": _OWN_CALL_ONLY,
        "ExecutorDeadlockTest.test_exit_at_task_unpickle": _OWN_CALL_ONLY,
        "ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler": _OWN_CALL_ONLY,
        "ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler": _OWN_CALL_ONLY,
        "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": _MANAGER,
        "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": _PROCESSES,
        "ProcessPoolExecutorTest.test_idle_process_reuse_one": _PROCESSES,
        "ProcessPoolExecutorTest.test_killed_child": f"{_PROCESSES}; one death does not break the pool",
        "ProcessPoolExecutorTest.test_max_tasks_per_child": _PROCESSES,
        "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "the private _mp_context",
        "ProcessPoolExecutorTest.test_python_finalization_error": "counts the threads that the standard library starts",
        "ProcessPoolExecutorTest.test_saturation": _PROCESSES,
        "ProcessPoolShutdownTest.test_cancel_futures": "cancels whatever no worker has begun, sent or not",
        "ProcessPoolShutdownTest.test_context_manager_shutdown": _PROCESSES,
        "ProcessPoolShutdownTest.test_del_shutdown": _MANAGER,
        "ProcessPoolShutdownTest.test_processes_terminate": _PROCESSES,
        "ProcessPoolShutdownTest.test_shutdown_no_wait": _PROCESSES,
    }.items()
}


def applies(test: str) -> bool:
    return "ProcessPoolSpawn" in test or "ProcessPoolForkserver" in test


def bind() -> None:
    import concurrent.futures
    import concurrent.futures.process

    import ropewalk.futures

    # The futures that the tests make themselves are the standard library's, and so are `wait` and `as_completed`.
    concurrent.futures.ProcessPoolExecutor = ropewalk.futures.ProcessPoolExecutor  # type: ignore[misc]
    concurrent.futures.process.ProcessPoolExecutor = ropewalk.futures.ProcessPoolExecutor  # type: ignore[misc]
