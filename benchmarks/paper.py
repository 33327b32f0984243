"""The paper's streams, learner by learner: accuracy kept, accuracy right after each task, interference, cost.

    python -m benchmarks.paper --seeds 0 1 2 3 4
    python -m benchmarks.paper --streams rotations --learners la-maml sliding-look-ahead --seeds 0

One thread. Every run that is not yet in `docs/results/paper.json` is made and put there as it ends, so that what was stopped
goes on; `docs/results/paper.md` is written anew from it. Data: the folder that STREAMLEARN_DATA names.
"""

import argparse
import importlib
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import command_line, fill, report
from benchmarks.images import Images, images
from benchmarks.paper_plan import LEARNERS, options
from benchmarks.paper_report import table
from benchmarks.tasks import STREAMS, Shape, View, samples, views
from streamlearn.learners import LEARNERS as REGISTERED
from streamlearn.learners.task import Task
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "paper.json"
ABOUT = ("auto", "ever")


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    source = images()
    for stream in asked.streams:
        for row in asked.learners:
            for seed in asked.seeds:
                fill(asked.results, f"{stream}/{row}/{seed}", partial(run, source, stream, row, seed))
    report(asked.results, table)


def run(source: Images, stream: str, row: str, seed: int) -> dict[str, Json]:
    """One learner over one stream."""
    shape = STREAMS[stream]
    learner = make(row, stream, seed, pixels=x_size(source))
    return measured(learner, _stream(source, shape, row, seed), views(shape, x_size(source)), source)


def measured(learner: Learner, parts: Iterable[tuple[Array, Array]], shown: Sequence[View], source: Images) -> dict[str, Json]:
    """Learn part by part; the test images are asked as each view shows them, right after its part and at the end."""
    just_after: dict[str, list[float]] = {about: [] for about in ABOUT}
    cpu_s = 0.0
    measures: Mapping[str, float] = {}
    for (x, y), view in zip(parts, shown, strict=True):
        began = time.process_time()
        measures = learner.learn(Batch.of(x, y)).measures
        cpu_s += time.process_time() - began
        for about, value in _accuracy(learner, view.seen(source.x_test), source.y_test).items():
            just_after[about].append(value)
    final = [_accuracy(learner, view.seen(source.x_test), source.y_test) for view in shown]
    cell: dict[str, Json] = {"cpu_s": cpu_s, "zero_rates": measures.get("step_size_zero_ratio")}
    for about in ABOUT:
        kept = [accuracy[about] for accuracy in final]
        cell[about] = {
            "retained": float(np.mean(kept)),
            "just_after": float(np.mean(just_after[about])),
            "interference": float(np.mean(kept) - np.mean(just_after[about])),
        }
    return cell


def make(row: str, stream: str, seed: int, *, pixels: int) -> Learner:
    """The learner of a row, fresh, with the paper's network."""
    name, chosen = options(row, stream)
    module, _, attribute = REGISTERED[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    memory = {"memory": {"rows": STREAMS[stream].memory}} if "memory" in kind.Settings.model_fields else {}
    made: Learner = kind(kind.Settings(**{**chosen, **memory}), Task((pixels,), max_labels=10, seed=seed))
    return made


def x_size(source: Images) -> int:
    """Pixels of an image."""
    return int(np.prod(source.x_train.shape[1:]))


def _stream(source: Images, shape: Shape, row: str, seed: int) -> Iterable[tuple[Array, Array]]:
    """Task by task; for the upper row the same samples, shuffled and cut into as many parts."""
    if row != "iid":
        return samples(source, shape, seed)
    x, y = (np.concatenate(part) for part in zip(*samples(source, shape, seed), strict=True))
    order = np.random.default_rng([seed, 4]).permutation(len(y))
    return [(x[part], y[part]) for part in np.array_split(order, shape.tasks)]


def _accuracy(learner: Learner, x: Array, y: Array) -> dict[str, float]:
    """Per cent, by what the question is about."""
    first = float((learner.predict(x).argmax(1) == y).mean() * 100)
    if not any(name.startswith("ever/") for name in learner.answering().arrays):
        return dict.fromkeys(ABOUT, first)
    return {"auto": first, "ever": float((learner.predict(x, about="ever").argmax(1) == y).mean() * 100)}


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS, seeds=range(5))
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS))
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
