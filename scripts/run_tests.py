"""All tests: Rust ones once, then build, Python tests and conformance for every interpreter found.

scripts/run_tests.py              everything
scripts/run_tests.py rust         the Rust tests alone
scripts/run_tests.py 3.12 3.13    the Python tests of these versions alone
"""

from __future__ import annotations

import sys
import tempfile

from environments import DEFAULT, ROOT, Environment, environments
from steps import Steps


def rust(steps: Steps) -> None:
    python = environments()[DEFAULT].interpreter
    steps.run(
        "rust: tests, doc tests, examples",
        ["cargo", "test", "--locked", "--workspace", "--all-features"],
        PYO3_PYTHON=python,
    )
    # Model checking wants optimised code; debug assertions stay on.
    steps.run(
        "rust: loom models",
        ["cargo", "test", "--locked", "--package", "ropewalk", "--lib"],
        RUSTFLAGS="--cfg loom",
        CARGO_PROFILE_DEV_OPT_LEVEL="2",
        CARGO_TARGET_DIR=str(ROOT / "target" / "loom"),
    )


def python(steps: Steps, environment: Environment) -> None:
    name, interpreter = f"python {environment.full}", str(environment.python)
    build = [sys.executable, "scripts/environments.py", "build", environment.version]
    if not steps.run(f"{name}: build", build):
        return
    steps.run(f"{name}: tests", [interpreter, "-m", "pytest"])
    steps.run(f"{name}: conformance", [interpreter, "tests/conformance/run.py"])


def install(steps: Steps, environment: Environment) -> None:
    """What a user does, `pip install .`, into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(environment.python), "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "."]
        if steps.run("pip install .", command, **environment.variables):
            program = f"import ropewalk._native as n; print(n.__file__); assert n.__file__.startswith({folder!r})"
            steps.run("import ropewalk", [environment.interpreter, "-c", program], PYTHONPATH=folder)


def main(wanted: list[str]) -> None:
    steps = Steps()
    found = environments()
    for word in wanted:
        if word != "rust" and word not in found:
            sys.exit(f"{word}: neither `rust` nor a Python version found here ({', '.join(found)})")
    if not wanted or "rust" in wanted:
        rust(steps)
    for version, environment in found.items():
        if not wanted or version in wanted:
            python(steps, environment)
    if not wanted:
        install(steps, found[DEFAULT])
    steps.close()


if __name__ == "__main__":
    main(sys.argv[1:])
