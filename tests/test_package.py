"""The package as a whole."""

import importlib.metadata
import re
from pathlib import Path

import pytest

import ropewalk
from ropewalk import _native

ROOT = Path(__file__).parent.parent


def test_the_engine_is_the_compiled_module() -> None:
    assert Path(str(_native.__file__)).suffix == ".so"


def test_the_package_is_typed() -> None:
    assert (Path(ropewalk.__file__).parent / "py.typed").exists()


def test_the_version_is_that_of_the_workspace() -> None:
    cargo = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{importlib.metadata.version("ropewalk")}"' in cargo


def test_the_examples_in_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    for program in re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        exec(program, {})
    assert {2**n for n in range(20)} <= set(map(int, capsys.readouterr().out.split()))
