"""The scripts behind the Makefile: nothing that fails may look as though it passed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"

PROGRAM = """
import sys
sys.path.insert(0, {scripts!r})
from steps import Steps
steps = Steps(limit={limit})
{calls}
steps.close()
"""


def steps(*programs: str, limit: float = 600, ci: bool = False) -> tuple[int, str]:
    """Runs a step for each Python program; returns exit status and output."""
    calls = "\n".join(f"steps.run('step', [sys.executable, '-c', {program!r}])" for program in programs)
    program = PROGRAM.format(scripts=str(SCRIPTS), calls=calls, limit=limit)
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": "true"} if ci else {})
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False, env=environment
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


CARGO = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s"
PYTEST = "================== 4 passed, 1 skipped, 2 warnings in 0.51s =================="
CONFORMANCE = "5 passed, 0 failed, 6 listed"


def test_the_closing_lines_of_all_runners_are_added_up() -> None:
    status, output = steps(f"print({CARGO!r}); print({CARGO!r})", f"print({PYTEST!r})", f"print({CONFORMANCE!r})")
    assert status == 0
    assert output.endswith("\n15 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("line", "closing"),
    [
        (
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            "3 passed, 2",
        ),
        ("======== 1 failed, 4 passed, 1 error in 61.21s (0:01:01) ========", "4 passed, 2"),
        ("7 passed, 3 failed, 0 listed", "7 passed, 3"),
        ("no closing line at all", "0 passed, 1"),
    ],
)
def test_failures_are_counted_and_end_with_status_1(line: str, closing: str) -> None:
    status, output = steps(f"print({line!r}); raise SystemExit(1)")
    assert status == 1
    assert output.endswith(f"\nfailed: step\n{closing} failed\n")


def test_a_failure_ends_the_run_under_ci_alone() -> None:
    programs = ("raise SystemExit(3)", f"print({CARGO!r})")
    assert steps(*programs)[1].endswith("\n3 passed, 1 failed\n")
    status, output = steps(*programs, ci=True)
    assert (status, "FAILED (exit status 3)" in output, CARGO in output) == (1, True, False)
    assert output.endswith("\n0 passed, 1 failed\n")


def test_a_step_that_hangs_is_ended_with_all_that_it_started() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    status, output = steps(child, limit=1)
    assert status == 1
    assert "step: not done after 1 s, ended" in output


def test_a_step_has_no_standard_input() -> None:
    assert steps("import sys; raise SystemExit(sys.stdin.read() != '')")[0] == 0


@pytest.mark.parametrize("missing", ["cargo", "cc", "python3"])
def test_a_missing_tool_is_named_with_the_command_that_installs_it(missing: str, tmp_path: Path) -> None:
    for tool in ("cargo", "cc", "python3"):
        if tool != missing:
            (tmp_path / tool).symlink_to(str(shutil.which("true")))
    done = subprocess.run(
        ["/bin/sh", str(SCRIPTS / "tools.sh")], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"missing: {missing}")
    assert done.stderr.count("missing:") == done.stderr.count("try:") == 1
