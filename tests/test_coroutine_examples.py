"""The examples print what `examples/expected` says; their Rust twins are held to the same files."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = [
    "simple_coro2",
    "averager",
    "averager_result",
    "grouper",
    "thrown_errors",
    "clean_up",
    "delegation_chain",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_is_expected(name, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == (EXAMPLES / "expected" / f"{name}.txt").read_text()
