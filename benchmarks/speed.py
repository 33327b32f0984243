"""Whole `learn` calls beside the authors' `observe`, batch by batch in turns, in one process on one thread.

    python -m benchmarks.speed --reference ~/La-MAML              the paper's MLP, a convolutional network, both orders
    python -m benchmarks.speed --reference ~/La-MAML --cells mlp --batches 400
    python -m benchmarks.speed --reference ~/La-MAML --device cuda         both sides on the GPU, ours as a CUDA graph

Seconds are of the thread's CPU, so that what else the machine does counts little; on a GPU they are of the clock, until the
device has done. The ratio is taken batch by batch; shown are medians and quartiles, after some batches that are not counted.
Without `--reference` only our own side runs; the large batch has no counterpart there, where an inner step takes one row. MER
runs beside its own plain form (`learner.kernel: torch`) too.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.cells import machine
from benchmarks.images import images
from benchmarks.paper_plan import options
from benchmarks.reference import Reference
from benchmarks.scores import quartiles
from benchmarks.tasks import STREAMS, samples
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.replay import MER
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Array, Batch, Json

RESULTS = Path(__file__).parents[1] / "docs/results/speed.json"
ROWS, LARGE = 10, 256  # of one batch, as the authors take it, and as a GPU wants it
UNCOUNTED = 0.1  # share of the batches, while the memory fills and kernels are compiled


class Cell(NamedTuple):
    """One comparison."""

    about: str
    network: str
    order: int
    glances: int
    rows: int = ROWS
    learner: str = "la-maml"


CELLS = {
    "mlp": Cell("MLP 784-100-100-10, Rotations settings, first order", "mlp", order=1, glances=5),
    "mlp-2": Cell("the same, second order", "mlp", order=2, glances=5),
    "mer": Cell("MER on the same MLP, its authors' settings for Rotations", "mlp", order=1, glances=1, learner="mer"),
    "mlp-256": Cell("the same MLP, batches of 256 in 8 inner steps, first order", "mlp", order=1, glances=1, rows=LARGE),
    "small": Cell("three convolutions of 16 channels on images of 8 by 8, else as the MLP, first order", "small", 1, 5),
    "small-2": Cell("the same, second order", "small", order=2, glances=5),
    "conv": Cell("the paper's convolutional network, 160 channels, CIFAR-100 settings, first order", "conv", 1, 10),
    "conv-2": Cell("the same, second order (as published)", "conv", order=2, glances=10),
}
RELU: Any = ("relu", [True], "")
FLAT: Sequence[Any] = [("flatten", [], ""), ("rep", [], "")]
CONVOLUTIONS: Sequence[Any] = [layer for inputs in (1, 16, 16) for layer in (("conv2d", [16, inputs, 3, 3, 2, 1], ""), RELU)]
SMALL: Sequence[Any] = [*CONVOLUTIONS, *FLAT, ("linear", [64, 16], ""), RELU, ("linear", [10, 64], "")]
"""The small network as the authors write networks down."""
Step = Callable[[Array, Array, int], object]


def main() -> None:
    """Run what is asked for, print a table, keep the figures."""
    asked = _arguments()
    torch.set_num_threads(1)
    kept: dict[str, Json] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for name in asked.cells:
        place = name if asked.device == "cpu" else f"{name} on {asked.device}"
        cell = CELLS[name] if asked.glances is None else CELLS[name]._replace(glances=asked.glances)
        kept[place] = compare(cell, asked.reference, asked.batches, device=asked.device)
        print(row(place, kept[place]), flush=True)
    kept["machine"] = machine() | ({"gpu": torch.cuda.get_device_name()} if asked.device != "cpu" else {})
    asked.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def compare(cell: Cell, checkout: Path | None, batches: int, *, device: str = "cpu") -> dict[str, Json]:
    """Quartiles of milliseconds a batch, of both, and of their ratio; samples a second of ours."""
    x, y, tasks = {"mlp": _rotations, "small": _digits, "conv": _pictures}[cell.network](batches * cell.rows // ROWS)
    both = checkout is not None and cell.rows == ROWS
    sides: dict[str, Step] = {"ours": _ours(cell, x.shape[1:], device)}
    if cell.learner == "mer":
        sides["plain"] = _mer("torch", device)
    if both:
        sides["reference"] = _theirs(cell, Path(str(checkout)), device)
    batches = min(batches, len(y) // cell.rows)
    spent = {side: np.zeros(batches) for side in sides}
    for b in range(batches):
        at = slice(b * cell.rows, (b + 1) * cell.rows)
        for side in sides if b % 2 else reversed(sides):
            began = _clock(device)
            sides[side](x[at], y[at], int(tasks[b * cell.rows // ROWS]))
            spent[side][b] = _clock(device) - began
    counted = {side: 1e3 * seconds[max(3, int(UNCOUNTED * batches)) :] for side, seconds in spent.items()}
    ours = counted.pop("ours")
    found: dict[str, Json] = {"about": cell.about, "batches": len(ours), "ours_ms": quartiles(ours), "glances": cell.glances}
    found["samples_per_s"] = round(1e3 * cell.rows / float(np.median(ours)))
    for side, values in counted.items():
        ratio = "ratio" if side == "reference" else f"{side}_ratio"
        found |= {f"{side}_ms": quartiles(values), ratio: quartiles(values / ours)}
    return found


def _clock(device: str) -> float:
    """Seconds: of the thread's CPU, or once the device has done all that was asked of it."""
    if torch.device(device).type != "cuda":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def row(name: str, found: Mapping[str, Json]) -> str:
    """A line of the table: median (quartiles)."""
    shown = [_shown(found[key]) if key in found else "not run" for key in ("ours_ms", "reference_ms", "ratio")]
    plain = f"; plain {_shown(found['plain_ms'])}, ratio {_shown(found['plain_ratio'])}" if "plain_ms" in found else ""
    return f"| {name} | {found['about']}{plain} | {found['batches']} | {' | '.join(shown)} | {found['samples_per_s']} |"


def _shown(quartiles: list[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def _mer(kernel: str, device: str) -> Step:
    settings = MER.Settings.model_validate({**options("mer", "rotations")[1], "memory": {"rows": 200}, "kernel": kernel})
    learner = MER(settings, Task((784,), device=device))
    return lambda x, y, _: learner.learn(Batch.of(x, y))


def _ours(cell: Cell, shape: tuple[int, ...], device: str) -> Step:
    if cell.learner == "mer":
        return _mer("auto", device)
    if cell.network == "conv":
        model = ModelSettings(name="conv", hidden=(320, 320))
        own = {"inner_chunks": 5, "inner_lr": 0.1, "meta_lr": 0.25, "clip_norm": 1.0, "inner_clip": 1.0, "floor_inner": False}
        settings = LaMAML.Settings(**own, max_contexts=20, glances=cell.glances, second_order=cell.order == 2)
    else:
        model = ModelSettings(name="conv", channels=16, hidden=(64,)) if cell.network == "small" else ModelSettings()
        large = {} if cell.rows == ROWS else {"chunk": cell.rows, "inner_chunks": 8}
        settings = LaMAML.Settings(glances=cell.glances, second_order=cell.order == 2, **large)
    learner = LaMAML(settings, Task(shape, model=model, device=device))
    return lambda x, y, task: learner.learn(Batch.of(x, y, contexts=np.full(len(y), task)))


def _theirs(cell: Cell, checkout: Path, device: str) -> Step:
    torch.manual_seed(0)
    if cell.learner == "mer":
        own = options("mer", "rotations")[1]
        named = {"lr": own["learning_rate"], "beta": own["within"], "gamma": 1.0, "replay_batch_size": own["replay_rows"]}
        named |= {"batches_per_example": own["passes"], "grad_clip_norm": math.inf}
        return Reference(checkout, "meralg1", sizes=(784, 10, 20), options=named).observe
    conv, layers = cell.network == "conv", SMALL if cell.network == "small" else None
    named = {"glances": cell.glances, "second_order": cell.order == 2, "grad_clip_norm": 1.0 if conv else 2.0}
    named |= {"use_old_task_memory": not conv, "cuda": device != "cpu"}
    sizes = (3 * 32 * 32, 100, 20) if conv else (784, 10, 20)
    return Reference(checkout, "lamaml_cifar" if conv else "lamaml", sizes=sizes, options=named, layers=layers).observe


def _rotations(batches: int) -> tuple[Array, Array, Array]:
    parts = list(zip(*samples(images(), STREAMS["rotations"], 0), strict=True))
    x, y = (np.concatenate(part) for part in parts)
    tasks = np.arange(len(y) // ROWS) * ROWS // STREAMS["rotations"].samples
    return x[: batches * ROWS].astype(np.float32), y[: batches * ROWS].astype(np.int64), tasks[:batches]


def _digits(batches: int) -> tuple[Array, Array, Array]:
    """scikit-learn's, each with a channel of its own, again and again."""
    source = images(small=True)
    rows = np.arange(batches * ROWS) % len(source.y_train)
    return source.x_train[rows, None].astype(np.float32) / 240, source.y_train[rows], np.zeros(batches, np.int64)


def _pictures(batches: int) -> tuple[Array, Array, Array]:
    """Random images: what they show costs nothing and gains nothing. Two batches a task, so that the memory mixes tasks."""
    random = np.random.default_rng(0)
    tasks = np.arange(batches) // 2 % 20
    x = random.normal(size=(batches * ROWS, 3, 32, 32)).astype(np.float32)
    return x, np.repeat(tasks, ROWS) * 5 + random.integers(0, 5, batches * ROWS), tasks


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of the authors' code")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--glances", type=int, help="instead of those of the cells")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
