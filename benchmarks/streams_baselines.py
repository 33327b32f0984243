"""What others get on the real streams: river's methods with their defaults, test-then-train, each row's label at once or late.

    python -m benchmarks.streams_baselines --rows 20000          every method on the first 20,000 rows of every stream
    python -m benchmarks.streams_baselines --methods no-change   one method, whole streams
    python -m benchmarks.streams_baselines --delay 100           labels that come late, as in `benchmarks.streams`

A cell (stream, method, rows, seed) that is in the file already is not run again.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from river import dummy, ensemble, forest, linear_model, multiclass, preprocessing, tree

from benchmarks.stream_data import AT_ONCE, STREAMS, Labels, Stream, accuracy, arrivals, kappa, stream
from streamlearn.disk import replace_file
from streamlearn.records import Array, Json

RESULTS = Path(__file__).parents[1] / "docs/results/streams_baselines.json"
METHODS: Mapping[str, Callable[[int], Any]] = {
    "no-change": lambda _: dummy.NoChangeClassifier(),
    "logistic": lambda _: preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "hat": lambda seed: tree.HoeffdingAdaptiveTreeClassifier(seed=seed),
    "arf10": lambda seed: forest.ARFClassifier(n_models=10, seed=seed),
    "srp10": lambda seed: ensemble.SRPClassifier(n_models=10, seed=seed),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Cells are written as they end, so an interrupted run goes on where it stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(arguments)
    kept = _kept(given.out)
    command = shlex.join(["python", "-m", "benchmarks.streams_baselines", *arguments])
    for method in given.methods:
        for name in given.streams:
            data = stream(name, given.rows)
            cell = f"{name}/{method}{given.suffix}/{len(data.y)}/{given.seed}"
            if cell not in kept["cells"]:
                found = run(METHODS[method](given.seed), data, Labels(given.delay, given.share), seed=given.seed)
                kept["cells"][cell] = {**found, "command": command}
                _write(given.out, kept)
                print(cell, kept["cells"][cell], flush=True)
    return 0


def run(model: Any, data: Stream, labels: Labels = AT_ONCE, *, seed: int = 1) -> dict[str, Json]:
    """One pass: accuracy and κ in per cent, seconds of learning and answering."""
    rows = [dict(enumerate(row)) for row in data.x.tolist()]
    began = time.process_time()
    if labels == AT_ONCE:
        answers = answered(model, rows, data.y.tolist())
    else:
        answers = _late(model, rows, data.y.tolist(), arrivals(len(rows), labels, seed))
    seconds = time.process_time() - began
    return {
        "rows": len(data.y),
        "accuracy": round(accuracy(data.y, answers), 3),
        "kappa": round(kappa(data.y, answers), 3),
        "seconds": round(seconds, 2),
        "samples_per_s": round(len(data.y) / seconds, 1),
    }


def answered(model: Any, rows: Sequence[Mapping[int, float]], labels: Sequence[int]) -> Array:
    """Each row's answer before its label was learned; −1 where there was none."""
    answers = np.full(len(rows), -1, np.int64)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        answer = model.predict_one(row)
        answers[i] = -1 if answer is None else answer
        model.learn_one(row, label)
    return answers


def _late(
    model: Any, rows: Sequence[Mapping[int, float]], labels: Sequence[int], order: Iterable[tuple[Array, slice]]
) -> Array:
    answers = np.full(len(rows), -1, np.int64)
    for known, asked in order:
        for i in known.tolist():
            model.learn_one(rows[i], labels[i])
        for i in range(asked.start, asked.stop):
            answer = model.predict_one(rows[i])
            answers[i] = -1 if answer is None else answer
    return answers


def _kept(path: Path) -> dict[str, Json]:
    if path.exists():
        found: dict[str, Json] = json.loads(path.read_text())
        return found
    versions = {name: version(name) for name in ("river", "numpy")} | {"python": platform.python_version()}
    return {"versions": versions, "machine": platform.machine(), "cells": {}}


def _write(path: Path, kept: Mapping[str, Json]) -> None:
    replace_file(path, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="of each stream; all when left out")
    parser.add_argument("--streams", nargs="+", default=STREAMS, choices=STREAMS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delay", type=int, default=0, help="rows until a label comes")
    parser.add_argument("--share", type=float, default=1.0, help="of rows whose label comes at all")
    parser.add_argument("--suffix", default="", help="of the method's name in the cells, such as @late-100")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
