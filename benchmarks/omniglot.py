"""Characters never seen before, one after another, one drawing an update, once: how many of them a head still knows.

    python -m benchmarks.omniglot                                          # narrow, three seeds, one CPU core: 45 minutes
    python -m benchmarks.omniglot --width medium                           # an hour of one CPU core a seed
    python -m benchmarks.omniglot --device cuda --width full --seeds 0     # as published; hours on a GPU, goes on where it was

A trunk is trained on Omniglot's background characters (or not), then stays as it is; a learner of the product learns 600
evaluation characters on its features, 15 drawings each, and is asked 5 others of each so far after 10, 50, 100, 200, 400 and
600 characters. Its step size is chosen on background characters that no trunk was trained on. Cells that are not yet in
docs/results/omniglot.json are made and put there as they end; docs/results/omniglot.md is written anew from them.
"""

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import command_line, keep, known, report
from benchmarks.images import Images
from benchmarks.omniglot_data import Stream, characters, features, rows_by_class, said_of, stream
from benchmarks.omniglot_plan import ASKED, HEADS, TAUGHT, TRUNKS, WIDTHS, Head, Width
from benchmarks.omniglot_report import table
from benchmarks.omniglot_trunks import corpus, trunk
from streamlearn.inputs import InputSettings
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Initialisation, Json

HERE = Path(__file__).parent.parent
RESULTS = HERE / "docs" / "results" / "omniglot.json"


def main() -> None:
    """Make the cells that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    source = characters()
    for seed in asked.seeds:
        for name in asked.trunks:
            fill(source, asked, name, seed)
    report(asked.results, table)


def fill(source: Images, asked: argparse.Namespace, name: str, seed: int) -> None:
    """One trunk, and the heads on it that are missing."""
    cells = {part: f"{asked.width}/{name}/{part}/{seed}" for part in ("features", *asked.heads)}
    missing = [part for part, cell in cells.items() if cell not in known(asked.results)]
    if not missing:
        return
    width = WIDTHS[asked.width]
    start, cpu_s = trunk(name, width, seed=seed, folder=asked.folder / asked.width, device=asked.device)
    far = stream(rows_by_class(source.y_test), characters=max(width.lengths), taught=TAUGHT, asked=ASKED, seed=seed)
    shown = features(start, source.x_test, device=asked.device)
    near, held_out = _held_out(source, start, width, seed=seed, device=asked.device)
    for part in missing:
        if part == "features":
            kinds = {"after": shown}
            if start.algorithm == "anml":
                kinds["before"] = features(start, source.x_test, device=asked.device, gated=False)
            cell: dict[str, Json] = {kind: said_of(made, far) for kind, made in kinds.items()}
            steps = width.trained[name].steps if name in width.trained else 0
            cell |= {"steps": steps, "best_after": start.steps, "held_out": dict(start.measures)}
            cell |= {"cpu_s": cpu_s, "device": asked.device}
        else:
            cell = run(HEADS[part], shown, far, seed=seed, lengths=width.lengths, tuned=(near, held_out))
        keep(asked.results, cells[part], cell)
        print(cells[part], json.dumps(cell), flush=True)


def _held_out(source: Images, start: Initialisation, width: Width, *, seed: int, device: str) -> tuple[Array, Stream]:
    """Features of background characters that were held out of this seed's training, and a stream of them."""
    held = list(corpus(source, seed).held_out)
    rows = np.concatenate(held)
    places = np.split(np.arange(len(rows)), np.cumsum([len(c) for c in held])[:-1])
    part = stream(places, characters=width.validation_classes, taught=TAUGHT, asked=ASKED, seed=seed)
    return features(start, source.x_train[rows], device=device), part


def run(
    head: Head, shown: Array, far: Stream, *, seed: int, lengths: Sequence[int], tuned: tuple[Array, Stream]
) -> dict[str, Json]:
    """A head on features, its step size chosen beforehand on others."""
    rates: dict[str, float] = {}
    for rate in head.rates:
        learner = on_features(head, tuned[0].shape[1], seed=seed, rate=rate)
        rates[f"{rate:g}"] = learned(learner, *tuned, lengths=[len(tuned[1].taught)])["test"].popitem()[1]
    best = max(rates, key=lambda rate: rates[rate]) if rates else None
    found = learned(on_features(head, shown.shape[1], seed=seed, rate=float(best or 0)), shown, far, lengths=lengths)
    return {**found, "rate": best, "rates": rates}


def learned(learner: Learner, shown: Array, far: Stream, *, lengths: Sequence[int]) -> dict[str, Json]:
    """One pass over the stream; per cent of right answers by number of characters, of asked and of taught drawings."""
    test: dict[str, float] = {}
    train: dict[str, float] = {}
    cpu_s = 0.0
    for number, rows in enumerate(far.taught):
        began = time.process_time()
        learner.learn(Batch.of(shown[rows], np.full(len(rows), number)))
        cpu_s += time.process_time() - began
        if number + 1 in lengths:
            for kept, part in ((test, far.asked), (train, far.taught)):
                kept[str(number + 1)] = _right(learner, shown, part[: number + 1])
    return {"test": test, "train": train, "cpu_s": cpu_s}


def _right(learner: Learner, shown: Array, rows: Array) -> float:
    truth = np.repeat(np.arange(len(rows)), rows.shape[1])
    return 100 * float((learner.predict(shown[rows.reshape(-1)]).argmax(1) == truth).mean())


def on_features(head: Head, size: int, *, seed: int, rate: float) -> Learner:
    """A fresh learner whose inputs are a trunk's features: its network is the head alone."""
    return made(head, Task((size,), seed=seed, model=ModelSettings(hidden=())), rate)


def from_start(head: Head, start: Initialisation, *, seed: int, rate: float) -> Learner:
    """The same, from the warm start, with images for inputs: as the daemon has it."""
    model, inputs = ModelSettings(**start.model), InputSettings(**start.inputs)
    return made(head, Task(start.shape, seed=seed, model=model, inputs=inputs, start=start), rate)


def made(head: Head, task: Task, rate: float) -> Learner:
    """A fresh learner with the settings of `head`."""
    module, _, attribute = LEARNERS[head.learner].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    learner: Learner = kind(kind.Settings(**head.settings, **({head.rate: rate} if head.rate else {})), task)
    return learner


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    parser.add_argument("--width", choices=WIDTHS, default="narrow")
    parser.add_argument("--trunks", nargs="+", choices=TRUNKS, default=list(TRUNKS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--device", default="cpu", help="of the trunks; heads learn on the CPU (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=HERE / "build" / "omniglot", help="where trunks are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
