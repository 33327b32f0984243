"""A stream whose task changes unannounced and comes from three worlds, each chunk asked before it is learned: after OSAKA.

    python -m benchmarks.osaka
    python -m benchmarks.osaka --stays 0.98 --rows sgd continual-maml --seeds 0

A chunk holds 5 images of each of 10 classes. With chance 1 − α the next chunk has another task: half of them 10 evaluation
characters of Omniglot, a quarter the digits of MNIST, a quarter Fashion-MNIST, under labels 0 to 9 in an order of its own.
Runs that are not yet in docs/results/osaka.json are made and put there as they end; docs/results/osaka.md is written anew.

Source  Caccia et al. 2020. Shorter than theirs (10,000 chunks), with a perceptron in place of four convolutions and characters
        that no pre-training saw; without prolonged adaptation.
"""

import argparse
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.cells import command_line, fill, report
from benchmarks.images import FOLDER
from benchmarks.osaka_plan import EACH, MODEL, PRE_STEPS, ROWS, SHARES, STAYS, STEPS, TUNED_SEED, TUNED_STEPS, WAYS, Row
from benchmarks.osaka_report import table
from streamlearn.inputs import InputSettings
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.settings import MetaSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Initialisation, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "osaka.json"
INPUTS = InputSettings(kind="scale", factor=1 / 255)


class World(NamedTuple):
    """Images by class."""

    x: Array  # uint8 [n, height, width]
    by_class: list[Array]


class Chunk(NamedTuple):
    """What is asked, then learned."""

    x: Array
    y: Array
    world: str
    is_new: bool  # first of its task


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    sources, background = worlds()

    def made(stays: float, row: Row, seed: int) -> dict[str, Json]:
        start = pre_trained(background, seed) if row.is_warm else None
        return run(sources, row, stays=stays, seed=seed, start=start)

    for seed in asked.seeds:
        for stays in asked.stays:
            for row in asked.rows:
                fill(asked.results, f"{stays}/{row}/{seed}", partial(made, stays, ROWS[row], seed))
    report(asked.results, table)


def worlds() -> tuple[dict[str, World], World]:
    """The three sources of the stream, and Omniglot's background characters."""
    folder = Path(os.environ[FOLDER])
    with np.load(folder / "omniglot28.npz", allow_pickle=False) as file:
        made = {"Omniglot": _world(file["x_test"], file["y_test"])}
        background = _world(file["x_train"], file["y_train"])
    for name, path in (("MNIST", "mnist.npz"), ("Fashion-MNIST", "fashion_mnist.npz")):
        with np.load(folder / path, allow_pickle=False) as file:
            made[name] = _world(file["x_train"], file["y_train"])
    return made, background


def _world(x: Array, y: Array) -> World:
    return World(x, [np.flatnonzero(y == label) for label in np.unique(y)])


def stream(sources: Mapping[str, World], *, stays: float, steps: int, seed: int) -> Iterator[Chunk]:
    """Chunks, each in random order."""
    random = np.random.default_rng([seed, 8])
    names, is_new = list(SHARES), True
    for _ in range(steps):
        if is_new:
            name = str(random.choice(names, p=list(SHARES.values())))
            classes = random.permutation(len(sources[name].by_class))[:WAYS]
        world = sources[name]
        rows = np.concatenate([random.choice(world.by_class[c], EACH, replace=False) for c in classes])
        order = random.permutation(len(rows))
        yield Chunk(world.x[rows[order]].astype(np.float32), np.repeat(np.arange(WAYS), EACH)[order], name, is_new)
        is_new = bool(random.random() >= stays)


def run(
    sources: Mapping[str, World], row: Row, *, stays: float, seed: int, start: Initialisation | None, steps: int = STEPS
) -> dict[str, Json]:
    """One learner over one stream; its settings are the best over the beginning of another."""
    short = list(stream(sources, stays=stays, steps=min(TUNED_STEPS, steps), seed=TUNED_SEED + seed))
    tried = [score(make(row, own, start, seed), short)["all"] for own in row.tried]
    best = row.tried[int(np.argmax(tried))]
    found = score(make(row, best, start, seed), stream(sources, stays=stays, steps=steps, seed=seed))
    return {**found, "chosen": dict(best), "tried": tried, "steps": steps}


def score(learner: Learner, chunks: "Iterator[Chunk] | list[Chunk]") -> dict[str, Json]:
    """Per cent of right answers given before their chunk was learned, over all of the stream, by world and by place in a task;
    and how often a switch was seen where there was one, and where there was none."""
    right: dict[str, list[float]] = {name: [] for name in ("all", "first of a task", "later", *SHARES)}
    seen: dict[bool, list[float]] = {True: [], False: []}
    cpu_s = 0.0
    for number, chunk in enumerate(chunks):
        began = time.process_time()
        report = learner.learn(Batch.of(chunk.x, chunk.y))
        cpu_s += time.process_time() - began
        hits = report.logits.argmax(1) == chunk.y if report.logits.shape[1] else np.zeros(len(chunk.y))
        for name in ("all", "first of a task" if chunk.is_new else "later", chunk.world):
            right[name].append(100 * float(np.mean(hits)))
        if number and "context_switch" in report.measures:
            seen[chunk.is_new].append(100 * report.measures["context_switch"])
    cell: dict[str, Json] = {name: float(np.mean(values)) if values else None for name, values in right.items()}
    rates = {name: float(np.mean(seen[new])) if seen[new] else None for name, new in (("found", True), ("false", False))}
    return {**cell, **rates, "cpu_s": cpu_s}


def make(row: Row, own: Mapping[str, Json], start: Initialisation | None, seed: int) -> Learner:
    """The learner of a row, fresh."""
    module, _, attribute = LEARNERS[row.learner].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    made: Learner = kind(
        kind.Settings(**row.settings, **own),
        Task((28, 28), max_labels=WAYS, seed=seed, model=MODEL, inputs=INPUTS, start=start),
    )
    return made


def pre_trained(background: World, seed: int) -> Initialisation:
    """MAML's, 10-way 5-shot."""
    y = np.empty(len(background.x), np.int64)
    for label, rows in enumerate(background.by_class):
        y[rows] = label
    settings = MetaSettings(
        algorithm="maml", steps=PRE_STEPS, meta_batch=4, ways=WAYS, shots=EACH, queries=EACH, inner_lr=0.1, inner_steps=2
    )
    corpus = Corpus.of(background.x, y, held_out=0.1, seed=seed)
    trainer = Trainer(settings, corpus, shape=(28, 28), model=MODEL, inputs=INPUTS, seed=seed)
    for _ in range(PRE_STEPS):
        trainer.step()
    trainer.validate()
    return trainer.initialisation()


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    parser.add_argument("--stays", nargs="+", type=float, choices=STAYS, default=list(STAYS), help="chance of no switch, α")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
