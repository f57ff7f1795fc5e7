"""Steps of a test or lint run: each is announced, bounded in time, timed, and counted in a table at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The closing lines of cargo test, pytest and the conformance runner.
CLOSING = re.compile(r"test result: .*|=+ .* in [\d.]+s.* =+|\d+ passed, \d+ failed.*")
COUNT = re.compile(r"(\d+) (passed|failed|error)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Steps:
    """Runs steps one after the other; goes on after a failure, except under CI, where the first one ends the run."""

    stop_early: bool = bool(os.environ.get("CI"))
    limit: float = 1200
    rows: list[tuple[str, float, bool, int, int]] = field(default_factory=list)

    def run(self, title: str, command: list[str], **variables: str) -> bool:
        """Runs `command` in the checkout with no standard input; `limit` seconds are its hang guard."""
        print(f"\n::: {title}\n::: {' '.join([*(f'{k}={v}' for k, v in variables.items()), *command])}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        hung = threading.Event()

        def end() -> None:
            hung.set()
            os.killpg(process.pid, signal.SIGKILL)

        guard = threading.Timer(self.limit, end)
        guard.start()
        passed = failed = 0
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                text = COLOUR.sub("", line.rstrip())
                for number, outcome in COUNT.findall(text) if CLOSING.fullmatch(text) else ():
                    if outcome == "passed":
                        passed += int(number)
                    else:
                        failed += int(number)
            status = process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            guard.cancel()
        if hung.is_set():
            print(f"::: {title}: not done after {self.limit:.0f} s, ended")
        seconds = time.monotonic() - started
        ok = status == 0
        self.rows.append((title, seconds, ok, passed, failed))
        print(f"::: {title}: {'ok' if ok else f'FAILED (exit status {status})'} in {seconds:.1f} s", flush=True)
        if not ok and self.stop_early:
            self.close()
        return ok

    def close(self) -> None:
        """Prints the table and the closing line, and exits."""
        print("\n::: step                                                seconds")
        for title, seconds, ok, *_ in self.rows:
            print(f"    {title:50} {seconds:8.1f}  {'ok' if ok else 'FAILED'}")
        bad = [title for title, _, ok, *_ in self.rows if not ok]
        passed = sum(row[3] for row in self.rows)
        # A step that failed without a failed test (a build, a lint) counts as one failure.
        failed = sum(max(failed, not ok) for _, _, ok, _, failed in self.rows)
        if bad:
            print(f"failed: {', '.join(bad)}")
        print(f"{passed} passed, {failed} failed" if passed or failed else "all checks passed", flush=True)
        sys.exit(1 if bad else 0)
