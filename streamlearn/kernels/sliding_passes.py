"""Rows of the room through a multi-layer perceptron, forwards and back. Zeros and units that do not fire are skipped."""

from typing import Any

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import dot_of_lines, turn
from streamlearn.kernels.sliding_room import Room
from streamlearn.kernels.sums import add_fours
from streamlearn.records import Array


@compiled
def add(total: Array, factor: Any, row: Array) -> None:
    for o in range(len(total)):
        total[o] += factor * row[o]


@compiled
def real(count: int, room: Room) -> Any:
    """A count in the type of the weights."""
    return room.one.dtype.type(count)


@compiled
def nonzero(table: Array, line: int, width: int, terms: Array, values: Array) -> int:
    """List those of a line's first entries that are not 0 as terms. How many there are."""
    count = 0
    for i in range(width):
        terms[count], values[count] = i, table[line, i]
        count += table[line, i] != 0
    return count


@compiled
def take_in(n: int, x: Array, room: Room) -> None:
    """Row n of the room is `x` from here on."""
    count = 0
    for i in range(len(x)):
        room.x[n, i] = x[i]
        room.picks[n, count] = i
        count += x[i] != 0
    room.counts[n] = count


@compiled
def layer_of(flat: Array, layer: int, room: Room) -> Array:
    """A layer as [in + 1, out], the biases last."""
    before, after, start = room.sizes[layer], room.sizes[layer + 1], room.starts[layer]
    return flat[start : start + (before + 1) * after].reshape(before + 1, after)


@compiled
def biases_of(flat: Array, layer: int, room: Room) -> Array:
    return flat[room.starts[layer + 1] - room.sizes[layer + 1] : room.starts[layer + 1]]


@compiled
def enter(n: int, flat: Array, room: Room) -> None:
    """Pre-activations of row n in the first layer."""
    weights, z, picks, x, terms, values = layer_of(flat, 0, room), room.z, room.picks, room.x, room.terms, room.values
    count, inputs = room.counts[n], room.sizes[0]
    for o in range(room.sizes[1]):
        z[n, o] = weights[inputs, o]
    for t in range(count):
        terms[t] = picks[n, t]
        values[t] = x[n, picks[n, t]]
    add_fours(z, n, room.sizes[1], weights, count, terms, values)


@compiled
def rise(first: int, end: int, flat: Array, room: Room) -> None:
    """Outputs of rows, layer by layer, from their pre-activations in the first."""
    outputs, width = room.outputs[0], room.sizes[1]
    for n in range(first, end):
        for o in range(width):
            outputs[n, o] = room.z[n, o]
    for layer in range(1, len(room.sizes) - 1):
        _fire(first, end, layer - 1, room)
        _pass_on(first, end, layer, layer_of(flat, layer, room), room)


@compiled
def _fire(first: int, end: int, layer: int, room: Room) -> None:
    outputs, width = room.outputs[layer], room.sizes[layer + 1]
    for n in range(first, end):
        for o in range(width):
            if outputs[n, o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                outputs[n, o] = 0


@compiled
def _pass_on(first: int, end: int, layer: int, weights: Array, room: Room) -> None:
    """Pre-activations of an upper layer."""
    below, outputs, before, width = room.outputs[layer - 1], room.outputs[layer], room.sizes[layer], room.sizes[layer + 1]
    terms, values = room.terms, room.values
    for n in range(first, end):
        for o in range(width):
            outputs[n, o] = weights[before, o]
        count = nonzero(below, n, before, terms, values)
        add_fours(outputs, n, width, weights, count, terms, values)


@compiled
def judge(n: int, label: int, share: Any, room: Room) -> None:
    """`share` times the delta of row n's cross-entropy in the last layer."""
    last, labels = len(room.sizes) - 2, room.sizes[-1]
    logits, delta = room.outputs[last], room.deltas[last]
    highest, total = logits[n, 0], 0.0
    for c in range(1, labels):
        highest = max(highest, logits[n, c])
    for c in range(labels):
        delta[n, c] = np.exp(logits[n, c] - highest)
        total += delta[n, c]
    for c in range(labels):
        delta[n, c] = delta[n, c] / total * share
    delta[n, label] -= share


@compiled
def turned(layer: int, room: Room) -> Array:
    """An upper layer's weights that look ahead, as [out, in]."""
    before, after, start = room.sizes[layer], room.sizes[layer + 1], room.starts[layer]
    return room.turned[start : start + before * after].reshape(after, before)


@compiled
def turn_all(room: Room) -> None:
    """Transposed copies of the upper layers."""
    for layer in range(1, len(room.sizes) - 1):
        turn(layer_of(room.ahead, layer, room), room.sizes[layer], room.sizes[layer + 1], turned(layer, room))


@compiled
def sink(first: int, end: int, room: Room) -> None:
    """Deltas of rows in all layers below the last, by the turned weights."""
    for layer in range(len(room.sizes) - 2, 0, -1):
        _send_back(first, end, layer, turned(layer, room), room)


@compiled
def _send_back(first: int, end: int, layer: int, weights: Array, room: Room) -> None:
    outputs, deltas, earlier = room.outputs[layer - 1], room.deltas[layer], room.deltas[layer - 1]
    before, terms, values = room.sizes[layer], room.terms, room.values
    for n in range(first, end):
        for i in range(before):
            earlier[n, i] = 0
        count = nonzero(deltas, n, room.sizes[layer + 1], terms, values)
        add_fours(earlier, n, before, weights, count, terms, values)
        for i in range(before):
            if outputs[n, i] == 0:
                earlier[n, i] = 0


@compiled
def inner_product(n: int, m: int, room: Room) -> float:
    """Of the gradients of two rows: per layer (inputs · inputs + 1) (deltas · deltas)."""
    product = 0.0
    for layer in range(len(room.sizes) - 1):
        before, after = room.sizes[layer], room.sizes[layer + 1]
        below, deltas = room.x if layer == 0 else room.outputs[layer - 1], room.deltas[layer]
        product += (1.0 + dot_of_lines(below, n, below, m, before)) * dot_of_lines(deltas, n, deltas, m, after)
    return product


@compiled
def clipping(norm: Any, most: Any, room: Room) -> Any:
    """What brings a gradient of this norm down to the norm `most`; 1 where it is not above, NaN where it is NaN."""
    scale = most / (norm + room.one.dtype.type(1e-6))
    return scale if not scale > 1 else room.one[0]


@compiled
def row_clipping(n: int, whole: Any, most: Any, room: Room) -> Any:
    """`clipping` of row n's gradient, of which `whole` times its deltas tell; nothing is computed where there is no bound."""
    if most == np.inf:
        return room.one[0]
    return clipping(room.one.dtype.type(np.sqrt(inner_product(n, n, room))) * whole, most, room)


@compiled
def is_finite(values: Array) -> bool:
    bad = 0
    for p in range(len(values)):
        bad += values[p] - values[p] != 0  # NaN is not equal to anything
    return bad == 0


@compiled
def step_back(flat: Array, n: int, room: Room) -> None:
    """Deltas of row n in all layers below the last, by `flat` itself: one row does not pay for turned weights."""
    for layer in range(len(room.sizes) - 2, 0, -1):
        before, after, weights = room.sizes[layer], room.sizes[layer + 1], layer_of(flat, layer, room)
        outputs, earlier, deltas = room.outputs[layer - 1], room.deltas[layer - 1], room.deltas[layer]
        for i in range(before):
            earlier[n, i] = dot_of_lines(weights, i, deltas, n, after) if outputs[n, i] != 0 else deltas[n, 0] * 0
