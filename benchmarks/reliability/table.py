"""Rows of the reliability table: how scenarios are told, run, recorded, and written as a page."""

import hashlib
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.reliability.bench import Bench

ROOT = Path(__file__).parents[2]
GROUPS = {  # in the order of the page: title, and the module that holds the scenarios
    "crash": ("Crashes", "benchmarks.reliability.crash"),
    "power": ("Power cuts", "benchmarks.reliability.power"),
    "state": ("State directory, clocks, owners", "benchmarks.reliability.state"),
    "broker": ("Broker faults", "benchmarks.reliability.broker"),
    "data": ("Data faults", "benchmarks.reliability.data"),
    "serving": ("Clients", "benchmarks.reliability.serving"),
    "soak": ("Soak", "benchmarks.reliability.soak"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario whose claims held."""

    text: str
    runs: int = 1
    recover_s: Sequence[float] = ()  # seconds from the fault's end to the first sign of work, where that means something
    survived: bool = True
    by: Mapping[str, int] = field(default_factory=dict)  # the runs, told apart where the row covers several things


Played: TypeAlias = Callable[[Bench], Outcome]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of the table, and how to make it happen."""

    group: str
    name: str
    produced: str
    play: Played


SCENARIOS: list[Scenario] = []


def scenario(group: str, name: str, *, produced: str) -> Callable[[Played], Played]:
    """Make a function a scenario. `produced` says how the fault comes about, in the words of the table."""

    def register(play: Played) -> Played:
        SCENARIOS.append(Scenario(group, name, produced, play))
        return play

    return register


def played(one: Scenario, bench: Bench) -> Outcome:
    """Its outcome; a claim that does not hold is an outcome as well."""
    try:
        return one.play(bench)
    except AssertionError as error:
        return Outcome(f"NOT survived: {_first_line(error)}", survived=False)


def record(one: Scenario, outcome: Outcome, *, command: str, docs: Path = ROOT / "docs") -> None:
    """Add the runs to the row's, if the same program made those and survived too, else take its place; write the page anew."""
    path = docs / "results" / "reliability.json"
    rows = {(row["group"], row["scenario"]): row for row in _rows(path)}
    said = {"runs": outcome.runs, "by": dict(outcome.by), "survived": outcome.survived, "outcome": outcome.text}
    seconds = {"recover_s": [round(s, 3) for s in outcome.recover_s]}
    facts = {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "program": program()}
    new = {"group": one.group, "scenario": one.name, "produced": one.produced} | said | seconds | facts
    old = rows.get((one.group, one.name))
    rows[one.group, one.name] = new if old is None else added(old, new)
    order = list(GROUPS)
    kept = sorted(rows.values(), key=lambda row: order.index(row["group"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (docs / "reliability.md").write_text(page(kept))


def added(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """One row of both, where they tell of the same thing and the same program; otherwise the new one."""
    same = ("group", "scenario", "produced", "program", "survived", "outcome")
    if not new["survived"] or any(old.get(name) != new[name] for name in same):
        return dict(new)
    commands = dict.fromkeys((*old["command"].split(AND), new["command"]))
    sums = {"runs": old["runs"] + new["runs"], "by": dict(Counter(old["by"]) + Counter(new["by"]))}
    return {**new, **sums, "recover_s": [*old["recover_s"], *new["recover_s"]], "command": AND.join(commands)}


AND = "`, `"


def program() -> str:
    """What tells the program from one before or after a change: of two such, runs are not added up."""
    sha = hashlib.sha256()
    for path in sorted(path for name in ("streamlearn", "connectors") for path in (ROOT / name).rglob("*.py")):
        sha.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def machine() -> str:
    """What a reader has to know of it."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


INTRODUCTION = """\
# What it survives

Each line was written by the command under its table, which made the fault happen and checked what came of it; a fault that is
not survived stands here too. *Time to recover* is the median (and the longest) from the end of the fault, or the start of the
next process, to the first new work, on a machine that was busy with other things as well. Runs of the same program add up;
a program that was changed since begins a row anew. `make crash-matrix`, or
`python -m benchmarks.reliability GROUP`, runs a table again.

What the oracle is: an undisturbed run over the same records (and, with several partitions, the same order of them), whose
digests over parameters, memory, label map, metrics, random state and positions have to be equal, bit for bit; and counts made
from the stream itself, which know nothing of the program.
"""


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/reliability.md."""
    parts = [INTRODUCTION]
    for group, (title, _) in GROUPS.items():
        if mine := [row for row in rows if row["group"] == group]:
            parts.append(f"## {title}\n\n{table(mine)}\n{_made(mine)}")
    return "\n".join(parts)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = ["| scenario | how produced | times run | outcome | time to recover |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row["scenario"], row["produced"], _times(row), row["outcome"], _recovery(row["recover_s"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _times(row: Mapping[str, Any]) -> str:
    by = ", ".join(f"{name} {runs:,}" for name, runs in row.get("by", {}).items())
    return f"{row['runs']:,}" + (f" ({by})" if by else "")


def _made(rows: Sequence[Mapping[str, Any]]) -> str:
    made = dict.fromkeys(f"`{row['command']}`, {row['date']}, {row['machine']}" for row in rows)
    return "".join(f"Made by {each}.\n" for each in made)


def _recovery(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.2f} s ({max(seconds):.2f} s)"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return [row for row in rows if row["group"] in GROUPS]


def _first_line(error: BaseException) -> str:
    return (str(error) or "a claim did not hold").splitlines()[0][:300]
