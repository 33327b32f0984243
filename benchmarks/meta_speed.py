"""Meta-steps beside the released ANML and OML code, in turns, in one process on one thread; and what a deployed sample costs.

    python -m benchmarks.meta_speed --anml CHECKOUT --oml CHECKOUT
    python -m benchmarks.meta_speed --cells oml-narrow tiny --oml CHECKOUT --steps 40

Both sides get the same weights and the same episodes, drawn beforehand, and make the same meta-gradient and the same step of
Adam: how far their first losses are apart is shown. Seconds are of the thread's CPU. The ratio is taken step by step; shown are
medians and quartiles, after a step that is not counted. `together` is ours with 4 trajectories in one pass, by trajectory.
Without a checkout only our own side runs.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from benchmarks.cells import machine
from benchmarks.meta_reference import Reference, images
from benchmarks.scores import quartiles
from streamlearn.adapt.adam import adam, still
from streamlearn.adapt.implicit import Proximal
from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import Lessons, Plan
from streamlearn.inputs import InputSettings
from streamlearn.learners.chunkwise import MemorySettings
from streamlearn.learners.nearest_mean import NearestMean
from streamlearn.learners.online_sgd import OnlineSGD
from streamlearn.learners.replay import ER
from streamlearn.learners.task import Task
from streamlearn.meta.kernels import KERNELS, Loops
from streamlearn.meta.partition import HEAD, TRUNK, parts
from streamlearn.models.classifier import Classifier, ModelSettings, build
from streamlearn.protocols import Learner
from streamlearn.records import Batch, Initialisation, Json

T = TypeVar("T")
RESULTS = Path(__file__).parents[1] / "docs/results/meta_speed.json"
LABELS, TOGETHER = 1000, 4
KNOWN, HELD = 25, 50  # labels of a deployed head, images in its memory
GOAL = 3.0


class Cell(NamedTuple):
    """One comparison."""

    about: str
    kind: str  # anml or oml
    channels: int
    shape: tuple[int, ...]
    order: int
    support: int
    query: int
    inner_lr: float
    outer_lr: float


CELLS = {
    "anml": Cell("ANML as released: 256 and 112 channels, 28 by 28, order 1", "anml", 256, (3, 28, 28), 1, 20, 84, 0.1, 1e-3),
    "oml": Cell("OML as released: 256 channels, 84 by 84, order 2", "oml", 256, (1, 84, 84), 2, 15, 30, 0.03, 1e-4),
    "oml-narrow": Cell("the same with 32 channels", "oml", 32, (1, 84, 84), 2, 15, 30, 0.03, 1e-4),
}
WIDTHS = {"tiny": (16, 8), "full": (256, 112)}


def main() -> None:
    """Run what is asked for, print it, keep the figures."""
    asked = _arguments()
    torch.set_num_threads(1)
    kept: dict[str, Json] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for name in asked.cells:
        kept[name] = (
            deployment(name, asked.steps)
            if name in WIDTHS
            else compare(CELLS[name], getattr(asked, CELLS[name].kind), asked.steps)
        )
        print(name, json.dumps(kept[name]), flush=True)
    kept["machine"] = machine()
    asked.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    asked.out.with_suffix(".md").write_text(table(kept))


def compare(cell: Cell, checkout: Path | None, steps: int) -> dict[str, Json]:
    """Quartiles of seconds a meta-step, of both and of their ratio."""
    torch.manual_seed(0)
    theirs = None
    if checkout is not None:
        theirs = Reference(checkout, cell.kind, channels=cell.channels, inner_lr=cell.inner_lr, outer_lr=cell.outer_lr)
    ours = Ours(cell, theirs.params() if theirs else None)
    generator = torch.Generator().manual_seed(0)
    spent, apart = np.zeros((3, steps)), 0.0
    for step in range(steps):
        alone, many = lessons(cell, 1, generator), lessons(cell, TOGETHER, generator)
        loss, spent[0, step] = _timed(lambda alone=alone: ours.step(alone, is_kept=True))  # type: ignore[misc]
        if theirs is not None:
            said, spent[1, step] = _timed(lambda alone=alone: theirs.step(alone))  # type: ignore[misc]
            apart = abs(loss - said) / abs(said) if step == 0 else apart
        spent[2, step] = _timed(lambda many=many: ours.step(many, is_kept=False))[1] / TOGETHER  # type: ignore[misc]
    counted = spent[:, 1:]
    found: dict[str, Json] = {"about": cell.about, "steps": steps - 1, "ours_s": quartiles(counted[0], 5)}
    found["together_s"] = quartiles(counted[2], 5)
    if theirs is not None:
        found |= {
            "reference_s": quartiles(counted[1], 5),
            "ratio": quartiles(counted[1] / counted[0], 5),
            "losses_apart": apart,
        }
        found["ratio_together"] = quartiles(counted[1] / counted[2], 5)
    return found


class Ours:
    """What `meta-train` does with episodes once they are drawn."""

    def __init__(self, cell: Cell, params: Params | None) -> None:
        gated = cell.kind == "anml"
        model = ModelSettings(
            name="gated" if gated else "split", channels=cell.channels, layout="pooled" if gated else "strided"
        )
        network = build(model, cell.shape, seed=0)
        own, rows = (
            parts(network, TRUNK if gated else HEAD, shape=cell.shape),
            tuple(slice(i, i + 1) for i in range(cell.support)),
        )
        unused = Proximal(1.0, 1.0, 1, 1, 1.0)
        self._loops = Loops(own, Plan(cell.inner_lr, rows), cell.order, batched=True, proximal=unused, tolerance=1.0)
        self._params = params or network.initial(LABELS, torch.float32, "cpu")
        self._moments, self._rate = still(self._params), cell.outer_lr

    def step(self, lessons: Lessons, *, is_kept: bool) -> float:
        """One meta-step; its meta-loss. One that is not kept leaves the weights where the other side's are."""
        made = KERNELS["unrolled"](self._params, lessons, self._loops)
        params, moments = adam(self._params, made.grads, self._moments, self._rate)
        if is_kept:
            self._params, self._moments = params, moments
        return made.loss


def lessons(cell: Cell, count: int, generator: torch.Generator) -> Lessons:
    """Random images, labels as a trajectory has them: one of 20 drawings (ANML), or three of five (OML)."""
    each = cell.support if cell.kind == "anml" else cell.support // 3
    classes = torch.randint(0, LABELS, (count, cell.support // each), generator=generator)
    support_y = classes.repeat_interleave(each, 1)
    query_y = torch.cat([support_y, torch.randint(0, LABELS, (count, cell.query - cell.support), generator=generator)], 1)
    x = [torch.cat([images(cell.shape, n, generator) for _ in range(count)]) for n in (cell.support, cell.query)]
    return Lessons(x[0], support_y, x[1], query_y)


def deployment(width: str, samples: int) -> dict[str, Json]:
    """Milliseconds of a sample and of a question, one row each, by warm start and learner; and bytes of state."""
    found: dict[str, Json] = {}
    random = np.random.default_rng(0)
    for kind in ("oml", "anml"):
        for name, learner in learners(untrained(kind, *WIDTHS[width])).items():
            for label in [*range(KNOWN)] * 2:  # which fills the memory of `er`
                learner.learn(_sample(random, label))
            learned = [_timed(lambda: learner.learn(_sample(random, 3)))[1] for _ in range(samples)]  # noqa: B023
            asked = [_timed(lambda: learner.predict(_sample(random, 3).x))[1] for _ in range(samples)]  # noqa: B023
            size = sum(array.nbytes for array in learner.state().arrays.values())
            cell = {"learn_ms": quartiles(1e3 * np.array(learned), 5), "ask_ms": quartiles(1e3 * np.array(asked), 5)}
            found[f"{kind}/{name}"] = {**cell, "state_bytes": size}
    return found


def untrained(kind: str, channels: int, gate_channels: int) -> Initialisation:
    """A warm start that cost nothing: its figures of time are those of any other."""
    gated = kind == "anml"
    own = {"gate_channels": gate_channels} if gated else {}
    model = ModelSettings(name="gated" if gated else "split", channels=channels, **own)
    network: Classifier = build(model, (28, 28), seed=0)
    arrays = {n: p.numpy() for n, p in network.initial(0, torch.float32, "cpu").items() if n.startswith("body.")}
    inputs = InputSettings(kind="scale", factor=1 / 255).model_dump(mode="json")
    return Initialisation(kind, 2, model.model_dump(mode="json"), (28, 28), inputs, arrays, (), "drawn", 0.03)


def learners(start: Initialisation) -> dict[str, Learner]:
    """Those that go on from a trunk which stays as it is."""
    model, inputs = ModelSettings(**start.model), InputSettings(**start.inputs)
    task = Task(start.shape, model=model, inputs=inputs, start=start)
    return {
        "sgd": OnlineSGD(OnlineSGD.Settings(), task),
        "er": ER(ER.Settings(chunk=1, memory=MemorySettings(rows=HELD)), task),
        "nearest-mean": NearestMean(NearestMean.Settings(), task),
    }


def _sample(random: np.random.Generator, label: int) -> Batch:
    return Batch.of(random.integers(0, 256, (1, 28, 28)).astype(np.float32), np.array([label]))


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.thread_time()
    made = call()
    return made, time.thread_time() - began


def table(kept: Mapping[str, Json]) -> str:
    """Markdown."""
    lines = [INTRODUCTION, ", ".join(f"{name} {value}" for name, value in kept["machine"].items()) + ".\n", COLUMNS]
    lines += [
        _line(name, kept[name]) if name in kept else f"| `{name}`: {CELLS[name].about} | 0 | not run | | | | | | |"
        for name in CELLS
    ]
    lines += [DEPLOYED]
    for width in WIDTHS:
        for name, cell in kept.get(width, {}).items():
            shown = " | ".join(_shown(cell[key], 2) for key in ("learn_ms", "ask_ms"))
            lines += [f"| {width} | {name.replace('/', ' | ')} | {shown} | {cell['state_bytes'] / 1e6:.2f} |"]
        lines += [] if width in kept else [f"| {width} | | | not run | | |"]
    return "\n".join([*lines, "", "Commands: in `benchmarks/meta_speed.py`. On a GPU: not run, there was none.", ""])


def _line(name: str, found: Mapping[str, Json]) -> str:
    seconds = [_shown(found[key], 3) if key in found else "not run" for key in ("ours_s", "together_s", "reference_s")]
    ratios = [_shown(found[key], 1) if key in found else "" for key in ("ratio", "ratio_together")]
    met = "" if "ratio" not in found else "met" if found["ratio"][1] >= GOAL else "**not met**"
    apart = f"{found['losses_apart']:.0e}" if "losses_apart" in found else ""
    return f"| `{name}`: {found['about']} | {found['steps']} | {' | '.join([*seconds, *ratios, apart, met])} |"


def _shown(quartiles: list[float], digits: int) -> str:
    low, middle, high = quartiles
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


INTRODUCTION = """# Meta-training and deployment: what they cost

Seconds of CPU a meta-step, median (quartiles), one thread of a machine that did other things too: both sides in turns, and the
ratio is the figure to use. Given the same weights and episodes, both make one meta-gradient and one step of Adam; drawing
episodes is left out on both sides. Goal: 3 times at equal mathematics. `together`: 4 trajectories in one pass, by trajectory.
The released OML asks its query after every inner step and uses the last answer alone; we ask it once.

At full width both sides of ANML spend their time in the same convolutions, four fifths of ours; most of the rest is the maximum
of 2 by 2 over 84 maps of 256 by 26 by 26, a seventh, and norms. `channels_last` would make that maximum three times as fast,
but does not go through `vmap`. Four trajectories together take 6 GB there.
"""
COLUMNS = (
    "| cell | steps | ours, s | together, s a trajectory | reference, s | ratio | together | first losses apart | goal |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
DEPLOYED = f"""
## Deployed

One image of 28 by 28 a call, {KNOWN} labels met, from a warm start whose trunk stays; CPU milliseconds, median (quartiles).
`tiny`: 16 channels in the trunk and 8 in the gate, `full`: 256 and 112. `er` holds {HELD} images and replays 10. State: what a
checkpoint adds to the warm start's file.

| width | warm start | learner | learn a sample, ms | answer a question, ms | state, MB |
|---|---|---|---|---|---|"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anml", type=Path, help="a checkout of the released ANML")
    parser.add_argument("--oml", type=Path, help="a checkout of the released OML")
    every = [*CELLS, *WIDTHS]
    parser.add_argument("--cells", nargs="+", choices=every, default=every)
    parser.add_argument("--steps", type=int, default=10, help="of each side, the first not counted; samples of deployment")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
