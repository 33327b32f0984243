"""CIFAR-100 in one pass: 20 tasks of 5 classes, memory 200, the paper's network; with task identity, and without.

    python -m benchmarks.cifar --device cuda                                   # in full
    python -m benchmarks.cifar --tasks 4 --per-class 50 --asked-per-class 50   # a fraction, for processors

With task identity each task has a softmax of its own, and a question says to which task it belongs; without, one head grows
and every class learned so far may answer. Runs that are not yet in docs/results/cifar.json are made and put there as they
end; docs/results/cifar.md is written anew from them. Data: the folder that STREAMLEARN_DATA names.
"""

import argparse
import importlib
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.cells import command_line, fill, report
from benchmarks.cifar_data import cifar100
from benchmarks.cifar_report import ROWS, table
from benchmarks.images import Images
from streamlearn.learners import LEARNERS as REGISTERED
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "cifar.json"
CLASSES = 5
MEAN = np.array([0.5071, 0.4865, 0.4409], np.float32)
DEVIATION = np.array([0.2673, 0.2564, 0.2762], np.float32)
NETWORK = ModelSettings(name="conv", channels=160, hidden=(320, 320), channels_last=True)
CHUNK = 10


class Size(NamedTuple):
    """How much of the data is used."""

    tasks: int = 20
    per_class: int = 500
    asked: int = 100  # test images of each class

    @property
    def name(self) -> str:
        """As in the names of runs."""
        return f"{self.tasks} tasks, {self.per_class} a class, {self.asked} asked"


class Part(NamedTuple):
    """A task: what is learned, what is asked. Labels are numbered in the order of tasks."""

    x: Array
    y: Array
    asked: Array
    truth: Array


def main() -> None:
    """Make the runs that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    size = Size(asked.tasks, asked.per_class, asked.asked_per_class)
    source = cifar100()

    def made(identity: str, row: str, seed: int) -> dict[str, Json]:
        cell = run(parts(source, size, seed), row, seed, identity=identity == "with", device=asked.device)
        return cell | {"device": asked.device}

    for identity in asked.identity:
        for row in asked.learners:
            for seed in asked.seeds:
                fill(asked.results, f"{size.name}/{identity}/{row}/{seed}", partial(made, identity, row, seed))
    report(asked.results, table)


def parts(source: Images, size: Size, seed: int) -> list[Part]:
    """Tasks of five classes each: which classes, and which samples in which order, come from the seed."""
    generator = np.random.default_rng([seed, 5])
    classes = generator.permutation(np.unique(source.y_train))[: CLASSES * size.tasks]
    made: list[Part] = []
    for own in classes.reshape(size.tasks, CLASSES):
        learned = np.concatenate([generator.permutation(np.flatnonzero(source.y_train == c))[: size.per_class] for c in own])
        learned = generator.permutation(learned)[: len(learned) // CHUNK * CHUNK]
        asked = np.concatenate([np.flatnonzero(source.y_test == c)[: size.asked] for c in own])
        numbers = {int(c): CLASSES * len(made) + n for n, c in enumerate(own)}
        truth = [np.array([numbers[c] for c in y.tolist()]) for y in (source.y_train[learned], source.y_test[asked])]
        made.append(Part(seen(source.x_train[learned]), truth[0], seen(source.x_test[asked]), truth[1]))
    return made


def seen(x: Array) -> Array:
    """float32 [n, height, width, 3] out of uint8, each channel of mean 0 and deviation 1 over the training images."""
    scaled: Array = (x / np.float32(255) - MEAN) / DEVIATION
    return scaled


def run(tasks: list[Part], row: str, seed: int, *, identity: bool, device: str) -> dict[str, Json]:
    """One learner over all tasks."""
    learner = make(row, tasks, seed, identity=identity, device=device)
    just_after: list[float] = []
    seconds = cpu_s = 0.0
    for t, part in enumerate(tasks):
        began, began_cpu = time.perf_counter(), time.process_time()
        learner.learn(Batch.of(part.x, part.y, np.full(len(part.y), t) if identity else None))
        seconds, cpu_s = seconds + time.perf_counter() - began, cpu_s + time.process_time() - began_cpu
        just_after.append(_accuracy(learner, part, t, identity=identity)["auto"])
    final = [_accuracy(learner, part, t, identity=identity) for t, part in enumerate(tasks)]
    kept = {about: float(np.mean([accuracy[about] for accuracy in final])) for about in ("auto", "ever")}
    after = float(np.mean(just_after))
    return {"retained": kept, "just_after": after, "interference": kept["auto"] - after, "cpu_s": cpu_s, "wall_s": seconds}


def make(row: str, tasks: list[Part], seed: int, *, identity: bool, device: str) -> Learner:
    """The learner of a row, fresh."""
    name, options, _ = ROWS[row]
    module, _, attribute = REGISTERED[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    memory = {"memory": {"rows": 200}} if "memory" in kind.Settings.model_fields else {}
    settings = kind.Settings(**options, **memory, max_contexts=len(tasks) if identity else 0)
    task = Task(tasks[0].x.shape[1:], max_labels=CLASSES * len(tasks), seed=seed, model=NETWORK, device=device)
    made: Learner = kind(settings, task)
    return made


def _accuracy(learner: Learner, part: Part, number: int, *, identity: bool) -> dict[str, float]:
    """Per cent, by what the question is about."""
    both: Mapping[str, Array] = {
        "auto": learner.predict(part.asked, about="auto"),
        "ever": learner.predict(part.asked, about="ever"),
    }
    first = CLASSES * number if identity else 0
    end = first + CLASSES if identity else None
    return {about: 100 * float((logits[:, first:end].argmax(1) + first == part.truth).mean()) for about, logits in both.items()}


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    whole = Size()
    parser.add_argument("--tasks", type=int, default=whole.tasks)
    parser.add_argument("--per-class", type=int, default=whole.per_class, help="training images of each class")
    parser.add_argument("--asked-per-class", type=int, default=whole.asked, help="test images of each class")
    parser.add_argument("--learners", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--identity", nargs="+", choices=["with", "without"], default=["with", "without"])
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
