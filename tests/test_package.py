"""The package as a whole."""

import importlib.metadata
from pathlib import Path

import ropewalk
from ropewalk import _native


def test_the_engine_is_the_compiled_module() -> None:
    assert Path(str(_native.__file__)).suffix == ".so"


def test_the_package_is_typed() -> None:
    assert (Path(ropewalk.__file__).parent / "py.typed").exists()


def test_the_version_is_that_of_the_workspace() -> None:
    cargo = (Path(__file__).parent.parent / "Cargo.toml").read_text()
    assert f'version = "{importlib.metadata.version("ropewalk")}"' in cargo
