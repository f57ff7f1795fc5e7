"""The process pool when things go wrong: deaths at every moment, what cannot be sent, forks, signals, leaks.

Nothing here depends on how fast the machine is: moments are steered by files that a call makes or waits for, and
limits of time only guard against hangs.
"""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import calls
import pytest

from ropewalk.futures import BrokenProcessPool, ProcessPoolExecutor, WorkerDied, as_completed

HANG = 60
HERE = Path(__file__).parent


def until(condition, what="it"):
    end = time.monotonic() + HANG
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} never came about"
        time.sleep(0.001)
    return found


def content(path):
    """What a call has written to a file, once it is there."""
    return until(lambda: path.exists() and path.read_text(), str(path))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill(pid, how=signal.SIGKILL):
    os.kill(int(pid), how)


DEATHS = {"exit": (None, 3), "segfault": (signal.SIGSEGV, -11), "SIGKILL": (signal.SIGKILL, -9), "SIGABRT": (6, -6)}


@pytest.fixture
def single():
    with ProcessPoolExecutor(max_workers=1) as pool:
        yield pool


@pytest.mark.parametrize("how", DEATHS)
def test_a_death_fails_the_running_call_alone_and_says_of_what(single, how):
    before = [single.submit(calls.cube, n) for n in range(20)]
    dies = single.submit(calls.die, how)
    after = [single.submit(calls.cube, n) for n in range(20)]
    with pytest.raises(WorkerDied) as raised:
        dies.result(HANG)
    number, exitcode = DEATHS[how]
    assert (raised.value.signal, raised.value.exitcode) == (number, exitcode)
    assert str(raised.value.pid) in str(raised.value)
    assert isinstance(raised.value, BrokenProcessPool)
    assert [future.result(HANG) for future in before + after] == [n**3 for n in range(20)] * 2
    assert single.statistics().restarts == 1


def test_out_of_memory_is_an_exception_of_its_call(single):
    single.submit(calls.limit_memory).result(HANG)
    with pytest.raises(MemoryError):
        single.submit(bytearray, 1 << 30).result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_a_worker_without_memory_for_its_argument_fails_that_call_alone(single):
    single.submit(calls.limit_memory).result(HANG)
    with pytest.raises((MemoryError, OSError, WorkerDied)):
        single.submit(calls.checksum, bytes(200_000_000)).result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_a_worker_without_memory_for_its_result_fails_that_call_alone(single):
    single.submit(calls.limit_memory).result(HANG)
    with pytest.raises((MemoryError, OSError, WorkerDied)):
        single.submit(calls.make, 200_000_000).result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_an_idle_worker_that_dies_is_replaced_unnoticed(single):
    worker = single.submit(calls.pid).result(HANG)
    kill(worker)
    until(lambda: single.statistics().restarts == 1)
    assert single.submit(calls.pid).result(HANG) != worker


def test_a_call_sent_to_a_worker_that_is_just_dying_is_made_by_another(single):
    for _ in range(20):
        kill(single.submit(calls.pid).result(HANG))
        # Whether or not the death has been noticed: the call had not begun, so nothing is lost.
        future = single.submit(calls.cube, 2)
        assert future.result(HANG) == 8


def test_death_while_an_argument_is_read(single, tmp_path):
    path = tmp_path / "loading"
    future = single.submit(calls.show, calls.SlowToLoad(str(path), bytes(1_000_000)))
    after = single.submit(calls.cube, 2)
    kill(content(path))
    with pytest.raises(WorkerDied):
        future.result(HANG)
    assert after.result(HANG) == 8


def test_death_while_a_result_is_written(single, tmp_path):
    path = tmp_path / "pickling"
    future = single.submit(calls.make_slow_to_pickle, str(path))
    after = single.submit(calls.cube, 2)
    kill(content(path))
    with pytest.raises(WorkerDied):
        future.result(HANG)
    assert after.result(HANG) == 8


def test_deaths_at_any_moment_of_large_transfers():
    data = calls.make(2_000_000)
    with ProcessPoolExecutor(max_workers=2) as pool:
        futures = [pool.submit_with(calls.reverse, data, retries=1000) for _ in range(30)]
        dice = random.Random(7)
        for future in futures:
            if pids := pool._pids():
                with suppress(ProcessLookupError):  # one that was killed before and buried since
                    kill(dice.choice(pids))
            assert future.result(HANG) == data[::-1]


def test_death_during_start(tmp_path):
    path, gate = tmp_path / "setup", tmp_path / "gate"
    with ProcessPoolExecutor(1, initializer=calls.hang_in_setup, initargs=(str(path), str(gate))) as pool:
        future = pool.submit(calls.cube, 2)
        for _ in range(5):
            worker = content(path)
            path.unlink()
            kill(worker)
        content(path)
        gate.write_text("open")
        kill(pool._pids()[0])
        assert future.result(HANG) == 8


def test_death_during_shutdown(tmp_path):
    path = tmp_path / "exiting"
    pool = ProcessPoolExecutor(1, initializer=calls.hang_at_exit, initargs=(str(path),))
    assert pool.submit(calls.cube, 2).result(HANG) == 8
    thread = threading.Thread(target=pool.shutdown)
    thread.start()
    kill(content(path))
    thread.join(HANG)
    assert not thread.is_alive()


def test_a_worker_that_never_gets_ready_breaks_the_pool():
    with ProcessPoolExecutor(1, initializer=os._exit, initargs=(5,)) as pool:
        with pytest.raises(BrokenProcessPool, match="exited with code 5 before it was ready"):
            pool.submit(calls.cube, 2).result(HANG)
        with pytest.raises(BrokenProcessPool):
            pool.submit(calls.cube, 2)


def test_an_interpreter_that_cannot_be_started_breaks_the_pool(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/nowhere/python")
    with ProcessPoolExecutor(1) as pool, pytest.raises(BrokenProcessPool, match="cannot start a worker process"):
        pool.submit(calls.cube, 2).result(HANG)


def test_a_thousand_calls_with_workers_killed_at_random(tmp_path):
    """Every result but those of the killed calls is right; nothing is lost, and nothing happens twice."""
    log = tmp_path / "log"
    over = threading.Event()
    with ProcessPoolExecutor(max_workers=2) as pool:

        def assassin():
            # Kills a worker at any moment of its work, but not before it has done any: on a slow machine none would
            # get that far.
            dice = random.Random(1)
            while not over.wait(0.02):
                lines = log.read_text().splitlines()[-20:] if log.exists() else []
                if at_work := {int(line.split()[1]) for line in lines} & set(pool._pids()):
                    with suppress(ProcessLookupError):
                        kill(dice.choice(sorted(at_work)))

        thread = threading.Thread(target=assassin)
        futures = [pool.submit(calls.append_with_pid, str(log), n) for n in range(1000)]
        thread.start()
        try:
            died = set()
            for n, future in enumerate(futures):
                try:
                    assert future.result(HANG) == n
                except WorkerDied:
                    died.add(n)
        finally:
            over.set()
            thread.join()
    written = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert max(written.values()) == 1
    assert set(range(1000)) - died <= set(written)


def test_retries_end_when_they_are_used_up(single, tmp_path):
    path = str(tmp_path / "once")
    assert single.submit_with(calls.die_once, path, retries=1).result(HANG) > 0
    with pytest.raises(WorkerDied):
        single.submit_with(calls.die, "SIGKILL", retries=2).result(HANG)
    assert single.statistics().restarts == 1 + 3


def test_cancelling_running_calls_again_and_again_hits_no_other(tmp_path):
    with ProcessPoolExecutor(max_workers=2) as pool:
        for _ in range(20):
            futures = [pool.submit(calls.cube, n) for n in range(50)]
            for future in futures[::5]:
                future.cancel(running=True)
            for n, future in enumerate(futures):
                if not future.cancelled():
                    assert future.result(HANG) == n**3


# --- what cannot be sent ---------------------------------------------------------------------------------------------


def test_an_argument_that_cannot_be_pickled_fails_its_own_future(single):
    future = single.submit(calls.show, calls.Unpicklable())
    with pytest.raises(RuntimeError, match="not to be pickled"):
        future.result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_an_argument_that_cannot_be_loaded_fails_its_own_future(single):
    worker = single.submit(calls.pid).result(HANG)
    with pytest.raises(LookupError, match="does not load"):
        single.submit(calls.show, calls.BreaksWhenLoaded()).result(HANG)
    assert single.submit(calls.pid).result(HANG) == worker


def test_a_result_that_cannot_be_pickled_fails_its_own_future(single):
    worker = single.submit(calls.pid).result(HANG)
    with pytest.raises(RuntimeError, match="not to be pickled"):
        single.submit(calls.make_unpicklable).result(HANG)
    assert single.submit(calls.pid).result(HANG) == worker


def test_a_result_that_cannot_be_loaded_fails_its_own_future(single):
    with pytest.raises(LookupError, match="does not load"):
        single.submit(calls.make_what_breaks_when_loaded).result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_an_exception_that_cannot_be_pickled_leaves_its_traceback(single):
    with pytest.raises(RuntimeError, match="not to be pickled") as raised:
        single.submit(calls.raise_unpicklable).result(HANG)
    assert "UnpicklableError: lost" in str(raised.value.__cause__)


def test_an_exception_whose_constructor_wants_other_arguments_leaves_its_traceback(single):
    with pytest.raises(TypeError) as raised:
        single.submit(calls.raise_two_arguments).result(HANG)
    assert "TwoArguments: 7: because" in str(raised.value.__cause__)
    assert single.submit(calls.cube, 2).result(HANG) == 8


def test_a_function_whose_module_is_not_there_fails_its_own_future(single, tmp_path, monkeypatch):
    (tmp_path / "passing_module.py").write_text("def f():\n    return 1\n")
    single.submit(calls.cube, 1).result(HANG)
    monkeypatch.syspath_prepend(str(tmp_path))
    import passing_module

    with pytest.raises(ModuleNotFoundError):
        single.submit(passing_module.f).result(HANG)
    assert single.submit(calls.cube, 2).result(HANG) == 8


# --- large and many --------------------------------------------------------------------------------------------------


def test_a_result_of_a_gigabyte():
    with ProcessPoolExecutor(1) as pool:
        result = pool.submit(calls.make, 1 << 30).result(HANG)
        assert len(result) == 1 << 30
        assert result[:256] == result[-256:] == bytes(range(256))


def test_a_hundred_thousand_pending_calls(tmp_path):
    gate = str(tmp_path / "gate")
    with ProcessPoolExecutor(2) as pool:
        gates = [pool.submit(calls.wait_for, gate) for _ in range(2)]
        futures = [pool.submit(calls.cube, n) for n in range(100_000)]
        calls.mark(gate)
        assert sum(future.result(HANG) for future in futures) == sum(n**3 for n in range(100_000))
        assert all(future.result(HANG) for future in gates)


def test_more_large_arguments_than_there_are_descriptors():
    script = """
        import resource, calls
        from ropewalk.futures import ProcessPoolExecutor
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        data = bytes(100_000)
        with ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(len, data) for _ in range(300)]
            print(sum(future.result() for future in futures))
    """
    assert run(script).stdout == "30000000\n"


def test_submits_of_many_threads_do_not_mix():
    with ProcessPoolExecutor(2) as pool:
        wrong = []

        def submit(base):
            for n in range(base, base + 200):
                if pool.submit(calls.cube, n).result(HANG) != n**3:
                    wrong.append(n)

        threads = [threading.Thread(target=submit, args=(1000 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_as_completed_over_futures_that_many_threads_end():
    with ProcessPoolExecutor(2) as one, ProcessPoolExecutor(2) as other:
        futures = [pool.submit(calls.cube, n) for n in range(500) for pool in (one, other)]
        for future in futures[::7]:
            future.cancel()
        assert set(as_completed(futures, HANG)) == set(futures)


# --- the program: forks, signals, its end ----------------------------------------------------------------------------


def start(script, **kwargs):
    # From 3.12 on a fork of a program with threads is warned of, and every program with a pool has threads.
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        **kwargs,
    )


def run(script):
    program = start(script)
    out, err = program.communicate(timeout=HANG)
    assert program.returncode == 0, err
    assert err == ""
    return subprocess.CompletedProcess(program.args, 0, out, err)


BUSY = """
    import os, sys, time, calls
    from ropewalk.futures import ProcessPoolExecutor
    pool = ProcessPoolExecutor(2)
    pool.warm_up()
    futures = [pool.submit(time.sleep, 600) for _ in range(4)]
    {more}
    print(*pool._pids(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("more", ["", "child = os.fork() or time.sleep(600)"], ids=["alone", "forked"])
def test_no_worker_is_left_when_the_program_is_killed(more):
    program = start(BUSY.format(more=more), start_new_session=True)
    try:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(is_gone, pids))
        program.kill()
        program.wait()
        for pid in pids:
            until(lambda pid=pid: is_gone(pid), f"the end of worker {pid}")
    finally:
        # The child of the fork.
        os.killpg(program.pid, signal.SIGKILL) if more else None
        program.communicate()


def test_a_worker_that_starts_while_the_program_is_killed_ends():
    for _ in range(5):
        program = start(
            """
            import time
            from ropewalk.futures import ProcessPoolExecutor
            pool = ProcessPoolExecutor(2)
            future = pool.submit(time.sleep, 600)
            while not (pids := pool._pids()): pass
            print(*pids, flush=True)
            time.sleep(600)
            """
        )
        pids = program.stdout.readline().split()
        program.kill()
        program.communicate()
        for pid in pids:
            until(lambda pid=pid: is_gone(pid), f"the end of worker {pid}")


def test_a_fork_of_the_program_cannot_use_the_pool_and_does_not_disturb_it():
    script = """
        import os, calls
        from concurrent.futures.process import BrokenProcessPool
        from ropewalk.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(calls.cube, n) for n in range(2000)]
            child = os.fork()
            if child == 0:
                try:
                    pool.submit(calls.cube, 1)
                except BrokenProcessPool as error:
                    assert "forked" in str(error), error
                    futures[-1].cancel()
                    pool.shutdown()
                    del pool, futures
                    with ProcessPoolExecutor(1) as own:
                        os._exit(own.submit(calls.cube, 3).result())
                os._exit(1)
            print(sum(future.result() for future in futures) == sum(n**3 for n in range(2000)))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(script).stdout == "True\n27\n"


def test_the_program_may_wait_for_children_itself():
    script = """
        import os, time, calls
        from ropewalk.futures import ProcessPoolExecutor, WorkerDied
        with ProcessPoolExecutor(1) as pool:
            pool.submit(calls.cube, 2).result()
            try:
                future = pool.submit(os._exit, 3)
                while not future.done():
                    try:
                        os.waitpid(-1, os.WNOHANG)
                    except ChildProcessError:
                        pass
                future.result()
            except WorkerDied as error:
                print(error.exitcode in (3, None))
            print(pool.submit(calls.cube, 2).result())
    """
    assert run(script).stdout == "True\n8\n"


CTRL_C = """
    import time, calls
    from ropewalk.futures import ProcessPoolExecutor
    pool = ProcessPoolExecutor(1)
    try:
        with pool:
            future = pool.submit(calls.sleep_and_tell, {path!r}, 600)
            queued = pool.submit(calls.cube, 2)
            print("ready", flush=True)
            {wait}
    except KeyboardInterrupt:
        print("interrupted", queued.result(), type(future.exception()).__name__)
"""


@pytest.mark.parametrize(
    "wait",
    ["future.result()", "list(pool.map(calls.cube, [1]))", "pool.shutdown()", "time.sleep(600)"],
    ids=["result", "map", "shutdown", "outside"],
)
def test_ctrl_c_interrupts_the_program_and_the_call_that_runs(wait, tmp_path):
    path = tmp_path / "call"
    program = start(CTRL_C.format(path=str(path), wait=wait))
    content(Path(f"{path}.began"))
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=HANG)
    assert (out, err) == ("interrupted 8 KeyboardInterrupt\n", "")
    assert Path(f"{path}.interrupted").exists()


def test_the_terminals_ctrl_c_does_not_reach_the_workers_by_itself(single, tmp_path):
    worker = single.submit(calls.pid).result(HANG)
    assert os.getpgid(worker) != os.getpgid(0)


def test_an_interrupt_that_finds_no_call_running_hits_none(single):
    worker = single.submit(calls.pid).result(HANG)
    for n in range(50):
        kill(worker, signal.SIGINT)
        # It may still hit this one, which then fails with KeyboardInterrupt; the worker goes on.
        error = single.submit(calls.cube, n).exception(HANG)
        assert error is None or isinstance(error, KeyboardInterrupt)
    assert single.submit(calls.pid).exception(HANG) is None or single.submit(calls.pid).result(HANG) == worker


def test_interpreter_exit_without_shutdown_finishes_what_is_pending(tmp_path):
    log = tmp_path / "log"
    script = f"""
        import calls
        from ropewalk.futures import ProcessPoolExecutor
        pool = ProcessPoolExecutor(2)
        for n in range(100):
            pool.submit(calls.append, {str(log)!r}, n).add_done_callback(lambda _: None)
        print("end")
    """
    assert run(script).stdout == "end\n"
    assert sorted(map(int, log.read_text().split())) == list(range(100))


def test_interpreter_exit_with_an_exception_ends_too():
    program = start(
        """
        import calls
        from ropewalk.futures import ProcessPoolExecutor
        pool = ProcessPoolExecutor(2)
        print(pool.submit(calls.cube, 2).result())
        raise SystemExit(7)
        """
    )
    out, err = program.communicate(timeout=HANG)
    assert (program.returncode, out, err) == (7, "8\n", "")


@pytest.mark.parametrize("how", [calls.start_grandchild, calls.fork_grandchild])
def test_a_grandchild_that_holds_the_workers_files_hides_nothing(single, how):
    grandchild = single.submit(how).result(HANG)
    try:
        with pytest.raises(WorkerDied):
            single.submit(calls.die, "SIGKILL").result(HANG)
        assert single.submit(calls.cube, 2).result(HANG) == 8
        single.shutdown()
    finally:
        kill(grandchild)


def children():
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_exists(fd))


def shared_mappings():
    return Path("/proc/self/maps").read_text().count("memfd:ropewalk")


def fd_exists(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_nothing_leaks_from_two_hundred_pools():
    def use(n):
        with ProcessPoolExecutor(1) as pool:
            if n % 20 == 0:
                array = pool.submit(calls.increment, calls.Array(bytearray(200_000))).result(HANG)
                assert memoryview(array.data)[0] == 1
                with pytest.raises(WorkerDied):
                    pool.submit(calls.die, "SIGKILL").result(HANG)
            elif n % 4 == 0:
                assert pool.submit(calls.cube, n).result(HANG) == n**3

    use(0)
    gc.collect()
    before, mapped = descriptors(), shared_mappings()
    for n in range(200):
        use(n)
    gc.collect()
    assert descriptors() == before
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "ropewalk-notifier"])
    assert shared_mappings() <= mapped
    zombies = [pid for pid in Path("/proc").glob("[0-9]*") if is_zombie_of_ours(pid)]
    assert zombies == []


def is_zombie_of_ours(path):
    try:
        state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "Z" and int(parent) == os.getpid()
