"""The table of `benchmarks.probe`: how far the probe's accuracy matrix is from that of held-out test images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import visits
from benchmarks.scores import figure
from streamlearn.records import Json

HEAD = """\
# Does the probe tell the truth?

The probe is a sample of the stream that is never trained on (`probe.share`). Each line compares, at every task's end and for
every task so far, its accuracy with that of all held-out test images of that task, asked of the same model. Per cent, mean ±
standard deviation over seeds. *Error*: mean absolute difference of the cells. *Chance*: the error that a perfectly fair sample
of that many rows would have, from the binomial law. *Cost*: accuracy over all tasks at the end, on test images, of the learner
with the probe minus that of the same learner that got every record.

- *turned*: MNIST at 10 angles, 5,000 records each. *split*: Fashion-MNIST, 5 times 2 new classes, 5,000 records each. An era is
  a task. 784-100-100-10, memory 200.
"""
RETURNING = "returning"  # the stream of `visits`
COLUMNS = (
    *("stream", "learner", "share", "seeds", "rows an era", "about", "correlation", "error", "chance", "bias"),
    *("forgetting: probe", "true", "accuracy at the end", "cost"),
)


class Judged(NamedTuple):
    """One run, one kind of question."""

    correlation: float
    error: float
    chance: float
    bias: float
    forgetting: float  # as the probe shows it, at the end
    forgotten: float  # on the test images
    kept: float  # accuracy over all tasks at the end, on test images


def table(runs: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    """Markdown."""
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for group in dict.fromkeys(name.rsplit("/", 1)[0] for name in runs):
        stream, learner, share = group.split("/")
        cells = {name.rsplit("/", 1)[1]: run for name, run in runs.items() if name.rsplit("/", 1)[0] == group}
        if float(share):
            plain = {seed: runs.get(f"{stream}/{learner}/0/{seed}") for seed in cells}
            lines += [_line([stream, f"`{learner}`", share, *row]) for row in _rows(cells, plain)]
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    back = {name.removeprefix(f"{RETURNING}/"): run for name, run in runs.items() if name.startswith(f"{RETURNING}/")}
    lines += ["", visits.table(back)] if back else [""]
    return f"{HEAD}\n" + "\n".join(lines) + f"\nMade by `python -m benchmarks.probe`; {told}.\n"


def _rows(cells: Mapping[str, Any], plain: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    held = f"{np.mean([np.mean(run['rows']) for run in cells.values()]):.0f}"
    for about in ("auto", "ever"):
        found = [judged(run, about) for run in cells.values()]
        cost = [judged(run, about).kept - _last(plain[seed]["true"][about]) for seed, run in cells.items() if plain[seed]]
        figures = [[getattr(each, name) for each in found] for name in Judged._fields]
        correlation, *others = figures
        shown = [f"{np.mean(correlation):.3f}", *map(_percent, others), _percent(cost)]
        rows.append([str(len(cells)), held, about, *shown])
    return rows


def judged(run: Mapping[str, Any], about: str) -> Judged:
    """`run` holds both matrices, a line for each task's end with one more cell than the line before."""
    probe, true = run["probe"][about], run["true"][about]
    p, t = np.concatenate([np.array(line) for line in probe]), np.concatenate([np.array(line) for line in true])
    rows = np.concatenate([np.array(run["rows"][: len(line)], float) for line in probe])
    chance = np.sqrt(2 / np.pi) * np.sqrt(np.clip(t * (1 - t), 0, None) / rows)  # mean |error| of a normal
    return Judged(
        float(np.corrcoef(p, t)[0, 1]),
        float(np.abs(p - t).mean()),
        float(chance.mean()),
        float((p - t).mean()),
        _forgetting(probe),
        _forgetting(true),
        _last(true),
    )


def _forgetting(matrix: Sequence[Sequence[float]]) -> float:
    """Chaudhry et al. 2018: mean over the tasks before the last of the loss against each one's best."""
    drops = [max(line[t] for line in matrix[t:]) - matrix[-1][t] for t in range(len(matrix) - 1)]
    return float(np.mean(drops))


def _last(matrix: Sequence[Sequence[float]]) -> float:
    return float(np.mean(matrix[-1]))


def _percent(values: Sequence[float]) -> str:
    return figure([100 * value for value in values])


def _line(cells: Sequence[str | Json]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
