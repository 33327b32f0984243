"""How soon an angle is learned, and learned again: what `Contexts` tells, beside held-out test images of the same angle.

Five angles of MNIST come in turn, four times over, 500 records each time, none twice. After every ten records test images of
the angle are asked of the same model: when they first come within nine tenths of the best that they ever came to (of this
angle, or of any where it is new) is when it was truly learned (again). The learner does not look at the name of the angle.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images
from benchmarks.paper import make, x_size
from benchmarks.scores import figure
from benchmarks.tasks import Shape, views
from streamlearn.contexts import NEAR, Contexts
from streamlearn.metrics import score
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Json

ANGLES, ROUNDS, ROWS = 5, 4, 500
EVERY = 10  # rows between two looks at the test images
ASKED = 1000  # test images

HEAD = """\
## How soon is a context learned, and learned again?

Where records name their `context`. Five angles of MNIST in turn, four times over, 500 records each time; no probe. *Told*: what
`/status.json` and `/metrics` say, from the answers given before each label. *True*: from 1,000 held-out test images of that
angle, asked every ten records, by the same rule. Records: median over a run's visits that came so far, mean ± standard
deviation over seeds; in brackets the visits of all seeds that ended before. Forward transfer, in points: told from the first 20
answers at new angles; true from the test images right before each (Lopez-Paz and Ranzato 2017, equation 4); both less the share
of the most frequent label.
"""
TAIL = """\
A return is told later than it is true: what is told looks back over up to 50 answers, the poor first ones among them, and a
return that the model knows at once (true: 10, the first look) is told after 10 to 50 records or more, by the luck of those
answers. A single visit is told up to 250 records before or after the truth; medians over visits are what to look at.
"""
COLUMNS = (
    *("learner", "seeds", "records to reach: told", "true", "records to regain: told", "true"),
    *("forward transfer: told", "true"),
)


class Visit(NamedTuple):
    """Records of one angle, and what is asked about it."""

    context: int
    x: Array  # float32 [ROWS, pixels]
    y: Array  # int64
    x_test: Array
    y_test: Array


def run(source: Images, row: str, seed: int) -> dict[str, Json]:
    """One learner over the stream. Of each visit that had a goal: whether the angle was new, rows told and true, or null."""
    learner = make(row, "rotations", seed, pixels=x_size(source))
    contexts = Contexts()
    best: dict[int, float] = {}
    forward: list[float] = []
    found: list[list[Json]] = []
    for visit in returning(source, seed):
        is_new = visit.context not in best
        goal = NEAR * (max(best.values(), default=math.nan) if is_new else best[visit.context])
        if is_new and best:
            forward.append(_accuracy(learner, visit) - float(np.bincount(visit.y_test).max() / len(visit.y_test)))
        told, accuracy = _learned(learner, contexts, visit)
        if not math.isnan(goal):
            near = [EVERY * (i + 1) for i, value in enumerate(accuracy) if value >= goal]
            found.append([is_new, None if math.isnan(told) else told, near[0] if near else None])
        best[visit.context] = max(best.get(visit.context, 0.0), *accuracy)
    return {"visits": found, "forward": contexts.values()["forward_transfer"], "forward_true": float(np.mean(forward))}


def _learned(learner: Learner, contexts: Contexts, visit: Visit) -> tuple[float, list[float]]:
    """Rows that were told to have been needed, NaN for none; accuracy on the test images as it grew."""
    contexts.reached = contexts.regained = math.nan
    accuracy = []
    for first in range(0, len(visit.y), EVERY):
        x, y = visit.x[first : first + EVERY], visit.y[first : first + EVERY]
        report = learner.learn(Batch.of(x, y))
        contexts.update(np.full(len(y), visit.context), score(y, report.logits))
        accuracy.append(_accuracy(learner, visit))
    return np.fmax(contexts.reached, contexts.regained), accuracy


def returning(source: Images, seed: int) -> Iterator[Visit]:
    """Angle after angle, each with records of its own."""
    order = np.random.default_rng([seed, 1]).permutation(len(source.y_train))
    asked = np.random.default_rng([seed, 2]).permutation(len(source.y_test))[:ASKED]
    shown = views(Shape(ANGLES, ROWS, 0, turns=True), x_size(source))
    for number, rows in enumerate(order[: ROUNDS * ANGLES * ROWS].reshape(-1, ROWS)):
        view = shown[number % ANGLES]
        tested = view.seen(source.x_test[asked]), source.y_test[asked]
        yield Visit(number % ANGLES, view.seen(source.x_train[rows]), source.y_train[rows], *tested)


def _accuracy(learner: Learner, visit: Visit) -> float:
    return float((learner.predict(visit.x_test).argmax(1) == visit.y_test).mean())


def table(runs: Mapping[str, Any]) -> str:
    """Markdown; `runs` by `learner/…/seed`."""
    learners = dict.fromkeys(name.split("/")[0] for name in runs)
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for learner in learners:
        cells = [run for name, run in runs.items() if name.split("/")[0] == learner]
        rows = [_took(cells, is_new=is_new, which=which) for is_new in (True, False) for which in (1, 2)]
        forward = [figure([100 * run[name] for run in cells]) or "–" for name in ("forward", "forward_true")]
        lines.append(_line([f"`{learner}`", len(cells), *rows, *forward]))
    return f"{HEAD}\n" + "\n".join(lines) + f"\n\n{TAIL}"


def _took(cells: Sequence[Mapping[str, Any]], *, is_new: bool, which: int) -> str:
    each = [[visit[which] for visit in run["visits"] if visit[0] == is_new] for run in cells]
    medians = [float(np.median(known)) for took in each if (known := [rows for rows in took if rows is not None])]
    missed = sum(rows is None for took in each for rows in took)
    return f"{figure(medians, 0) or '–'} ({missed} of {sum(map(len, each))} did not)"


def _line(cells: Sequence[str | int]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
