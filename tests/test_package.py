"""The package as a whole."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_examples_in_the_readme_run() -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-c", *programs]
    assert subprocess.check_output(command, text=True, timeout=120) == "[8, 27, 64]\n['slept', 125]\n"
