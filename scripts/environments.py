"""The interpreters found here, a virtual environment for each, and ropewalk built into it.

    scripts/environments.py list          the interpreters found, one a minor version
    scripts/environments.py build         .venv: the running Python's version, release build
    scripts/environments.py build 3.12    .venvs/3.12: another version, debug build

Where a minor version is found twice, the interpreter that has CPython's own test suite comes first (the conformance
tests need it), then the one that runs this script, then the order of PATH.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-dev.txt"
OLDEST, NEWEST = 10, 14
DEFAULT = f"{sys.version_info[0]}.{sys.version_info[1]}"

PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "full": sys.version.split()[0],
    "path": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "cpython": sys.implementation.name == "cpython",
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "venv": bool(importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")),
    "tests": bool(importlib.util.find_spec("test") and importlib.util.find_spec("test.test_concurrent_futures")),
}))
"""


@dataclass(frozen=True)
class Environment:
    """One interpreter and the virtual environment made from it."""

    version: str
    full: str
    interpreter: str
    has_tests: bool
    directory: Path
    release: bool
    requirements: tuple[Path, ...] = (REQUIREMENTS,)

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """What Cargo and maturin are told. A target directory for each version: pyo3 is compiled once for each."""
        return {
            "VIRTUAL_ENV": str(self.directory),
            "PYO3_PYTHON": str(self.python),
            "CARGO_TARGET_DIR": str(ROOT / "target" / f"python-{self.version}"),
        }

    def prepare(self) -> None:
        """Makes the virtual environment and installs the locked requirements; does nothing when both are there."""
        mark = self.directory / ".requirements"
        locked = b"".join(file.read_bytes() for file in self.requirements)
        wanted = f"{self.interpreter} {self.full} {hashlib.sha256(locked).hexdigest()}\n"
        if mark.exists() and mark.read_text() == wanted and self.python.exists():
            return
        check([self.interpreter, "-m", "venv", "--clear", str(self.directory)])
        files = [word for file in self.requirements for word in ("--requirement", str(file))]
        check([str(self.python), "-m", "pip", "install", "--quiet", *files])
        mark.write_text(wanted)

    def build(self) -> None:
        """Builds the extension into the virtual environment."""
        self.prepare()
        command = [str(self.python), "-m", "maturin", "develop", "--locked", "--quiet"]
        check([*command, "--release"] if self.release else command, **self.variables)


def check(command: list[str], **variables: str) -> None:
    """Runs a command in the checkout; one that fails ends this script with its exit status."""
    print("+", " ".join(command), flush=True)
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, stdin=subprocess.DEVNULL).returncode
    if status:
        sys.exit(status)


def candidates() -> Iterator[Path]:
    names = ["python3", *(f"python3.{minor}" for minor in range(OLDEST, NEWEST + 1))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [Path(sys.base_prefix) / "bin", *map(Path, os.get_exec_path()), *sorted(pyenv.glob("versions/3.*/bin"))]
    for folder in folders:
        if folder != pyenv / "shims":
            yield from (folder / name for name in names)


@cache
def environments() -> dict[str, Environment]:
    """The environments by minor version, the default first. Says which interpreters are of no use, and why."""
    found: dict[str, Environment] = {}
    for path in dict.fromkeys(os.path.realpath(path) for path in candidates() if path.exists()):
        try:
            probe = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)
            facts = json.loads(probe.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"skipped: {path} does not run ({error})")
            continue
        minor = int(facts["version"].partition(".")[2])
        if not OLDEST <= minor <= NEWEST:
            continue
        for wrong, why in (
            (not facts["cpython"], "is not CPython"),
            (facts["free_threaded"], "is a free-threaded build"),
            (not facts["venv"], f"has no venv module (apt-get install python{facts['version']}-venv)"),
        ):
            if wrong:
                print(f"skipped: {path} {why}")
                break
        else:
            version, default = facts["version"], facts["version"] == DEFAULT
            if version not in found or (facts["tests"] and not found[version].has_tests):
                # The default version is tested as it is released, the others with debug assertions.
                directory = ROOT / ".venv" if default else ROOT / ".venvs" / version
                found[version] = Environment(version, facts["full"], facts["path"], facts["tests"], directory, default)
    return dict(sorted(found.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


def main(arguments: list[str]) -> None:
    match arguments:
        case ["list"]:
            for environment in environments().values():
                suite = "" if environment.has_tests else "  (without CPython's test suite)"
                print(f"{environment.full:8} {environment.interpreter}{suite}")
        case ["build", *versions]:
            for version in versions or [DEFAULT]:
                if version not in environments():
                    sys.exit(f"no usable Python {version} found; found: {', '.join(environments()) or 'none'}")
                environments()[version].build()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
