"""Named columns as members see them: standardised, and as a place among the values met so far; compiled, row by row.

Place is a piecewise-linear map through `edges`, evenly spaced quantiles of a uniform sample of the past. A value that equals
several edges lies in their middle, or at 0 or 1 if one of them is the first or the last, so a column of few values is told
apart as well as one of many.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import chance
from streamlearn.records import Array

OUTLIER_FROM = 100
"""Values of a column from which on a far one counts as `REACH` deviations."""
REACH = 10.0
FIRST_EDGES = 8
"""Rows after which edges are first made; until then every value lies in the middle."""


class Statistics(NamedTuple):
    """What learning changes, in place."""

    counts: Array  # int64 [columns]: values met
    mean: Array  # float64 [columns]
    squares: Array  # float64 [columns]: sum of squared deviations from the mean
    sample: Array  # float32 [rows, columns]: a uniform sample of the rows met; NaN where a value was missing
    edges: Array  # float32 [columns, edges]
    progress: Array  # int64 [2]: rows met; rows at which edges are made next, `FIRST_EDGES` at first


class Seen(NamedTuple):
    """Rows as members see them, written in place."""

    z: Array  # [n, columns]: deviations from the mean, clipped
    u: Array  # [n, columns]: place in [0, 1]


class Look(NamedTuple):
    """How columns are seen."""

    seed: Any  # np.uint64
    clip: float  # bound on a standardised value, in deviations


@compiled
def place(value: Any, edges: Array) -> float:
    """Where `value` lies among sorted `edges`, in [0, 1]."""
    low, high = 0, len(edges)
    while low < high:  # edges below
        middle = (low + high) // 2
        if edges[middle] < value:
            low = middle + 1
        else:
            high = middle
    equal = low
    while equal < len(edges) and edges[equal] == value:
        equal += 1
    steps = len(edges) - 1.0
    if low == 0:
        return 0.0
    if equal == len(edges):
        return 1.0
    if equal > low:
        return (low + equal - 1) / (2.0 * steps)
    before, after = float(edges[low - 1]), float(edges[low])
    within: float = (value - before) / (after - before)
    return (low - 1 + within) / steps


@compiled
def _see(x: Array, n: int, clip: float, statistics: Statistics, seen: Seen) -> None:
    ready = statistics.progress[1] > FIRST_EDGES
    for f in range(x.shape[1]):
        deviation = np.sqrt(statistics.squares[f] / max(statistics.counts[f], 1))
        gain = 1.0 / deviation if deviation > 0 else 0.0
        value = x[n, f]
        missing = np.isnan(value)
        seen.z[n, f] = 0.0 if missing else min(max((value - statistics.mean[f]) * gain, -clip), clip)
        seen.u[n, f] = place(value, statistics.edges[f]) if ready and not missing else 0.5


@compiled
def _count(row: Array, counts: Array, mean: Array, squares: Array) -> None:
    for f in range(len(row)):
        if np.isnan(row[f]):
            continue
        away = float(row[f]) - mean[f]
        if counts[f] >= OUTLIER_FROM and squares[f] > 0:
            reach = REACH * np.sqrt(squares[f] / counts[f])
            away = min(max(away, -reach), reach)
        counts[f] += 1
        rest = away - away / counts[f]
        mean[f] += away / counts[f]
        squares[f] += away * rest


@compiled
def count_rows(x: Array, counts: Array, mean: Array, squares: Array) -> None:
    """Count rows [n, columns], one by one; a value that is missing counts for nothing."""
    for n in range(len(x)):
        _count(x[n], counts, mean, squares)


@compiled
def _sample(row: Array, seed: Any, statistics: Statistics) -> None:
    met, capacity = statistics.progress[0], len(statistics.sample)
    slot = met if met < capacity else int(chance(seed, met, 0) * (met + 1))
    if slot < capacity:
        statistics.sample[slot] = row
    statistics.progress[0] = met + 1


@compiled
def _make_edges(statistics: Statistics) -> None:
    held = min(statistics.progress[0], len(statistics.sample))
    steps = statistics.edges.shape[1] - 1
    for f in range(len(statistics.edges)):
        values = np.sort(statistics.sample[:held, f])  # NaN comes last
        known = held
        while known > 0 and np.isnan(values[known - 1]):
            known -= 1
        for e in range(steps + 1 if known else 0):
            at = e * (known - 1) / steps
            below = int(at)
            above = min(below + 1, known - 1)
            statistics.edges[f, e] = values[below] + (at - below) * (values[above] - values[below])
    statistics.progress[1] = statistics.progress[0] * 3 // 2


@compiled
def run(x: Array, learned: Array, look: Look, statistics: Statistics, seen: Seen) -> None:
    """See each row by the statistics of the rows before it; then, where it is learned, count it."""
    for n in range(len(x)):
        _see(x, n, look.clip, statistics, seen)
        if learned[n]:
            _count(x[n], statistics.counts, statistics.mean, statistics.squares)
            _sample(x[n], look.seed, statistics)
            if statistics.progress[0] >= statistics.progress[1]:
                _make_edges(statistics)
