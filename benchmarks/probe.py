"""Does the probe tell the truth? Retention by era as the daemon measures it, beside held-out test images of the same tasks.

    python -m benchmarks.probe --seeds 0 1 2

Two streams of 5,000 records a task: MNIST turned to ten angles, and Fashion-MNIST two classes at a time. An era is a task. At
each task's end the probe and all test images of the tasks so far are asked of the same model: one cell of the accuracy matrix
each. The same stream is learned once more without a probe, to see what the learner loses by the records that are kept from it.
A third stream, `returning`, asks how soon a context is learned and learned again (`visits.py`).
Every run that is not yet in `docs/results/probe.json` is made, and put there as it ends; `docs/results/probe.md` is written
anew.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import visits
from benchmarks.cells import command_line, keep, known, report
from benchmarks.images import FOLDER, Images
from benchmarks.paper import ABOUT, make
from benchmarks.probe_report import RETURNING, table
from benchmarks.tasks import Shape, views
from streamlearn.probe import Probe, Settings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "probe.json"
LEARNERS = ("sliding-look-ahead", "la-maml", "er")
SHARES = (0.05, 0.02, 0.0)
RECORDS = 5000  # of a task, and of an era
PIXELS = 28 * 28


class Part(NamedTuple):
    """A task: what is learned of it, and what is asked about it."""

    x: Array  # float32 [RECORDS, PIXELS]
    y: Array  # int64
    x_test: Array
    y_test: Array


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    for stream, learner, share, seed in product(asked.streams, asked.learners, asked.shares, asked.seeds):
        name = f"{stream}/{learner}/{share:g}/{seed}"
        if name not in known(asked.results) and (stream != RETURNING or not share):
            keep(asked.results, name, _found(stream, learner, share, seed))
            print(name, flush=True)
    report(asked.results, table)


def _found(stream: str, learner: str, share: float, seed: int) -> dict[str, Json]:
    if stream == RETURNING:
        return visits.run(_images("mnist"), learner, seed)
    return run(STREAMS[stream](seed), learner, share, seed)


def run(parts: Iterator[Part], row: str, share: float, seed: int) -> dict[str, Json]:
    """One learner over one stream, with this share of the records kept from it."""
    learner = make(row, "rotations", seed, pixels=PIXELS)
    probe = Probe(Settings(share=share, max_rows=20 * 300, max_eras=20, era_records=RECORDS, score_every=RECORDS), seed=seed)
    met: list[Part] = []
    true: dict[str, list[list[float]]] = {about: [] for about in ABOUT}
    for part in parts:
        met.append(part)
        _learn(learner, probe, part)
        if probe.is_due:
            probe.score(lambda x, about: learner.predict(x, about=about))
        for about in ABOUT:
            true[about].append([_accuracy(learner, each, about) for each in met])
    shown = {about: [list(map(float, line)) for line in probe.matrix[about]] for about in ABOUT}
    return {"rows": [len(era) for era in probe.eras], "probe": shown, "true": true}


def _learn(learner: Learner, probe: Probe, part: Part) -> None:
    """Records that the probe takes go past the learner; what is left of a chunk waits for the next task."""
    kept = np.array([not probe.offer(x, int(y)) for x, y in zip(part.x, part.y, strict=True)])
    x, y = part.x[kept], part.y[kept]
    whole = len(y) // learner.chunk * learner.chunk
    learner.learn(Batch.of(x[:whole], y[:whole]))


def _accuracy(learner: Learner, part: Part, about: str) -> float:
    return float((learner.predict(part.x_test, about=about).argmax(1) == part.y_test).mean())  # type: ignore[arg-type]  # of ABOUT


def turned(seed: int, source: Images | None = None) -> Iterator[Part]:
    """Ten angles, each with records of its own."""
    source = source or _images("mnist")
    order = np.random.default_rng([seed, 1]).permutation(len(source.y_train))
    for view, rows in zip(views(Shape(10, RECORDS, 0, turns=True), PIXELS), order.reshape(10, -1)[:, :RECORDS], strict=True):
        yield Part(view.seen(source.x_train[rows]), source.y_train[rows], view.seen(source.x_test), source.y_test)


def split(seed: int, source: Images | None = None) -> Iterator[Part]:
    """Five times two classes that were not seen before."""
    source = source or _images("fashion_mnist")
    generator = np.random.default_rng([seed, 1])
    for first in range(0, 10, 2):
        rows = generator.permutation(np.flatnonzero(source.y_train // 2 * 2 == first))[:RECORDS]
        asked = np.flatnonzero(source.y_test // 2 * 2 == first)
        yield Part(_flat(source.x_train[rows]), source.y_train[rows], _flat(source.x_test[asked]), source.y_test[asked])


STREAMS = {"turned": turned, "split": split}


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1) / np.float32(255)


def _images(name: str) -> Images:
    if FOLDER not in os.environ:
        raise SystemExit(f"{FOLDER} is not set: it names the folder that holds {name}.npz")
    with np.load(Path(os.environ[FOLDER]) / f"{name}.npz", allow_pickle=False) as file:
        return Images(name, file["x_train"], file["y_train"], file["x_test"], file["y_test"])


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    parser.add_argument("--streams", nargs="+", choices=[*STREAMS, RETURNING], default=[*STREAMS, RETURNING])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
