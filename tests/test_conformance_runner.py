"""The runner of CPython's own tests, on a suite made up here: it must see every way in which a test can end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "conformance" / "run.py"

TESTS = """
import os, unittest
from test.support.script_helper import assert_python_ok

value = "unbound"

class Case(unittest.TestCase):
    def test_passes(self): pass
    def test_is_bound(self): self.assertEqual(value, "bound")
    def test_child_is_bound(self):
        done = assert_python_ok("-c", "import cases\\nprint(cases.value)")
        self.assertEqual(done.out.strip(), b"bound")
    def test_fails(self): self.fail("as it must")
    def test_raises(self): raise KeyError("missing")
    def test_fails_in_a_subtest(self):
        with self.subTest(number=7): self.fail("inside")
    @unittest.skip("no reason")
    def test_is_skipped(self): pass
    @unittest.expectedFailure
    def test_fails_as_expected(self): self.fail()
    @unittest.expectedFailure
    def test_passes_unexpectedly(self): pass
    def test_kills_its_process(self): os.abort()
    def test_hangs(self): __import__("time").sleep(1000)
    def test_z_runs_after_all_those(self): pass
    def test_of_something_else(self): self.fail()
"""

SUITE = """
MODULES = ["cases"]
LISTED = {listed!r}
def applies(test): return not test.endswith("test_of_something_else")
def bind():
    import sys; sys.path.insert(0, {folder!r})
    import cases; cases.value = "bound"
"""

HANGS = {"test_hangs": "not run: it hangs"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a copy of the runner over TESTS."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "cases.py").write_text(TESTS)
    (tmp_path / "suites").mkdir()
    runner = Path(shutil.copy(RUNNER, tmp_path))

    def run(listed: dict[str, str], *options: str) -> tuple[int, str]:
        (tmp_path / "suites" / "made_up.py").write_text(SUITE.format(listed=listed, folder=str(tmp_path)))
        done = subprocess.run(
            [sys.executable, str(runner), *options], capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def failures(output: str) -> set[str]:
    return {line.rpartition(".")[2] for line in output.splitlines() if line.startswith("FAILED")}


def test_every_way_to_fail_is_seen_and_nothing_else(run) -> None:
    status, output = run(HANGS)
    assert failures(output) == {
        "test_fails",
        "test_raises",
        "test_fails_in_a_subtest",
        "test_passes_unexpectedly",
        "test_kills_its_process",
    }
    assert output.endswith("\n5 passed, 5 failed, 1 listed\n")
    assert "made_up: 5 passed, 5 failed, 1 listed, 1 skipped in " in output
    assert "as it must" in output
    assert "Aborted" in output
    assert status == 1


def test_a_test_that_hangs_fails_with_the_place_where_it_hangs(run, tmp_path: Path) -> None:
    runner = tmp_path / "run.py"
    source = runner.read_text()
    assert "TEST_LIMIT = 300" in source
    runner.write_text(source.replace("TEST_LIMIT = 300", "TEST_LIMIT = 1"))
    status, output = run({}, "-k", "test_hangs")
    assert (status, failures(output)) == (1, {"test_hangs"})
    assert re.search(r"cases.py., line \d+ in test_hangs", output)


def test_listed_tests_may_fail_but_not_pass(run) -> None:
    failing = {f"Case.{name}": "why" for name in ("test_fails", "test_raises", "test_fails_in_a_subtest")}
    never = {f"Case.{name}": "not run: why" for name in ("test_passes_unexpectedly", "test_kills_its_process")}
    status, output = run(failing | never | HANGS)
    assert (status, failures(output)) == (0, set())
    assert output.endswith("\n5 passed, 0 failed, 6 listed\n")

    status, output = run(failing | never | HANGS | {"cases.Case.test_passes": "it cannot"})
    assert (status, failures(output)) == (1, {"test_passes"})
    assert "passes, though listed: it cannot" in output
    assert output.endswith("\n4 passed, 1 failed, 6 listed\n")


def test_a_word_selects_tests_and_unbound_leaves_the_classes_alone(run) -> None:
    assert run({}, "-k", "is_bound")[1].endswith("\n2 passed, 0 failed, 0 listed\n")
    _, output = run({}, "-k", "is_bound", "--unbound")
    assert failures(output) == {"test_is_bound", "test_child_is_bound"}


def test_an_unknown_suite_is_an_error(run) -> None:
    status, output = run({}, "nothing")
    assert status == 2
    assert "no such suite: nothing; there are made_up" in output
