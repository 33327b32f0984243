"""What a sample costs as work grows: with the length of the stream, the memory, the chunk, rows in a call, and labels.

    python -m benchmarks.cost                                   table and plot in docs/results/cost.*
    python -m benchmarks.cost --grows memory labels --learners la-maml

CPU microseconds a sample of whole `learn` calls on one thread, median and quartiles of calls; bytes are those of the state. A
point that is in docs/results/cost.json already is not measured again.
"""

import argparse
import importlib
import json
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.cells import keep, known, machine
from benchmarks.cost_report import draw, table
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parents[1] / "docs/results/cost.json"
COLUMNS, LABELS, CALL, STRETCHES = 16, 10, 1000, 10


class Size(NamedTuple):
    """What is measured at one point."""

    settings: Mapping[str, Json]
    labels: int = LABELS
    call: int = 100  # rows of a call of `learn`, or the next whole number of chunks
    fill: int = 0  # rows that are learned first, where the memory cannot be filled without


ROWS = (200, 1000, 10_000, 100_000)
GROWS: Mapping[str, Mapping[str, Mapping[int, Size]]] = {
    "memory": {
        "la-maml": {rows: Size({"memory": {"rows": rows}}) for rows in ROWS},
        "pool": {rows: Size({"sliding_look_ahead": {"memory": {"rows": rows}}}, fill=rows) for rows in ROWS},
    },
    "chunk": {"la-maml": {rows: Size({"chunk": rows, "inner_chunks": min(rows, 10)}) for rows in (1, 10, 50, 250)}},
    "call": {name: {rows: Size({}, call=rows) for rows in (1, 10, 100, 1000, 10_000)} for name in ("la-maml", "pool")},
    "labels": {name: {count: Size({}, count) for count in (10, 100, 1000, 10_000)} for name in ("la-maml", "pool")},
}
"""What grows → learner → how far → its settings there."""


def main() -> None:
    """Measure what is asked for and missing, print it, keep it; then write table and plot anew."""
    asked = _arguments()
    torch.set_num_threads(1)
    for name in asked.learners:
        for what in asked.grows:
            for size, found in _along(name, asked) if what == "stream" else _points(what, name, asked.out):
                keep(asked.out, f"{what}/{name}/{size}", found)
                print(what, name, size, json.dumps(found), flush=True)
    asked.out.with_suffix(".md").write_text(table(known(asked.out), machine()))
    draw(known(asked.out), asked.out.with_suffix(".svg"))


def made(name: str, size: Size) -> Learner:
    """A learner of its own settings, fresh, that has all labels in its softmax."""
    module, _, attribute = LEARNERS[name].partition(":")
    kind: Any = getattr(importlib.import_module(module), attribute)
    learner: Learner = kind(kind.Settings(**size.settings), Task((COLUMNS,), max_labels=size.labels, known=size.labels))
    return learner


def drawn(first: int, count: int, labels: int) -> Batch:
    """Rows `first` to `first + count` of an endless stream: each label has a centre."""
    random = np.random.default_rng([1, first])
    y = random.integers(0, labels, count)
    centres = np.random.default_rng(0).normal(size=(labels, COLUMNS))
    return Batch.of(centres[y] + 0.5 * random.normal(size=(count, COLUMNS)), y)


def _points(what: str, name: str, out: Path) -> Iterator[tuple[int, dict[str, Json]]]:
    for size, given in GROWS[what].get(name, {}).items():
        if f"{what}/{name}/{size}" not in known(out):
            learner = made(name, given)
            rows, start = _whole(learner, given.call), 0
            while start < max(given.fill, 200):
                learner.learn(drawn(start, rows, given.labels))
                start += rows
            _fill(learner, given.labels)
            times = [_timed(learner, drawn(start + call * rows, rows, given.labels)) for call in range(15)]
            yield size, _found(learner, np.array(times))


def _fill(learner: Learner, labels: int) -> None:
    """Rows for all of the replay memory, offered without being learned."""
    memory = getattr(learner, "memory", None)
    if memory is not None:
        batch = drawn(labels, 2 * memory.capacity, labels)
        columns = {name: torch.zeros((len(batch), *c.shape[1:]), dtype=c.dtype) for name, c in memory.columns.items()}
        memory.offer({**columns, "x": torch.from_numpy(batch.x), "label": torch.from_numpy(batch.labels)})


def _along(name: str, asked: argparse.Namespace) -> Iterator[tuple[int, dict[str, Json]]]:
    """Ten stretches of a stream: a learner whose cost or memory grows with it shows here."""
    learner = made(name, Size({}))
    call = _whole(learner, CALL)
    calls = max(1, asked.rows // call // STRETCHES)
    if f"stream/{name}/{STRETCHES * calls * call}" in known(asked.out):
        return
    for stretch in range(STRETCHES):
        times = [_timed(learner, drawn((stretch * calls + c) * call, call, LABELS)) for c in range(calls)]
        yield (stretch + 1) * calls * call, {**_found(learner, np.array(times)), "resident_bytes": _resident()}


def _resident() -> int:
    """Of this process, where the system says so."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() if status.exists() else 0


def _whole(learner: Learner, rows: int) -> int:
    return max(1, rows // learner.chunk) * learner.chunk


def _timed(learner: Learner, batch: Batch) -> float:
    began = time.thread_time()
    learner.learn(batch)
    return 1e6 * (time.thread_time() - began) / len(batch)


def _found(learner: Learner, times: Array) -> dict[str, Json]:
    low, middle, high = (round(float(v), 1) for v in np.percentile(times, [25, 50, 75]))
    return {"us": middle, "quartiles": [low, high], "state_bytes": sum(a.nbytes for a in learner.state().arrays.values())}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices: Sequence[str] = (*GROWS, "stream")
    parser.add_argument("--grows", nargs="+", choices=choices, default=choices)
    parser.add_argument("--learners", nargs="+", choices=("la-maml", "pool"), default=("pool", "la-maml"))
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the stream")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
