"""A learner on the real streams: test-then-train, each row's label at once, late, or for a tenth of the rows.

    python -m benchmarks.streams                            the default learner, all streams in full, three seeds
    python -m benchmarks.streams --rows 20000 --seeds 0     the first 20,000 rows, one seed
    python -m benchmarks.streams --name now --learner '{"gate": {"quantile": 0}}'
    python -m benchmarks.streams --name late-100 --delay 100

A cell (stream, name, rows, seed) that is in the file already is not run again. Tables: `python -m benchmarks.streams_report`.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.stream_data import STREAMS, Stream, accuracy, kappa, met, stream
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json
from streamlearn.settings import read

RESULTS = Path(__file__).parents[1] / "docs/results/streams.json"
CALL = 1000  # rows of one call of `learn`


class Labels(NamedTuple):
    """When labels come."""

    delay: int = 0  # rows between an answer and its label, and up to a tenth more
    share: float = 1.0  # of rows whose label ever comes


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Cells are written as they end, so an interrupted run goes on where it stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    kept = _kept(given.out)
    command = shlex.join(["python", "-m", "benchmarks.streams", *arguments])
    compile_kernels(given.learner_name, given.learner)
    for name in given.streams:
        for seed in given.seeds:
            data = stream(name, given.rows)
            cell = f"{name}/{given.name}/{len(data.y)}/{seed}"
            if cell not in kept["cells"]:
                made = learner(given.learner_name, given.learner, columns=data.x.shape[1], seed=seed)
                found = run(made, data, Labels(given.delay, given.share), seed=seed)
                kept["cells"][cell] = {**found, "whole": data.whole, "command": command}
                write(given.out, kept)
                print(cell, found, flush=True)
    return 0


def learner(name: str, settings: Mapping[str, Json], *, columns: int, seed: int) -> Learner:
    """As the daemon would make it."""
    module, _, attribute = LEARNERS[name].partition(":")
    kind = getattr(import_module(module), attribute)
    made: Learner = kind(read(kind.Settings, settings, path="learner"), Task((columns,), seed=seed))
    return made


def run(made: Learner, data: Stream, labels: Labels, *, seed: int) -> dict[str, Json]:
    """One pass: accuracy and κ in per cent, seconds of CPU in the learner, bytes of its state."""
    y = met(data.y)
    began = time.process_time()
    if labels == Labels():
        answers, measures = _at_once(made, data.x, y)
    else:
        answers, measures = _late(made, data.x, y, labels, seed=seed)
    seconds = time.process_time() - began
    return {
        "rows": len(y),
        "accuracy": round(accuracy(y, answers), 3),
        "kappa": round(kappa(y, answers), 3),
        "seconds": round(seconds, 2),
        "samples_per_s": round(len(y) / seconds, 1),
        "state_bytes": sum(array.nbytes for array in made.state().arrays.values()),
        "measures": {name: round(value, 4) for name, value in measures.items()},
    }


def _at_once(made: Learner, x: Array, y: Array) -> tuple[Array, Mapping[str, float]]:
    answers, measures = [], {}
    whole = len(y) - len(y) % made.chunk
    for start in range(0, whole, CALL):
        report = made.learn(Batch.of(x[start : min(start + CALL, whole)], y[start : min(start + CALL, whole)]))
        answers.append(_best(report.logits))
        measures = dict(report.measures)
    return np.concatenate([*answers, _best(made.predict(x[whole:]))]), measures


def _late(made: Learner, x: Array, y: Array, labels: Labels, *, seed: int) -> tuple[Array, Mapping[str, float]]:
    """Rows are answered when they come, in blocks of a tenth of the delay, and learned when their label does."""
    comes = np.random.default_rng(seed).random(len(y)) < labels.share
    block, answers, measures = max(1, labels.delay // 10), np.zeros(len(y), np.int64), {}
    for start in range(0, len(y), block):
        due = slice(max(0, start - labels.delay - block), max(0, start - labels.delay))
        known = np.flatnonzero(comes[due]) + due.start
        if len(known):
            measures = dict(made.learn(Batch.of(x[known], y[known])).measures)
        answers[start : start + block] = _best(made.predict(x[start : start + block]))
    return answers, measures


def _best(logits: Array) -> Array:
    best: Array = logits.argmax(1) if logits.shape[1] else np.full(len(logits), -1)
    return best


def compile_kernels(name: str, settings: Mapping[str, Json]) -> None:
    """A few rows through the learner, so that no cell pays for it."""
    made = learner(name, settings, columns=3, seed=0)
    made.learn(Batch.of(np.ones((made.chunk * 4, 3)), np.arange(made.chunk * 4) % 2))
    made.predict(np.ones((1, 3), np.float32))


def _kept(path: Path) -> dict[str, Json]:
    if path.exists():
        found: dict[str, Json] = json.loads(path.read_text())
        return found
    versions = {name: version(name) for name in ("numpy", "numba", "torch")} | {"python": platform.python_version()}
    return {"versions": versions, "machine": platform.machine(), "cells": {}}


def write(path: Path, kept: Mapping[str, Json]) -> None:
    """All of the file, or none of it."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    beside.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="of each stream; all when left out")
    parser.add_argument("--streams", nargs="+", default=STREAMS, choices=STREAMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--name", default="pool", help="of the cells in the file")
    parser.add_argument("--learner-name", default="pool", choices=list(LEARNERS))
    parser.add_argument("--learner", type=json.loads, default={}, help="its settings, as JSON")
    parser.add_argument("--delay", type=int, default=0, help="rows until a label comes")
    parser.add_argument("--share", type=float, default=1.0, help="of rows whose label comes at all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
