"""The designs that are measured, and the page of what was found."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamlearn.records import Json


class Design(NamedTuple):
    """Who answers, and what else the machine does."""

    text: str
    processes: int = 1  # servers beside the learner; 0: in its own process
    learns: bool = True  # at full speed; else all is learned already
    workers: int | None = None  # MLServer's, instead of ours
    fixed: bool = False  # nginx with a fixed answer is asked, instead of ours
    hogs: int = 0  # other processes, each of which would take a core
    serve: Mapping[str, Json] = {}
    process: Mapping[str, Json] = {}


APART: dict[str, Any] = {"process": {"cpus": [0], "nice": 0}, "serve": {"cpus": [1]}}
DESIGNS: dict[str, Design] = {
    "fixed": Design("nginx with one fixed answer, nothing else", learns=False, fixed=True),
    "fixed-beside": Design("nginx with one fixed answer, learner at full speed", fixed=True, process={"nice": 0}),
    "idle": Design("server process, learner idle", learns=False),
    "followed": Design("server process, learner at full speed", process={"nice": 0}),
    "gives-way": Design("the same, `process.nice: 10`", process={"nice": 10}),
    "apart": Design("the same, `process.cpus: [0]`, `serve.cpus: [1]`", **APART),
    "inside-idle": Design("in the learner's process, learner idle", processes=0, learns=False),
    "inside": Design("in the learner's process, learner at full speed", processes=0),
    "mlserver": Design("MLServer, one worker process (its default)", workers=1),
    "mlserver-alone": Design("MLServer, no worker process", workers=0),
    "hogged": Design("server process, learner at full speed, another process that wants a core", hogs=1, process={"nice": 0}),
    "hogged-gives-way": Design("the same, `process.nice: 10`", hogs=1, process={"nice": 10}),
    "hogged-apart": Design("the same, `process.cpus: [0]`, `serve.cpus: [1]`", hogs=1, **APART),
    "hogged-first": Design("the same, `serve.nice: -5`", hogs=1, serve={"nice": -5}, process={"nice": 0}),
    "hogged-apart-first": Design(
        "the same, `process.cpus: [0]`, `serve.cpus: [1]`, `serve.nice: -5`",
        hogs=1,
        process={"cpus": [0], "nice": 0},
        serve={"cpus": [1], "nice": -5},
    ),
}

LATENCIES = ("p50, ms", "p99, ms", "p99.9, ms")
COLUMNS = ("who answers", "asked per s", "rounds", *LATENCIES, "failed", "learner ratio", "cores", "others", "stolen")

INTRODUCTION = """\
# Answers while it learns

One row of 64 numbers as JSON over HTTP (Open Inference Protocol v2), asked at a steady pace over 32 connections; a question is
due at its time whether or not those before were answered, and its latency counts from then. The learner is La-MAML on the
network 64-100-100-10, reading a synthetic stream as fast as it can, publishing ten snapshots a second; MLServer 1.7.1 has a
scikit-learn network of that size and nothing that learns. *Learner ratio*: samples learned a second beside the questions ÷ just
before and after, without them. *Cores*: processor time of the servers (in the learner's process: of all of it). *Others*: cores
that all else took, hogs of ours included and who asks not. *Stolen*: cores that the machine's host took away while something
here wanted them. nginx with a fixed answer computes nothing: nobody here can be faster. Medians over rounds (least – most);
each design is started anew in each round, so that designs take turns. Who asks runs on the same two cores, with real-time
priority where that is permitted. One pause of 50 ms in 5 s makes the p99 of its round: look at *stolen*, and at nginx, first.

"""

BOTTLENECK = """\
**Bottleneck**: the Python of the HTTP path, not the network. With warm caches and without the kernel (a connection driven in
process, python 3.11 on an AMD EPYC) a request costs about 160 µs: 32 to read it (httptools, uvicorn, bounds), 40 to make an
array of its JSON, 31 for the answer, 17 to write it, the rest in asyncio's tasks and the application. Where others use the
cores, cold caches make it twice as much, and who waits for whom at a core decides the p99: where the scheduler puts server and
learner on one core, an answer waits for the learner's turn to end, 3 to 5 ms. A learner that gives way (`process.nice`) ends
that at no cost to itself while cores are free; where neighbours want them too it gives way to those as well. Since this table
was made `process.nice` is 5 by default where server processes answer; rows that do not name it are of 0."""


def page(runs: Mapping[str, Json], machine: Mapping[str, str]) -> str:
    """docs/results/serving.md."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for run, cell in runs.items():
        of, rate, _ = run.split("/")
        found[of, int(rate)].append(cell)
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + len(COLUMNS) * "---|",
    ]
    for name, design in DESIGNS.items():
        for per_s in sorted(each for of, each in found if of == name):
            cells = found[name, per_s]
            failed = f"{sum(cell['failed'] for cell in cells):,} of {sum(cell['asked'] for cell in cells):,}"
            numbers = [_spread(cells, each) for each in ("p50_ms", "p99_ms", "p99.9_ms")]
            told = [
                *numbers,
                failed,
                *(_spread(cells, each) for each in ("learner_ratio", "server_cores", "other_cores", "stolen_cores")),
            ]
            lines.append(f"| {design.text} | {per_s:,} | {len(cells)} | " + " | ".join(told) + " |")
    made = ", ".join(f"{name} {value}" for name, value in machine.items())
    every = [cell for cells in found.values() for cell in cells]
    took, late = (_spread(every, each) for each in ("asker_cores", "late_p99_ms"))
    asker = f"Who asks took {took} cores, and its p99 of being late itself was {late} ms."
    return (
        f"{INTRODUCTION}{_goal(found)}"
        + "\n".join(lines)
        + f"\n\n{asker}\n\n{BOTTLENECK}\n\nMade by `make bench-serving`: 2 cores, {made}.\n"
    )


def _goal(found: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> str:
    """What was wanted at 1,000 questions a second, with two cores free, and whether it was reached here."""
    at_work, at_rest = found.get(("followed", 1000)), found.get(("idle", 1000))
    if not at_work or not at_rest:
        return ""
    p99, idle, others = _median(at_work, "p99_ms"), _median(at_rest, "p99_ms"), max(0.0, _median(at_work, "other_cores"))
    ratio = _median(at_work, "learner_ratio")
    wanted = [
        (f"p99 at most 1 ms: {p99:.2f}", p99 <= 1.0),
        (f"at most twice that of the idle learner: {p99 / idle:.1f} times", p99 <= 2 * idle),
        (f"learner ratio at least 0.95: {ratio:.2f}", ratio >= 0.95),
    ]
    told = "; ".join(f"{text}, {'met' if met else 'not met'}" for text, met in wanted)
    taken = f"{others:.2f} were taken by others here and {_median(at_work, 'stolen_cores'):.3f} by the machine's host"
    return f"**Goal** at 1,000 a second with two cores free, of which {taken}: {told}.{_floor(found, p99, idle)}\n\n"


def _floor(found: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]], p99: float, idle: float) -> str:
    """What the machine leaves to anybody: the same of nginx with a fixed answer."""
    alone, beside = found.get(("fixed", 1000)), found.get(("fixed-beside", 1000))
    if not alone or not beside:
        return ""
    least, least_beside = _median(alone, "p99_ms"), _median(beside, "p99_ms")
    ratio = _median(beside, "learner_ratio")
    return (
        f" On this machine nginx with a fixed answer has a p99 of {least:.2f} ms with nothing beside it (the server beside an"
        f" idle learner: {idle:.2f}), and of {least_beside:.2f} ms beside the learner at full speed (the server: {p99:.2f});"
        f" the learner then has a ratio of {ratio:.2f}. What these miss of the goal is out of anybody's reach here."
    )


def _median(cells: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(float(cell[name]) for cell in cells)


def _spread(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [float(cell[name]) for cell in cells if cell[name] is not None]
    if not values:
        return "–"
    middle = statistics.median(values)
    return f"{middle:.2f}" if len(values) == 1 else f"{middle:.2f} ({min(values):.2f} – {max(values):.2f})"
