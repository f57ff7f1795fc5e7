"""What tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ropewalk.asyncio import EventLoop

RunPython = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def run_python() -> RunPython:
    """Runs a program in an interpreter of its own."""

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=120)

    return run
