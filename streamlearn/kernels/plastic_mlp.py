"""A multi-layer perceptron that takes one step of gradient descent per row, on the row and a few recent ones; compiled.

Each layer is one array [inputs + 1, outputs], its bias the last line; the head is the last layer, of which only the first
columns belong to labels. Recent rows lie in a ring and are drawn by the number of the row alone.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows, Terms, chance, dot_of_lines, log_softmax, loss_gradient, turn
from streamlearn.kernels.sums import add_groups
from streamlearn.records import Array


class Recent(NamedTuple):
    """The last rows learned, in a ring; what learning changes, in place."""

    rows: Array  # [capacity, inputs], as members see them
    labels: Array  # int64 [capacity]
    met: Array  # int64 [1]: rows ever put in


class Held(NamedTuple):
    """What learning changes, in place."""

    layers: Any  # a tuple of arrays
    recent: Recent


class Pace(NamedTuple):
    """How it learns."""

    seed: Any  # np.uint64
    rate: float
    clip_norm: float


class Desk(NamedTuple):
    """Room to work; what lies there between rows means nothing."""

    widths: Array  # int64 [layers]: outputs in use
    outputs: Array  # [layers, rows, widest]
    deltas: Array  # [layers, rows, widest]
    turned: Array  # [widest, most inputs]: a layer, transposed
    terms: Terms


@compiled
def _below(layer: int, x: Array, desk: Desk) -> Array:
    """What a layer takes, row by row."""
    return x if layer == 0 else desk.outputs[layer - 1]


@compiled
def _forward(x: Array, count: int, layers: Any, desk: Desk) -> None:
    last, picks, factors = len(layers) - 1, desk.terms.picks, desk.terms.factors
    for layer in range(last + 1):
        weights, below, outputs = layers[layer], _below(layer, x, desk), desk.outputs[layer]
        inputs, width = len(weights) - 1, desk.widths[layer]
        for r in range(count):
            number = 0
            for i in range(inputs):
                picks[number], factors[number] = i, below[r, i]
                number += below[r, i] != 0
            for o in range(width):
                outputs[r, o] = weights[inputs, o]
            add_groups(outputs, r, width, weights, number, picks, factors)
            if layer < last:
                for o in range(width):
                    if outputs[r, o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                        outputs[r, o] = 0


@compiled
def _backward(count: int, layers: Any, desk: Desk) -> None:
    picks, factors, turned = desk.terms.picks, desk.terms.factors, desk.turned
    for layer in range(len(layers) - 1, 0, -1):
        width, inputs = desk.widths[layer], len(layers[layer]) - 1
        deltas, below, earlier = desk.deltas[layer], desk.outputs[layer - 1], desk.deltas[layer - 1]
        turn(layers[layer], inputs, width, turned)
        for r in range(count):
            number = 0
            for o in range(width):
                picks[number], factors[number] = o, deltas[r, o]
                number += deltas[r, o] != 0
            for i in range(inputs):
                earlier[r, i] = 0
            add_groups(earlier, r, inputs, turned, number, picks, factors)
            for i in range(inputs):
                if below[r, i] <= 0:
                    earlier[r, i] = 0


@compiled
def _norm(x: Array, count: int, layers: Any, desk: Desk) -> float:
    """Of the gradient summed over rows: it is a sum of outer products, so the rows' inner products give it."""
    total = 0.0
    for layer in range(len(layers)):
        width, inputs = desk.widths[layer], len(layers[layer]) - 1
        below, deltas = _below(layer, x, desk), desk.deltas[layer]
        for r in range(count):
            for s in range(r + 1):
                product = (1.0 + dot_of_lines(below, s, below, r, inputs)) * dot_of_lines(deltas, s, deltas, r, width)
                total += product * (1.0 if r == s else 2.0)
    return float(np.sqrt(max(total, 0.0))) if total - total == 0 else np.inf


@compiled
def _step(x: Array, count: int, step: Any, layers: Any, desk: Desk) -> None:
    """Move all layers by `step` times the gradient summed over rows."""
    picks, factors = desk.terms.picks, desk.terms.factors
    for layer in range(len(layers)):
        weights, width, below, deltas = layers[layer], desk.widths[layer], _below(layer, x, desk), desk.deltas[layer]
        inputs = len(weights) - 1
        for i in range(inputs + 1):
            terms = 0
            for r in range(count):
                factor = step if i == inputs else step * below[r, i]
                picks[terms], factors[terms] = r, factor
                terms += factor != 0
            add_groups(weights, i, width, deltas, terms, picks, factors)


@compiled
def _draw(number: int, seed: Any, recent: Recent, x: Array, labels: Array) -> int:
    """Copies of recent rows below the row itself; returns how many rows there are then."""
    held = min(recent.met[0], len(recent.labels))
    drawn = len(x) - 1 if held else 0
    for r in range(drawn):
        slot = int(chance(seed, number, r) * held)
        x[r + 1] = recent.rows[slot]
        labels[r + 1] = recent.labels[slot]
    return drawn + 1


@compiled
def run(rows: Rows, pace: Pace, held: Held, desk: Desk, out: Array) -> None:
    """Answer each row; then, where it is learned, one step on it and recent rows. A step that is not finite is left out."""
    width, last, most, layers = out.shape[1], len(held.layers) - 1, desk.outputs.shape[1], held.layers
    desk.widths[last] = width
    x, y = np.zeros((most, rows.z.shape[1]), rows.z.dtype), np.zeros(most, np.int64)
    for n in range(len(out)):
        x[0], y[0] = rows.z[n], rows.labels[n]
        count = _draw(rows.numbers[n], pace.seed, held.recent, x, y) if rows.learned[n] else 1
        _forward(x, count, layers, desk)
        log_softmax(desk.outputs[last, 0, :width], rows.admitted, rows.numbers[n], out[n])
        if rows.learned[n]:
            for r in range(count):
                loss_gradient(desk.outputs[last, r, :width], rows, n, y[r], desk.deltas[last, r, :width])
            _backward(count, layers, desk)
            norm = _norm(x, count, layers, desk) / count
            if np.isfinite(norm):
                _step(x, count, x.dtype.type(-pace.rate / count * min(1.0, pace.clip_norm / (norm + 1e-6))), layers, desk)
            slot = held.recent.met[0] % len(held.recent.labels)
            held.recent.rows[slot], held.recent.labels[slot] = rows.z[n], rows.labels[n]
            held.recent.met[0] += 1
