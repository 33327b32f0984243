"""A learner on the real streams: test-then-train, each row's label at once, late, or for a tenth of the rows.

    python -m benchmarks.streams                            the default learner, all streams in full, three seeds
    python -m benchmarks.streams --rows 20000 --seeds 0     the first 20,000 rows, one seed
    python -m benchmarks.streams --name now --learner '{"gate": {"quantile": 0}}'
    python -m benchmarks.streams --name pool@served-500 --served 500      answers of a snapshot that is so many rows old
    python -m benchmarks.streams --name pool@late-100 --delay 100            labels that come late
    python -m benchmarks.streams --name pool@late-100 --delay 100 --members  and what each member of the pool would have said

A cell (stream, name, rows, seed) that is in the file already is not run again. Tables: `python -m benchmarks.streams_report`.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.stream_data import AT_ONCE, STREAMS, Labels, Stream, accuracy, arrivals, kappa, met, stream
from streamlearn.disk import replace_file
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json, stacked_evidence
from streamlearn.serving.forms import form_named
from streamlearn.settings import read

RESULTS = Path(__file__).parents[1] / "docs/results/streams.json"
CALL = 1000  # rows of one call of `learn`


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
                found = run(
                    made,
                    data,
                    Labels(given.served or given.delay, given.share, given.served > 0),
                    seed=seed,
                    members=given.members,
                )
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


def run(made: Learner, data: Stream, labels: Labels, *, seed: int, members: bool = False) -> dict[str, Json]:
    """One pass: accuracy and κ in per cent, seconds of CPU in the learner, bytes of its state."""
    y = met(data.y)
    each: dict[str, Array] = {}
    began = time.process_time()
    if labels == AT_ONCE:
        answers, measures = _at_once(made, data.x, y)
    else:
        stream, order = Stream(data.name, data.x, y, data.whole), arrivals(len(y), labels, seed)
        answers, measures = _late(made, stream, order, each if members else None, is_served=labels.is_served)
    seconds = time.process_time() - began
    found: dict[str, Json] = {
        "rows": len(y),
        "accuracy": round(accuracy(y, answers), 3),
        "kappa": round(kappa(y, answers), 3),
        "seconds": round(seconds, 2),
        "samples_per_s": round(len(y) / seconds, 1),
        "state_bytes": sum(array.nbytes for array in made.state().arrays.values()),
        "measures": {name: round(value, 4) for name, value in measures.items()},
    }
    if each:
        found["members"] = {name: round(accuracy(y, given), 3) for name, given in each.items()}
    return found


def _at_once(made: Learner, x: Array, y: Array) -> tuple[Array, Mapping[str, float]]:
    answers, measures = [], {}
    whole = len(y) - len(y) % made.chunk
    for start in range(0, whole, CALL):
        report = made.learn(Batch.of(x[start : min(start + CALL, whole)], y[start : min(start + CALL, whole)]))
        answers.append(_best(report.logits))
        measures = dict(report.measures)
    return np.concatenate([*answers, _best(made.predict(x[whole:]))]), measures


Arrivals = Iterable[tuple[Array, slice]]


def _late(
    made: Learner, data: Stream, order: Arrivals, each: dict[str, Array] | None, *, is_served: bool
) -> tuple[Array, Mapping[str, float]]:
    """Rows are answered when they come, and learned when their label does. `each` takes the answers of each member.

    Where it is only the served snapshot that is old, the learner is told of no late label.
    """
    answers, measures = np.zeros(len(data.y), np.int64), {}
    kept: dict[int, Array] = {}
    for known, asked in order:
        if len(known):
            batch = Batch.of(data.x[known], data.y[known])
            evidence = stacked_evidence([kept.pop(n)[None] for n in known.tolist()])
            measures = dict(made.learn(batch if is_served else replace(batch, evidence=evidence)).measures)
        answer = made.answer(data.x[asked])
        answers[asked] = _best(answer.logits)
        kept |= zip(range(len(data.y))[asked], answer.evidence, strict=True)
        if each is not None:
            for name, given in _of_members(made, data.x[asked]):
                each.setdefault(name, np.full(len(data.y), -1))[asked] = given
    return answers, measures


def _of_members(made: Learner, x: Array) -> Iterator[tuple[str, Array]]:
    """What each member of a pool says, as servers would have it."""
    answering = made.answering()
    form = form_named(answering.form)
    arrays = {name: array for name, array in answering.arrays.items() if name != "now.weights"}
    for name in answering.settings["now"] if len(answering.arrays["active"]) else ():
        yield name, _best(form(arrays, {**answering.settings, "now": [name], "about": "now"}, x))


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
    replace_file(path, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())


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
    parser.add_argument("--served", type=int, default=0, help="labels come at once; rows of learning that answers lag behind")
    parser.add_argument("--members", action="store_true", help="with late labels: the accuracy of each member of the pool too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
