"""Rows of the room through a multi-layer perceptron, forwards and back. Zeros and units that do not fire are skipped."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import turn
from streamlearn.kernels.sliding_room import Room
from streamlearn.kernels.sums import add_fours
from streamlearn.records import Array

F = TypeVar("F", bound=Callable[..., Any])


def summing(function: F) -> F:
    """Compiled with leave to add in another order than written, the same in each run: a sum in one chain is slow."""
    return cast(F, numba.njit(function, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}))


@compiled
def add(total: Array, factor: Any, row: Array) -> None:
    for o in range(len(total)):
        total[o] += factor * row[o]


@compiled
def real(count: int, room: Room) -> Any:
    """A count in the type of the weights."""
    return room.one.dtype.type(count)


@compiled
def nonzero(factors: Array, terms: Array, values: Array) -> int:
    """List the factors that are not 0 as terms. How many there are."""
    count = 0
    for i in range(len(factors)):
        terms[count], values[count] = i, factors[i]
        count += factors[i] != 0
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
def weights_of(flat: Array, layer: int, room: Room) -> Array:
    before, after, start = room.sizes[layer], room.sizes[layer + 1], room.starts[layer]
    return flat[start : start + before * after].reshape(before, after)


@compiled
def biases_of(flat: Array, layer: int, room: Room) -> Array:
    return flat[room.starts[layer + 1] - room.sizes[layer + 1] : room.starts[layer + 1]]


@compiled
def enter(n: int, flat: Array, room: Room) -> None:
    """Pre-activations of row n in the first layer."""
    room.z[n, :] = biases_of(flat, 0, room)
    count = room.counts[n]
    for t in range(count):
        room.terms[t] = room.picks[n, t]
        room.values[t] = room.x[n, room.picks[n, t]]
    add_fours(room.z, n, room.sizes[1], weights_of(flat, 0, room), count, room.terms, room.values)


@compiled
def rise(n: int, flat: Array, room: Room) -> None:
    """Outputs of row n, layer by layer, from its pre-activations in the first."""
    last = len(room.sizes) - 2
    for layer in range(last + 1):
        outputs, width = room.outputs[layer], room.sizes[layer + 1]
        after = outputs[n, :width]
        if layer == 0:
            after[:] = room.z[n]
        else:
            after[:] = biases_of(flat, layer, room)
            count = nonzero(room.outputs[layer - 1, n, : room.sizes[layer]], room.terms, room.values)
            add_fours(outputs, n, width, weights_of(flat, layer, room), count, room.terms, room.values)
        if layer < last:
            for o in range(len(after)):
                if after[o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                    after[o] = 0


@compiled
def judge(n: int, label: int, share: Any, room: Room) -> None:
    """`share` times the delta of row n's cross-entropy in the last layer."""
    last, labels = len(room.sizes) - 2, room.sizes[-1]
    logits, delta = room.outputs[last, n, :labels], room.deltas[last, n, :labels]
    highest, total = logits[0], logits[0] * 0
    for c in range(1, labels):
        highest = max(highest, logits[c])
    for c in range(labels):
        delta[c] = np.exp(logits[c] - highest)
        total += delta[c]
    for c in range(labels):
        delta[c] = delta[c] / total * share
    delta[label] -= share


@compiled
def turned(layer: int, room: Room) -> Array:
    """An upper layer's weights that look ahead, as [out, in]."""
    before, after, start = room.sizes[layer], room.sizes[layer + 1], room.starts[layer]
    return room.turned[start : start + before * after].reshape(after, before)


@compiled
def turn_all(room: Room) -> None:
    """Transposed copies of the upper layers."""
    for layer in range(1, len(room.sizes) - 1):
        turn(weights_of(room.ahead, layer, room), room.sizes[layer], room.sizes[layer + 1], turned(layer, room))


@compiled
def sink(n: int, room: Room) -> None:
    """Deltas of row n in all layers below the last, by the turned weights."""
    for layer in range(len(room.sizes) - 2, 0, -1):
        before, after = room.sizes[layer], room.sizes[layer + 1]
        outputs, earlier = room.outputs[layer - 1, n, :before], room.deltas[layer - 1]
        earlier[n, :before] = 0
        count = nonzero(room.deltas[layer, n, :after], room.terms, room.values)
        add_fours(earlier, n, before, turned(layer, room), count, room.terms, room.values)
        for i in range(before):
            if outputs[i] == 0:
                earlier[n, i] = 0


@summing
def dot(a: Array, b: Array) -> Any:
    total = a[0] * b[0]
    for p in range(1, len(a)):
        total += a[p] * b[p]
    return total


@compiled
def inner_product(n: int, m: int, room: Room) -> float:
    """Of the gradients of two rows: per layer (inputs · inputs + 1) (deltas · deltas)."""
    product = 0.0
    for layer in range(len(room.sizes) - 1):
        before, after = room.sizes[layer], room.sizes[layer + 1]
        below = room.x if layer == 0 else room.outputs[layer - 1]
        inputs = 1.0 + dot(below[n, :before], below[m, :before])
        product += inputs * dot(room.deltas[layer, n, :after], room.deltas[layer, m, :after])
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
        before, after, weights = room.sizes[layer], room.sizes[layer + 1], weights_of(flat, layer, room)
        outputs, delta = room.outputs[layer - 1, n], room.deltas[layer, n, :after]
        for i in range(before):
            room.deltas[layer - 1, n, i] = dot(weights[i], delta) if outputs[i] != 0 else delta[0] * 0
