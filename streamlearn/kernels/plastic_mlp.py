"""A multi-layer perceptron that takes one step of gradient descent per row, on the row and a few recent ones; compiled.

Each layer is one array [inputs + 1, outputs], its bias the last line; the head is the last layer, of which only the first
columns belong to labels. Recent rows lie in a ring and are drawn by the number of the row alone.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.look_ahead_mlp import compiled
from streamlearn.kernels.rows import Rows, add, chance, log_softmax, loss_gradient
from streamlearn.records import Array

LANES = 16


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

    outputs: Array  # [layers, rows, widest]
    deltas: Array  # [layers, rows, widest]
    grads: Any  # like the layers
    sums: Array  # [LANES]
    width: Array  # int64 [1]: labels in use


@compiled
def _dot(a: Array, b: Array, sums: Array) -> Any:
    whole = len(b) - len(b) % LANES
    total = sums[0] * 0
    if whole:
        sums[:] = 0
        for start in range(0, whole, LANES):
            for lane in range(LANES):
                sums[lane] += a[start + lane] * b[start + lane]
        for lane in range(LANES):
            total += sums[lane]
    for o in range(whole, len(b)):
        total += a[o] * b[o]
    return total


@compiled
def _forward(x: Array, rows: int, layers: Any, width: int, desk: Desk) -> None:
    last = len(layers) - 1
    for layer in range(last + 1):
        weights = layers[layer]
        inputs, outputs = len(weights) - 1, width if layer == last else weights.shape[1]
        for r in range(rows):
            desk.outputs[layer, r, :outputs] = weights[inputs, :outputs]
        for i in range(inputs):
            for r in range(rows):
                value = x[r, i] if layer == 0 else desk.outputs[layer - 1, r, i]
                if value != 0:
                    add(desk.outputs[layer, r, :outputs], value, weights[i, :outputs])
        if layer < last:
            for r in range(rows):
                for o in range(outputs):
                    if desk.outputs[layer, r, o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                        desk.outputs[layer, r, o] = 0


@compiled
def _backward(rows: int, layers: Any, width: int, desk: Desk) -> None:
    for layer in range(len(layers) - 1, 0, -1):
        weights = layers[layer]
        outputs = width if layer == len(layers) - 1 else weights.shape[1]
        for i in range(len(weights) - 1):
            for r in range(rows):
                delta = desk.deltas[layer, r, :outputs]
                fires = desk.outputs[layer - 1, r, i] > 0
                desk.deltas[layer - 1, r, i] = _dot(weights[i, :outputs], delta, desk.sums) if fires else delta[0] * 0


@compiled
def _gradient(x: Array, rows: int, layers: Any, width: int, desk: Desk) -> Any:
    """Fills `desk.grads` with the sum over rows; returns the squared norm."""
    last, total = len(layers) - 1, desk.sums[0] * 0
    for layer in range(last + 1):
        inputs, outputs = len(layers[layer]) - 1, width if layer == last else layers[layer].shape[1]
        for i in range(inputs + 1):
            grad = desk.grads[layer][i, :outputs]
            grad[:] = 0
            for r in range(rows):
                value = desk.outputs[layer - 1, r, i] if layer > 0 and i < inputs else x[r, i] if i < inputs else total * 0 + 1
                if value != 0:
                    add(grad, value, desk.deltas[layer, r, :outputs])
            total += _dot(grad, grad, desk.sums)
    return total


@compiled
def _step(layers: Any, width: int, step: Any, desk: Desk) -> None:
    for layer in range(len(layers)):
        outputs = width if layer == len(layers) - 1 else layers[layer].shape[1]
        for i in range(len(layers[layer])):
            add(layers[layer][i, :outputs], step, desk.grads[layer][i, :outputs])


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
def _learn(count: int, x: Array, pace: Pace, held: Held, desk: Desk) -> None:
    """One clipped step by the deltas on the desk, unless it is not finite."""
    width = desk.width[0]
    _backward(count, held.layers, width, desk)
    norm = np.sqrt(float(_gradient(x, count, held.layers, width, desk))) / count
    if np.isfinite(norm):
        _step(held.layers, width, x.dtype.type(-pace.rate / count * min(1.0, pace.clip_norm / (norm + 1e-6))), desk)


@compiled
def run(rows: Rows, pace: Pace, held: Held, desk: Desk, out: Array) -> None:
    """Answer each row; then, where it is learned, one step on it and recent rows. A step that is not finite is left out."""
    width, last, most = out.shape[1], len(held.layers) - 1, desk.outputs.shape[1]
    desk.width[0] = width
    x, y = np.zeros((most, rows.z.shape[1]), rows.z.dtype), np.zeros(most, np.int64)
    for n in range(len(out)):
        x[0], y[0] = rows.z[n], rows.labels[n]
        count = _draw(rows.numbers[n], pace.seed, held.recent, x, y) if rows.learned[n] else 1
        _forward(x, count, held.layers, width, desk)
        log_softmax(desk.outputs[last, 0, :width], rows.admitted, rows.numbers[n], out[n])
        if rows.learned[n]:
            for r in range(count):
                loss_gradient(desk.outputs[last, r, :width], rows, n, y[r], desk.deltas[last, r, :width])
            _learn(count, x, pace, held, desk)
            slot = held.recent.met[0] % len(held.recent.labels)
            held.recent.rows[slot], held.recent.labels[slot] = rows.z[n], rows.labels[n]
            held.recent.met[0] += 1
