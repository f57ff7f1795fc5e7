"""examples/flags.py: every way saves every flag, and a country that fails is named and costs no other."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FLAGS = Path(__file__).parent.parent / "examples" / "flags.py"
POP20 = set("CN IN US ID BR PK NG BD RU JP MX PH VN ET EG DE IR TR CD FR".split())  # noqa: SIM905
WAYS = ["sequentially", "threads", "processes", "coroutines", "mixed", "mixed_awaited"]
WHITE, RED, BLUE = (0xFF, 0xFF, 0xFF), (0xD7, 0x14, 0x1A), (0x00, 0x39, 0xA6)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, str(FLAGS), "--folder", str(tmp_path), "--latency=0", *arguments]
        environment = {**os.environ, "no_proxy": "*"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, env=environment)
        assert done.stderr == ""
        return done.returncode, done.stdout

    return run


def table(output: str) -> dict[str, int]:
    """The number of files of each way."""
    assert re.search(r"^way +files +seconds +speed-up$", output, re.MULTILINE)
    rows = re.findall(r"^(\w+) +(\d+) +\d+\.\d\d +\d+\.\dx$", output, re.MULTILINE)
    assert [way for way, _ in rows] == WAYS
    return {way: int(files) for way, files in rows}


def saved(folder: Path, way: str) -> set[str]:
    return {path.stem for path in (folder / way).iterdir()}


def pixels(gif: bytes) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Decodes a GIF image of one frame with a global palette."""
    assert gif[:6] == b"GIF87a"
    assert gif[-1:] == b"\x3b"
    width, height = int.from_bytes(gif[6:8], "little"), int.from_bytes(gif[8:10], "little")
    colours = 2 << (gif[10] & 7)
    palette = [tuple(gif[13 + 3 * i : 16 + 3 * i]) for i in range(colours)]
    place = 13 + 3 * colours
    assert gif[place] == 0x2C
    bits = gif[place + 10]
    place += 11
    data = b""
    while gif[place]:
        data += gif[place + 1 : place + 1 + gif[place]]
        place += 1 + gif[place]
    stream, clear = int.from_bytes(data, "little"), 1 << bits
    indices: list[int] = []
    table: list[list[int]] = []
    size, previous = bits + 1, None
    while True:
        code, stream = stream & ((1 << size) - 1), stream >> size
        if code == clear:
            table, size, previous = [[i] for i in range(clear)] + [[], []], bits + 1, None
            continue
        if code == clear + 1:
            return width, height, [palette[i] for i in indices]  # type: ignore[misc]
        if previous is not None:
            head = table[code] if code < len(table) else previous
            table.append([*previous, head[0]])
            if len(table) == 1 << size and size < 12:
                size += 1
        previous = table[code]
        indices += previous


def test_every_way_saves_twenty_images(run: Run, tmp_path: Path) -> None:
    status, output = run()
    assert status == 0
    assert table(output) == dict.fromkeys(WAYS, 20)
    assert "failed" not in output
    for way in WAYS:
        assert saved(tmp_path, way) == POP20
        assert len({path.read_bytes() for path in (tmp_path / way).iterdir()}) == 20


def test_the_images_are_flags(run: Run, tmp_path: Path) -> None:
    assert run("jp", "FR")[0] == 0
    width, height, japan = pixels((tmp_path / "threads" / "JP.gif").read_bytes())
    assert (width, height, len(japan)) == (90, 60, 90 * 60)
    assert japan[0] == WHITE
    assert japan[30 * 90 + 45] == RED
    *_, france = pixels((tmp_path / "threads" / "FR.gif").read_bytes())
    assert [france[row * 90 + column] for row in (0, 59) for column in (0, 45, 89)] == [BLUE, WHITE, RED] * 2


def test_countries_that_fail_are_named_and_cost_no_other(run: Run, tmp_path: Path) -> None:
    status, output = run("--error-rate=0.3")
    assert status == 1
    lines = re.findall(r"^failed: (\w\w) \((\w+)\): (.*)$", output, re.MULTILINE)
    assert {reason for *_, reason in lines} == {"HTTP status 503 (Service Unavailable)"}
    failed = {country for country, *_ in lines}
    assert 0 < len(failed) < 20
    assert {(country, way) for country, way, _ in lines} == {(country, way) for country in failed for way in WAYS}
    assert table(output) == dict.fromkeys(WAYS, 20 - len(failed))
    for way in WAYS:
        assert saved(tmp_path, way) == POP20 - failed


def test_an_unknown_country_is_named(run: Run, tmp_path: Path) -> None:
    status, output = run("JP", "XX")
    assert status == 1
    assert "failed: XX (threads): HTTP status 404 (Not Found)\n" in output
    assert saved(tmp_path, "threads") == {"JP"}


def test_an_answer_that_takes_too_long_is_given_up(run: Run) -> None:
    status, output = run("JP", "FR", "--slow-rate=1", "--timeout=0.1")
    assert status == 1
    assert len(re.findall(r"^failed: (?:JP|FR) \(\w+\): .*timed out", output, re.MULTILINE)) == 2 * len(WAYS)


def test_another_server_can_be_named(run: Run) -> None:
    # Nobody listens on port 9 (discard), so that each way names each country.
    status, output = run("JP", "FR", "--base-url=http://127.0.0.1:9/flags")
    assert status == 1
    refused = r"^failed: (?:JP|FR) \(\w+\): .*(?:Connection refused|Connect call failed)"
    assert len(re.findall(refused, output, re.MULTILINE)) == 2 * len(WAYS)
