"""Measures ropewalk beside its peers, interleaved, and writes results/*.json, RESULTS.md and the README's tables.

README.md beside this file says how rows are added and read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from topics import TOPICS, Row, Topic

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->"
TURN_LIMIT = 300  # seconds: a hang guard
RUST_TARGET = ROOT / "target" / "benchmarks"

sys.path.insert(0, str(ROOT / "scripts"))
from environments import DEFAULT, REQUIREMENTS, Environment, check, environments  # noqa: E402


@dataclass
class Figure:
    """One contender's part of a row: its values round by round, or why there are none."""

    who: str
    values: list[float]
    unit: str = ""
    skip: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Outcome:
    """One row as measured; ropewalk's figure first."""

    work: str
    targets: dict[str, float]
    at_most: float | None
    figures: list[Figure]


def more_is_better(unit: str) -> bool:
    return unit.endswith("/s")


def ratio(ours: Figure, theirs: Figure) -> float:
    """How many times better ours is: above 1 is in our favour. The median of the rounds' own ratios."""
    pairs = [(b / a if a else 0.0) for a, b in zip(ours.values, theirs.values, strict=True)]
    middle = statistics.median(pairs)
    return (1 / middle if middle else 0.0) if more_is_better(ours.unit) else middle


def turn(command: list[str], pinned: bool) -> dict[str, object]:
    """One contender's turn in one round."""
    if pinned:
        command = ["taskset", "-c", "0", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TURN_LIMIT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return {"skip": f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}"}
    line: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return line


def measure(topic: Topic, row: Row, pinned: bool, python: str, rounds: int, quick: bool) -> Outcome:
    """All rounds of one row. A contender that cannot run is left out from then on, and its reason kept."""
    python_program = topic.program.endswith(".py")
    program = [python, str(HERE / topic.program)] if python_program else [str(RUST_TARGET / "release" / topic.program)]
    figures = [Figure(who, []) for who in ("ropewalk", *topic.contenders)]
    for _ in range(rounds):
        for figure in figures:
            if figure.skip:
                continue
            line = turn([*program, figure.who, row.bench, *(["--quick"] if quick else [])], pinned)
            if "skip" in line:
                figure.skip = str(line["skip"])
            else:
                figure.unit = str(line["unit"])
                figure.values.append(float(str(line["value"])))
    where = (" (one CPU)" if pinned else " (free)") if len(row.pinned) > 1 else ""
    return Outcome(f"{row.bench}{where}", row.at_least, row.at_most, figures)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def lines(outcome: Outcome) -> Iterator[list[str]]:
    """The table's lines for one row, one a peer: work, ours, peer, its figure, ratio, target."""
    ours = outcome.figures[0]
    if ours.skip:
        yield [outcome.work, f"none: {ours.skip}", "", "", "", ""]
        return

    def shown(figure: Figure) -> str:
        low, high = number(min(figure.values)), number(max(figure.values))
        return f"{number(figure.median)} {figure.unit} ({low} to {high})"

    if outcome.at_most is not None:
        met = "reached" if ours.median <= outcome.at_most else "not reached"
        yield [outcome.work, shown(ours), "", "", "", f"<= {number(outcome.at_most)} {ours.unit}: {met}"]
    for theirs in outcome.figures[1:]:
        if theirs.skip:
            yield [outcome.work, shown(ours), theirs.who, f"none: {theirs.skip}", "", ""]
            continue
        times, target = ratio(ours, theirs), outcome.targets.get(theirs.who)
        verdict = "" if target is None else f">= {target:g}x: {'reached' if times >= target else 'not reached'}"
        yield [outcome.work, shown(ours), theirs.who, shown(theirs), f"{times:.3g}x", verdict]
    if len(outcome.figures) == 1 and outcome.at_most is None:
        yield [outcome.work, shown(ours), "", "", "", ""]


def facts(environment: Environment) -> dict[str, object]:
    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()

    return {
        "python": environment.full,
        "rust": said("rustc", "--version"),
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "system": platform.system(),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "load": round(os.getloadavg()[0], 2),
    }


def short(outcome: Outcome) -> Iterator[str]:
    """The README's words on one row: how many times better than each peer, and the target where it is missed."""
    ours = outcome.figures[0]
    if outcome.at_most is not None and ours.median > outcome.at_most:
        yield f"**at most {number(outcome.at_most)} {ours.unit} aimed at**"
    for theirs in outcome.figures[1:]:
        if not theirs.skip:
            times, target = ratio(ours, theirs), outcome.targets.get(theirs.who, 0)
            yield f"{theirs.who} {times:.3g}x" + (f" (**{target:g}x aimed at**)" if times < target else "")


def write_tables() -> None:
    """Puts all results into RESULTS.md, and the rows that have a target, in short, between the README's markers."""
    full, brief = "# Results\n\nMade by `make bench`.\n", ""
    for topic in TOPICS:
        path = RESULTS / f"{topic.name.replace(' ', '-')}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        about = result["facts"]
        runtime = f"CPython {about['python']}" if topic.program.endswith(".py") else about["rust"].rpartition(" (")[0]
        how = f"{runtime}, {about['cpus']} CPUs; median (minimum to maximum) of {result['rounds']} rounds"
        full += f"\n## {topic.name}\n\n{how}\n\n"
        full += "| work | ropewalk | peer | peer's figure | ratio | target |\n|---|---|---|---|---|---|\n"
        rows = [
            Outcome(r["work"], r["targets"], r["at_most"], [Figure(**f) for f in r["figures"]]) for r in result["rows"]
        ]
        full += "".join(f"| {' | '.join(line)} |\n" for outcome in rows for line in lines(outcome))
        aimed = [outcome for outcome in rows if outcome.targets or outcome.at_most is not None]
        if aimed:
            brief += f"\n| {topic.name} | ropewalk | times better than |\n|---|---|---|\n"
        for outcome in aimed:
            ours = outcome.figures[0]
            figure = f"{number(ours.median)} {ours.unit}" if not ours.skip else "none"
            brief += f"| {outcome.work} | {figure} | {', '.join(short(outcome))} |\n"
    (HERE / "RESULTS.md").write_text(full)
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{brief}\n{END}{rest.partition(END)[2]}")


def bench_environment(python: str | None) -> Environment:
    """A virtual environment of its own, with the peers, made from `python`: Debian's optimised one where it is."""
    chosen = environments()[DEFAULT]
    if python:
        version = subprocess.run(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.version.split()[0])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        chosen = replace(chosen, version=version[0], full=version[1], interpreter=os.path.realpath(python))
    return replace(
        chosen,
        directory=ROOT / ".venvs" / "bench",
        release=True,
        requirements=(REQUIREMENTS, HERE / "requirements.txt"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the work; nothing is written")
    parser.add_argument("--only", action="append", metavar="TOPIC", help=f"one of: {', '.join(t.name for t in TOPICS)}")
    parser.add_argument("--row", help="only rows whose name holds this word; nothing is written")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--python", help="the interpreter to measure (default: that of .venv)")
    options = parser.parse_args()
    wanted = [topic for topic in TOPICS if not options.only or topic.name in options.only]
    if unknown := set(options.only or ()) - {topic.name for topic in TOPICS}:
        parser.error(f"no such topic: {', '.join(sorted(unknown))}; there are {', '.join(t.name for t in TOPICS)}")
    if shutil.which("taskset") is None:
        parser.error("taskset is missing; try: apt-get install util-linux")
    rounds = options.rounds or (3 if options.quick else 7)

    environment = bench_environment(options.python)
    if any(topic.program.endswith(".py") for topic in wanted):
        environment.build()
    if any(not topic.program.endswith(".py") for topic in wanted):
        manifest = ["--manifest-path", str(HERE / "rust" / "Cargo.toml")]
        check(["cargo", "build", "--release", "--locked", *manifest, "--target-dir", str(RUST_TARGET)])

    RESULTS.mkdir(exist_ok=True)
    for topic in wanted:
        print(f"\n{topic.name}", flush=True)
        outcomes = []
        for row in topic.rows:
            if options.row and options.row not in row.bench:
                continue
            for pinned in row.pinned:
                outcome = measure(topic, row, pinned, str(environment.python), rounds, options.quick)
                outcomes.append(outcome)
                for work, ours, peer, theirs, times, verdict in lines(outcome):
                    print(f"  {work:28} {ours:32} {peer:12} {theirs:32} {times:>8}  {verdict}", flush=True)
        if not options.quick and not options.row:
            result = {"facts": facts(environment), "rounds": rounds, "rows": [asdict(outcome) for outcome in outcomes]}
            path = RESULTS / f"{topic.name.replace(' ', '-')}.json"
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if not options.quick and not options.row:
        write_tables()


if __name__ == "__main__":
    main()
