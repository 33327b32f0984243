"""What follows a label, whatever the input: stay or go, and where to; discounted counts, compiled.

Labels beyond the table's lines share its last one.
"""

from typing import NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows
from streamlearn.records import Array


class Counts(NamedTuple):
    """What learning changes, in place. All float64, all discounted."""

    last: Array  # int64 [1]: the label learned last; −1 before any
    stays: Array  # [lines, 2]: how often the label stayed, and how often it was met
    moves: Array  # [lines, capacity]: where it went when it did not stay
    met: Array  # [capacity]: how often each label came


class Law(NamedTuple):
    """How it counts."""

    discount: float  # weight of a count after one more
    prior: float  # weight of the labels' overall frequencies in where a label goes


@compiled
def probabilities(counts: Counts, admitted: Array, number: int, prior: float, out: Array) -> None:
    """Of the next label, given the last."""
    last = counts.last[0]
    line = min(last, len(counts.stays) - 1)
    active, total = 0, 0.0
    for c in range(len(out)):
        out[c] = 0.0
        if admitted[c] < number:
            active += 1
            total += counts.met[c] + 1.0 if c != last else 0.0
    moved = 0.0
    for c in range(len(out)):
        if admitted[c] < number and c != last:
            out[c] = prior * (counts.met[c] + 1.0) / total
            out[c] += counts.moves[line, c] if last >= 0 else 0.0
            moved += out[c]
    stay = (counts.stays[line, 0] + 1.0) / (counts.stays[line, 1] + 2.0) if last >= 0 else 0.0
    if last >= 0 and admitted[last] < number:
        out[last] = stay if active > 1 else 1.0
    for c in range(len(out)):
        if admitted[c] < number and c != last:
            out[c] *= (1.0 - stay) / moved


@compiled
def _learn(label: int, discount: float, counts: Counts) -> None:
    last = counts.last[0]
    if last >= 0:
        line = min(last, len(counts.stays) - 1)
        counts.stays[line] *= discount
        counts.stays[line, 1] += 1.0
        if label == last:
            counts.stays[line, 0] += 1.0
        else:
            counts.moves[line] *= discount
            counts.moves[line, label] += 1.0
    counts.met[:] *= discount
    counts.met[label] += 1.0
    counts.last[0] = label


@compiled
def run(rows: Rows, law: Law, counts: Counts, out: Array) -> None:
    """Answer each row with log-probabilities; then, where it is learned, count its label."""
    chances = np.zeros(out.shape[1])
    for n in range(len(out)):
        probabilities(counts, rows.admitted, rows.numbers[n], law.prior, chances)
        for c in range(len(chances)):
            out[n, c] = np.log(chances[c]) if rows.admitted[c] < rows.numbers[n] else -np.inf
        if rows.learned[n]:
            _learn(rows.labels[n], law.discount, counts)
