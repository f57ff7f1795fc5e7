"""All checks that run no code: formatting, lints, documentation, types, and the stubs against the module."""

from __future__ import annotations

from environments import DEFAULT, environments
from steps import Steps


def main() -> None:
    steps = Steps()
    environment = environments()[DEFAULT]
    # The interpreter's own path, not that of .venv, so that lints and tests share what Cargo has compiled.
    variables = {"PYO3_PYTHON": environment.interpreter}
    python = [str(environment.python), "-m"]
    clippy = ["cargo", "clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]
    steps.run("rust: format", ["cargo", "fmt", "--all", "--check"])
    bench = ["--manifest-path", "benchmarks/rust/Cargo.toml"]
    steps.run("rust: format of the benchmarks", ["cargo", "fmt", *bench, "--check"])
    steps.run("rust: clippy", clippy, **variables)
    steps.run(
        "rust: documentation",
        ["cargo", "doc", "--locked", "--workspace", "--no-deps", "--all-features"],
        RUSTDOCFLAGS="-D warnings",
        **variables,
    )
    steps.run("python: ruff", [*python, "ruff", "check", "."])
    steps.run("python: format", [*python, "ruff", "format", "--check", "."])
    steps.run("python: types", [*python, "mypy"])
    steps.run("python: stubs against the module", [*python, "mypy.stubtest", "ropewalk._native"])
    steps.close()


if __name__ == "__main__":
    main()
