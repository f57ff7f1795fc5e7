"""Runs CPython's own tests, those that come with this interpreter, against ropewalk's classes.

    run.py                    every suite
    run.py futures            one suite
    run.py -k test_wait       only tests whose id holds a word
    run.py --unbound futures  the standard library's own classes: does a test fail without us, too?

README.md beside this file says how to write a suite.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEST_LIMIT = 300  # seconds that one test may take: a hang guard
SUITE_LIMIT = 1200
NOT_RUN = "not run: "


@dataclass
class Outcome:
    """How one test ended: "passed", "failed", "skipped"; and the traceback, or why."""

    kind: str
    text: str = ""


class Suite:
    """A module of `suites/`, with what it leaves out filled in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(f"suites.{name}")
        self.listed: dict[str, str] = self.module.LISTED

    def missing(self) -> list[str]:
        """Those of its test modules that this interpreter comes without."""
        absent = []
        for name in self.module.MODULES:
            try:
                found = importlib.util.find_spec(name)
            except ModuleNotFoundError:
                found = None
            if found is None:
                absent.append(name)
        return absent

    def applies(self, test: str) -> bool:
        return bool(getattr(self.module, "applies", lambda _: True)(test))

    def reason(self, test: str) -> str | None:
        """Why `test` is listed. A key of the list is the end of a test's id, from a dot on."""
        words = test.split(".")
        return next((self.listed[k] for i in range(len(words)) if (k := ".".join(words[i:])) in self.listed), None)


# --- the child: one process that binds, loads and runs ---


def bind(name: str) -> None:
    """Puts ropewalk's classes where the tests look for them, here and in the interpreters that tests start."""
    Suite(name).module.bind()

    from test.support import script_helper

    run = script_helper.run_python_until_end

    def run_bound(*args: str, **variables: str) -> object:
        words = list(args)
        if "-c" in words:
            code = words.index("-c") + 1
            words[code] = (
                f"import sys; sys.path.insert(0, {str(HERE)!r}); import run; run.bind({name!r})\n"
                f"exec(compile({words[code]!r}, '<string>', 'exec'))"
            )
        return run(*words, **variables)

    script_helper.run_python_until_end = run_bound


def child(name: str, bound: bool, word: str, journal_path: str) -> None:
    """Runs the tests that the journal does not know yet, and writes each one's beginning and end into it."""
    import faulthandler
    import unittest

    from test import support

    suite = Suite(name)
    if bound:
        bind(name)
    support.use_resources = ["cpu", "subprocess", "walltime"]

    journal = Path(journal_path)
    known = {json.loads(line)["test"] for line in journal.read_text().splitlines()}

    def write(test: str, kind: str, text: str = "") -> None:
        with journal.open("a") as file:
            file.write(json.dumps({"test": test, "kind": kind, "text": text}) + "\n")

    def tests(group: unittest.TestSuite) -> Iterator[unittest.TestCase]:
        for item in group:
            if isinstance(item, unittest.TestSuite):
                yield from tests(item)
            else:
                yield item

    class Journal(unittest.TestResult):
        """Writes every outcome; a test counts as passed when it ends without having been written down."""

        written: set[str]

        def startTestRun(self) -> None:
            self.written = set()

        def note(self, test: object, kind: str, text: str) -> None:
            identity = test.id()  # type: ignore[attr-defined]
            self.written.add(identity)
            write(identity, kind, text)

        def startTest(self, test: unittest.TestCase) -> None:
            super().startTest(test)
            write(test.id(), "started")
            faulthandler.dump_traceback_later(TEST_LIMIT, exit=True)

        def stopTest(self, test: unittest.TestCase) -> None:
            faulthandler.cancel_dump_traceback_later()
            if test.id() not in self.written:
                self.note(test, "passed", "")
            super().stopTest(test)

        def addError(self, test, error):  # type: ignore[no-untyped-def]
            self.note(test, "failed", self._exc_info_to_string(error, test))  # type: ignore[attr-defined]

        addFailure = addError

        def addSubTest(self, test, subtest, error):  # type: ignore[no-untyped-def]
            if error is not None:
                self.note(test, "failed", f"{subtest}\n" + self._exc_info_to_string(error, test))  # type: ignore[attr-defined]

        def addSkip(self, test, reason):  # type: ignore[no-untyped-def]
            self.note(test, "skipped", reason)

        def addUnexpectedSuccess(self, test):  # type: ignore[no-untyped-def]
            self.note(test, "failed", "passes, but is marked as an expected failure")

    faulthandler.enable()
    loader = unittest.TestLoader()
    wanted = unittest.TestSuite()
    for test in tests(loader.loadTestsFromNames(suite.module.MODULES)):
        identity = test.id()
        reason = suite.reason(identity)
        if identity in known or not suite.applies(identity) or word not in identity:
            continue
        if bound and reason and reason.startswith(NOT_RUN):
            write(identity, "not run")
        else:
            wanted.addTest(test)
    for error in loader.errors:
        write("loading", "failed", str(error))
    result = Journal()
    result.startTestRun()
    wanted.run(result)
    faulthandler.dump_traceback_later(TEST_LIMIT, exit=True)  # for what hangs at interpreter exit


# --- the parent: starts children, reads their journals, judges ---


def outcomes(suite: Suite, bound: bool, word: str) -> dict[str, Outcome]:
    """Runs a suite. A test that hangs or kills its process fails alone: a new process goes on with the others."""
    with tempfile.TemporaryDirectory() as folder:
        journal, log = Path(folder, "journal"), Path(folder, "log")
        journal.touch()
        command = [sys.executable, __file__, "--child", suite.name, str(journal), "-k", word]
        ended = time.monotonic() + SUITE_LIMIT
        while True:
            with log.open("w") as output:
                process = subprocess.Popen(
                    command if bound else [*command, "--unbound"],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                try:
                    status = process.wait(max(0, ended - time.monotonic()))
                except subprocess.TimeoutExpired:
                    status = None
                finally:
                    # What a test left behind goes with its process group.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            found: dict[str, Outcome] = {}
            for line in journal.read_text().splitlines():
                entry = json.loads(line)
                known = found.get(entry["test"])
                if known is None or known.kind == "started":
                    found[entry["test"]] = Outcome(entry["kind"], entry["text"])
                elif entry["kind"] == "failed":
                    known.kind, known.text = "failed", known.text + entry["text"]
            tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-60:])
            running = [test for test, outcome in found.items() if outcome.kind == "started"]
            for test in running:
                found[test] = Outcome("failed", f"{tail}its process ended with status {status}")
                with journal.open("a") as file:
                    file.write(json.dumps({"test": test, "kind": "failed", "text": found[test].text}) + "\n")
            if status is None:
                found["the suite"] = Outcome("failed", f"not done after {SUITE_LIMIT} s")
            elif status != 0 and not running:
                found["the suite"] = Outcome("failed", f"{tail}its process ended with status {status}")
            elif running:
                continue
            return found


def judge(suite: Suite, found: dict[str, Outcome], bound: bool) -> Counter[str]:
    """Prints what failed, and counts. A listed test has to fail: its passing means that the list is out of date."""
    counts: Counter[str] = Counter(passed=0, failed=0, listed=0, skipped=0)
    for test, outcome in sorted(found.items()):
        reason = suite.reason(test) if bound else None
        if reason and outcome.kind == "passed":
            outcome = Outcome("failed", f"passes, though listed: {reason}")
        elif reason and outcome.kind in ("failed", "not run"):
            outcome = Outcome("listed")
        counts[outcome.kind] += 1
        if outcome.kind == "failed":
            print(f"FAILED {suite.name} {test}\n{outcome.text.rstrip()}\n")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*")
    parser.add_argument("-k", dest="word", default="", help="only tests whose id holds this word")
    parser.add_argument("--unbound", action="store_true", help="the standard library's own classes")
    parser.add_argument("--child", nargs=2, metavar=("SUITE", "JOURNAL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    bound = not options.unbound
    if options.child:
        child(options.child[0], bound, options.word, options.child[1])
        return 0

    names = sorted(path.stem for path in (HERE / "suites").glob("[a-z]*.py"))
    if unknown := set(options.suites) - set(names):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    total: Counter[str] = Counter(passed=0, failed=0, listed=0)
    for name in options.suites or names:
        suite = Suite(name)
        if missing := suite.missing():
            where = f"Python {sys.version.split()[0]} in {sys.base_prefix} comes without {', '.join(missing)}"
            debian = f"; try: apt-get install libpython3.{sys.version_info[1]}-testsuite"
            print(f"{name}: nothing to run: {where}{debian if sys.base_prefix == '/usr' else ''}", flush=True)
            continue
        started = time.monotonic()
        counts = judge(suite, outcomes(suite, bound, options.word), bound)
        total.update(counts)
        line = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        print(f"{name}: {line} in {time.monotonic() - started:.1f} s", flush=True)
    print(f"{total['passed']} passed, {total['failed']} failed, {total['listed']} listed")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
