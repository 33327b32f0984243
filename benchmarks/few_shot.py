"""Five or twenty characters never seen before, one or five drawings of each: after MAML, FOMAML, ANIL, Reptile, iMAML, COMLN.

    python -m benchmarks.few_shot                                          # narrow, one CPU core, an hour a seed
    python -m benchmarks.few_shot --device cuda --width full --seeds 0     # as published; not run yet
    python -m benchmarks.few_shot --algorithms maml --shapes 5-1 --seeds 0

Meta-training on Omniglot's background characters by the product's trainer, then episodes of evaluation characters. Norms are
of one image alone: an answer does not depend on the other questions, as it does where norms are of a batch of them. Cells that
are not yet in docs/results/few_shot.json are made and put there as they end; docs/results/few_shot.md is written anew.
`sinusoid` is MAML's regression: waves of amplitude 0.1 to 5 and any phase from 10 points.
"""

import argparse
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import command_line, fill, report
from benchmarks.few_shot_report import table
from benchmarks.images import Images
from benchmarks.omniglot_data import characters, rows_by_class
from streamlearn.adapt.adam import adam, still
from streamlearn.adapt.params import Params, Rows
from streamlearn.adapt.unrolled import Lessons, Parts, Plan, each_adapted, second_order
from streamlearn.inputs import Inputs, InputSettings
from streamlearn.meta import validation
from streamlearn.meta.corpus import Corpus, Episodes
from streamlearn.meta.settings import MetaSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Json

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "few_shot.json"
INPUTS = InputSettings(kind="scale", factor=1 / 255)
SHAPES = {"5-1": (5, 1), "5-5": (5, 5), "20-1": (20, 1), "20-5": (20, 5)}
ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "maml": {"inner_lr": 0.4, "inner_steps": 1},
    "fomaml": {"inner_lr": 0.4, "inner_steps": 1},
    "anil": {"inner_lr": 0.4, "inner_steps": 1},
    "reptile": {"inner_lr": 0.4, "inner_steps": 5, "train_shots": 10, "inner_shots": 2, "validation_steps": 20},
    "imaml": {"inner_lr": 0.1, "inner_steps": 10, "proximal": 1.0, "cg_steps": 5, "outer_lr": 0.003},
    "comln": {"duration": 1.0},
}
TWENTY = {"maml": {"inner_lr": 0.1, "inner_steps": 5}}
EPISODES, SINUSOID_STEPS, WAVES = 200, 3000, 25
RATES = (0.01, 0.003, 0.001, 0.0003, 0.0001)


class Width(NamedTuple):
    """A network and how long it is trained."""

    channels: int
    steps: Mapping[str, tuple[int, ...]]  # by algorithm, of `SHAPES`
    meta_batch: int


ALIKE = {  # about as long as each other
    "maml": (2000, 1300, 400, 130),
    "fomaml": (3000, 2200, 1500, 900),
    "anil": (3000, 3000, 1800, 1000),
    "reptile": (1300, 1300, 400, 400),
    "imaml": (700, 400, 450, 250),
    "comln": (2000, 900, 300, 130),
}
WIDTHS = {"narrow": Width(16, ALIKE, 4), "full": Width(64, dict.fromkeys(ALGORITHMS, (60_000,) * len(SHAPES)), 32)}


def main() -> None:
    """Make the cells that are asked for and missing, then write the table."""
    asked = _arguments()
    torch.set_num_threads(1)
    source = characters()

    def made(name: str, shape: str, seed: int) -> dict[str, Json]:
        cell = run(source, name, shape, WIDTHS[asked.width], seed=seed, device=asked.device)
        return cell | {"device": asked.device}

    def waves(seed: int) -> dict[str, Json]:
        return sinusoid(seed) | {"device": asked.device}

    for seed in asked.seeds:
        for shape in asked.shapes:
            for name in asked.algorithms:
                fill(asked.results, f"{asked.width}/{name}/{shape}/{seed}", partial(made, name, shape, seed))
        if asked.sinusoid:
            fill(asked.results, f"sinusoid/maml/10/{seed}", partial(waves, seed))
    report(asked.results, table)


def run(source: Images, algorithm: str, shape: str, width: Width, *, seed: int, device: str) -> dict[str, Json]:
    """Train, then ask episodes of evaluation characters."""
    ways, shots = SHAPES[shape]
    steps = width.steps[algorithm][list(SHAPES).index(shape)]
    own = {**ALGORITHMS[algorithm], **(TWENTY.get(algorithm, {}) if ways == 20 else {})}
    settings = MetaSettings(
        algorithm=algorithm,
        **{"steps": steps, "meta_batch": width.meta_batch, "ways": ways, "shots": shots, "queries": 5, **own},
    )
    corpus = Corpus.of(source.x_train, source.y_train, held_out=0.1, seed=seed)
    model = ModelSettings(name="split", channels=width.channels, layout="conv4")
    trainer = Trainer(settings, corpus, shape=(28, 28), model=model, inputs=INPUTS, seed=seed, device=device)
    untrained, began = dict(trainer.params), time.process_time()
    for _ in range(steps):
        trainer.step()
    spent = time.process_time() - began
    lessons = evaluation(source, ways, shots, seed, device)
    found = validation.few_shot(trainer.network, trainer.algorithm.kernel, trainer.params, lessons, trainer.judging)
    nearest = {name: nearest_mean(trainer, p, lessons) for name, p in (("trained", trainer.params), ("untrained", untrained))}
    return {"accuracy": 100 * found["accuracy"], "nearest_mean": nearest, "cpu_s": spent, "steps": steps}


def evaluation(source: Images, ways: int, shots: int, seed: int, device: str) -> Lessons:
    """Episodes of characters that no training saw, 5 questions a character."""
    every = tuple(rows_by_class(source.y_test))
    episodes = Episodes(Corpus(source.x_test, every, every, ""), Inputs.fresh(INPUTS, (28, 28)), torch.float32, device)
    random = np.random.default_rng([seed, 9])
    return episodes.few_shot(random, EPISODES, ways=ways, shots=shots, queries=5, held_out=False)


def nearest_mean(trainer: Trainer, params: Params, lessons: Lessons) -> float:
    """Per cent right of the nearest class mean of the features, which needs no adaptation."""
    hits = []
    with torch.no_grad():
        for episode in range(len(lessons.support_y)):
            sx, sy, qx, qy = (part[0] for part in lessons.at(episode))
            near, far = (trainer.network.features(params, x) for x in (sx, qx))
            means = torch.stack([near[sy == label].mean(0) for label in range(int(sy.max()) + 1)])
            hits.append(float((torch.cdist(far, means).argmin(1) == qy).double().mean()))
    return 100 * float(np.mean(hits))


def sinusoid(seed: int) -> dict[str, Json]:
    """Mean squared error on new waves after 0, 1 and 10 steps on 10 points: after MAML, and after training on all waves.

    The size of those steps is MAML's own after MAML, and the best of `RATES` on other waves after training on all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    first = {name: torch.randn(size, generator=generator) * scale for name, size, scale in LAYERS}
    moving = Parts(dict, lambda _, x: x, squared_error)
    found: dict[str, Json] = {"steps": SINUSOID_STEPS}
    asked = waves(torch.Generator().manual_seed(1000 + seed), 200)
    for name, steps in (("maml", 1), ("all waves", 0)):
        params, moments = first, still(first)
        for _ in range(SINUSOID_STEPS):
            made = second_order(moving, params, waves(generator, WAVES), Plan(0.01, (slice(None),) * steps))
            params, moments = adam(params, made.grads, moments, 1e-3)
        others = waves(generator, 200)
        rate = 0.01 if steps else min(RATES, key=lambda each: _after(moving, params, others, each, 10))
        found |= {f"{name}, {after}": _after(moving, params, asked, rate, after) for after in (0, 1, 10)}
        found[f"{name}, step"] = rate
    return found


def _after(moving: Parts, params: Params, asked: Lessons, rate: float, steps: int) -> float:
    """Error after so many steps; infinite where they diverge."""
    fast = each_adapted(moving, params, asked, Plan(rate, (slice(None),) * steps)) if steps else None
    made = error(params, fast, asked)
    return made if math.isfinite(made) else math.inf


LAYERS = (
    ("a", (1, 40), 1.0),
    ("a0", (40,), 0.0),
    ("b", (40, 40), math.sqrt(2 / 40)),
    ("b0", (40,), 0.0),
    ("c", (40, 1), math.sqrt(2 / 40)),
    ("c0", (1,), 0.0),
)


def squared_error(params: Params, rows: Rows) -> Tensor:
    """Of a perceptron of 40 and 40 units; `rows.y` are real values."""
    hidden = torch.relu(torch.relu(rows.x @ params["a"] + params["a0"]) @ params["b"] + params["b0"])
    return torch.nn.functional.mse_loss((hidden @ params["c"] + params["c0"])[:, 0], rows.y)


def waves(generator: torch.Generator, count: int) -> Lessons:
    """Ten points of each to learn from, ten others to ask: Finn et al. 2017, section 5.1."""
    amplitude, phase = (
        low + (high - low) * torch.rand(count, 1, generator=generator) for low, high in ((0.1, 5), (0, math.pi))
    )
    x = 10 * torch.rand(count, 20, generator=generator) - 5
    y = amplitude * torch.sin(x - phase)
    return Lessons(x[:, :10, None], y[:, :10], x[:, 10:, None], y[:, 10:])


def error(params: Params, fast: Params | None, asked: Lessons) -> float:
    """Mean over waves, each under its own fast weights where there are any."""
    mask = torch.ones(1, 1, dtype=torch.bool)
    each = [
        squared_error({name: p[wave] for name, p in fast.items()} if fast else params, Rows(x, y, mask))
        for wave, (x, y) in enumerate(zip(asked.query_x, asked.query_y, strict=True))
    ]
    return float(torch.stack(each).mean())


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    parser.add_argument("--width", choices=WIDTHS, default="narrow")
    parser.add_argument("--algorithms", nargs="*", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="ways and shots")
    parser.add_argument("--sinusoid", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
