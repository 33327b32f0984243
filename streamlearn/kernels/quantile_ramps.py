"""A linear softmax on piecewise-linear ramps of each column's place, compiled. Ramp k of K is clip(K·u − k, 0, 1).

Categorical columns have no ramps, but a weight for each bucket.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows, add, log_softmax, loss_gradient
from streamlearn.records import Array


class Pace(NamedTuple):
    """How it learns."""

    ramps: int  # of each column
    rate: float
    columns: int  # that have ramps, the first ones
    share: float  # by how much a row's scores may move for a gradient of 1, so that no row overshoots


@compiled
def _scores(u: Array, lines: Array, ramps: int, weights: Array, scores: Array) -> float:
    """Fills `scores`; returns the squared length of the ramps and categories."""
    width, length = len(scores), 0.0
    scores[:] = weights[len(weights) - 1, :width]
    for f in range(len(u)):
        at = u[f] * u.dtype.type(ramps)
        full = int(at)
        for k in range(full):
            row = weights[f * ramps + k]
            for c in range(width):
                scores[c] += row[c]
        part = at - u.dtype.type(full)
        if part > 0:
            add(scores, part, weights[f * ramps + full, :width])
        length += full + part * part
    for line in lines:
        if line >= 0:
            add(scores, u.dtype.type(1), weights[len(u) * ramps + line, :width])
            length += 1
    return length


@compiled
def _move(u: Array, lines: Array, ramps: int, step: Any, delta: Array, weights: Array) -> None:  # noqa: PLR0917 the same
    width = len(delta)
    add(weights[len(weights) - 1, :width], -step, delta)
    for f in range(len(u)):
        at = u[f] * u.dtype.type(ramps)
        full = int(at)
        for k in range(full):
            add(weights[f * ramps + k, :width], -step, delta)
        part = at - u.dtype.type(full)
        if part > 0:
            add(weights[f * ramps + full, :width], -step * part, delta)
    for line in lines:
        if line >= 0:
            add(weights[len(u) * ramps + line, :width], -step, delta)


@compiled
def run(rows: Rows, pace: Pace, weights: Array, out: Array) -> None:
    """Answer each row from weights [columns · ramps + buckets + 1, capacity], the bias last; then, where learned, move them."""
    scores, delta = np.zeros(out.shape[1], weights.dtype), np.zeros(out.shape[1], weights.dtype)
    for n in range(len(out)):
        u, lines = rows.u[n, : pace.columns], rows.lines[n]
        length = _scores(u, lines, pace.ramps, weights, scores)
        log_softmax(scores, rows.admitted, rows.numbers[n], out[n])
        if rows.learned[n]:
            loss_gradient(scores, rows, n, rows.labels[n], delta)
            step = weights.dtype.type(min(pace.rate, pace.share / (1.0 + length)))
            _move(u, lines, pace.ramps, step, delta, weights)
