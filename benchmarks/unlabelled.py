"""How right are answers whose labels have not come? The estimate and its interval, against the truth that came later.

    python -m benchmarks.unlabelled                                   # three streams, two delays, three seeds
    python -m benchmarks.unlabelled --streams electricity --delays 100

The default learner answers rows of real streams (STREAMLEARN_DATA) and is told each label so many rows later. Up to a thousand
times along a stream the accuracy of the answers that wait is estimated as the daemon does it (`streamlearn.confidence`), and
compared with their labels; beside it stands what one would say without an estimate: the accuracy of as many answers whose
labels came last. Cells that are not yet in docs/results/unlabelled.json are made and put there, and the page is written anew.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.cells import command_line, fill, report
from benchmarks.scores import figure
from benchmarks.stream_data import Labels, Stream, arrivals, met, stream
from benchmarks.streams import learner
from streamlearn.confidence import Calibration, Estimate
from streamlearn.pending import Settings
from streamlearn.records import Answer, Array, Batch, Given, Json, stacked_evidence

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "unlabelled.json"
STREAMS, DELAYS = ("electricity", "insects_gradual", "ne_weather"), (100, 1000)
LOOKS = 1000  # estimates along a stream, at most

INTRODUCTION = """# Accuracy before the labels come

The default learner on streams of which each label comes late. Again and again along a stream, the accuracy of the answers that
still wait is estimated from their calibrated confidence, with its 95 % interval, and compared with what their labels then said.
In points of a hundred, mean ± standard deviation over seeds. *Error*: mean absolute difference of estimate and truth. *Last
known*: the same error of who takes the accuracy of as many answers whose labels came last. *Chance*: the error that a perfect
estimate would have, since so few answers are so many throws of a coin. *Bias*: estimate less truth. *Within*: how often the
truth lay within the interval, per cent; *half-width* of that interval.

| stream | delay, rows | seeds | looks | accuracy | error | last known | chance | bias | within, % | half-width |
|---|---|---|---|---|---|---|---|---|---|---|
"""


class Look(NamedTuple):
    """Answers that waited at one time: what was said of them, and what came of them. Shares from 0 to 1."""

    estimate: Estimate
    truth: float
    last_known: float
    waiting: int


def main() -> None:
    """Make the cells that are asked for and missing, then write the table."""
    asked = _arguments()
    for name, delay, seed in product(asked.streams, asked.delays, asked.seeds):
        made = partial(_cell, name, delay, seed, asked.rows)
        fill(asked.results, f"{name}/{delay}/{seed}", made)
    report(asked.results, table)


def _cell(name: str, delay: int, seed: int, rows: int | None) -> dict[str, Json]:
    return said_of(looks(stream(name, rows), delay, seed=seed))


def looks(data: Stream, delay: int, *, seed: int) -> list[Look]:
    """One pass of the default learner."""
    made = learner("pool", {}, columns=data.x.shape[1], seed=seed)
    calibration = Calibration(Settings().fade)
    y, labels = met(data.y), Labels(delay)
    evidence: dict[int, Array] = {}
    confidence, expected, right = np.full(len(y), math.nan), np.full(len(y), math.nan), np.zeros(len(y), bool)
    every, found, seen = max(1, len(y) // labels.block // LOOKS), list[Look](), 0
    for number, (came, asked) in enumerate(arrivals(len(y), labels, seed)):
        if len(came):
            for row in came[np.isfinite(confidence[came])].tolist():  # the others were asked before anything was known
                calibration.update(float(confidence[row]), is_right=bool(right[row]), expected=float(expected[row]))
            told = stacked_evidence([evidence.pop(row)[None] for row in came.tolist()])
            made.learn(replace(Batch.of(data.x[came], y[came]), evidence=told))
            seen = int(came[-1]) + 1
        answer = made.answer(data.x[asked])
        evidence |= zip(range(len(y))[asked], answer.evidence, strict=True)
        confidence[asked], right[asked] = _said(answer, y[asked])
        expected[asked] = [calibration.chance(float(each)) for each in confidence[asked]]
        waiting = slice(seen, asked.stop)
        if number % every == 0 and seen >= 2 * delay:
            last = right[max(0, seen - (asked.stop - seen)) : seen].mean()
            estimate = calibration.estimate(confidence[waiting].tolist())
            found.append(Look(estimate, float(right[waiting].mean()), float(last), asked.stop - seen))
    return found


def _said(answer: Answer, labels: Array) -> tuple[Array, Array]:
    """Confidence of each answer as the daemon keeps it, and whether it is right."""
    if not answer.logits.shape[1]:
        return np.full(len(labels), math.nan), np.zeros(len(labels), bool)
    confidence = np.array([Given(0, logits).confidence for logits in answer.logits])
    return confidence, answer.logits.argmax(1) == labels


def said_of(made: list[Look]) -> dict[str, Json]:
    """Means over the looks at one stream, in points of a hundred."""
    low, value, high = np.array([look.estimate for look in made]).T
    truth, last, waiting = np.array([look[1:] for look in made]).T
    throws = np.sqrt(2 / np.pi * truth * (1 - truth) / waiting)  # mean absolute deviation of a mean of coins, nearly normal
    means = {
        "accuracy": truth,
        "error": abs(value - truth),
        "last_known": abs(last - truth),
        "chance": throws,
        "bias": value - truth,
        "within": (low <= truth) & (truth <= high),
        "half_width": (high - low) / 2,
    }
    return {"looks": len(made), **{name: round(100 * float(each.mean()), 3) for name, each in means.items()}}


def table(runs: Mapping[str, Json], made_on: Mapping[str, str]) -> str:
    """docs/results/unlabelled.md."""
    lines = []
    for name, delay in dict.fromkeys((each.split("/")[0], int(each.split("/")[1])) for each in runs):
        cells = [cell for each, cell in runs.items() if each.rsplit("/", 1)[0] == f"{name}/{delay}"]
        columns = ("accuracy", "error", "last_known", "chance", "bias", "within", "half_width")
        figures = " | ".join(figure([cell[column] for cell in cells]) for column in columns)
        lines.append(f"| {name} | {delay:,} | {len(cells)} | {cells[0]['looks']:,} | {figures} |")
    made = ", ".join(f"{name} {value}" for name, value in made_on.items())
    return INTRODUCTION + "\n".join(lines) + f"\n\nMade by `python -m benchmarks.unlabelled`; {made}.\n"


def _arguments() -> argparse.Namespace:
    parser = command_line(__doc__, RESULTS)
    parser.add_argument("--streams", nargs="+", default=list(STREAMS))
    parser.add_argument("--delays", nargs="+", type=int, default=list(DELAYS), help="rows until a label comes")
    parser.add_argument("--rows", type=int, default=None, help="of each stream; empty: all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
