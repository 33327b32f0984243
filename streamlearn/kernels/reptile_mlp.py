"""Passes of single-row steps of a multi-layer perceptron, each drawn back by Reptile, compiled.

Within a pass the first layer is not moved: step m moves the pre-activations of row n by −(xₘ·xₙ + 1) sₘδₘ, sₘ its step size
after clipping, and when the pass is over each weight is moved once, by all steps together. Upper layers are moved step by
step, in a copy. One row's gradient is an outer product in each layer, so its norm is had from the factors.
"""

from typing import Any, NamedTuple

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import dot_of_lines
from streamlearn.kernels.sliding_passes import add, biases_of, enter, judge, layer_of, rise, row_clipping, step_back, take_in
from streamlearn.kernels.sliding_room import Room
from streamlearn.kernels.sums import add_fours
from streamlearn.records import Array


class Passes(NamedTuple):
    """The rows of all passes, in order, and how far they lead."""

    x: Array  # [passes, rows, inputs]
    y: Array  # int64 [passes, rows]
    rates: Array  # in the type of the weights: step size, share of a pass that is kept, bound on the norm of each gradient


@compiled
def _catch_up(n: int, room: Room) -> None:
    """What the steps so far did to the pre-activations of row n."""
    for m in range(n):
        room.terms[m], room.values[m] = m, -(dot_of_lines(room.x, m, room.x, n, room.sizes[0]) + room.one[0])
    add_fours(room.z, n, room.sizes[1], room.inner_deltas[0], n, room.terms, room.values)


@compiled
def _step(n: int, label: int, rates: Array, room: Room) -> None:
    """One step of gradient descent on row n."""
    ahead, one = room.ahead, room.one[0]
    _catch_up(n, room)
    rise(n, n + 1, ahead, room)
    judge(n, label, one, room)
    step_back(ahead, n, room)
    step = rates[0] * row_clipping(n, one, rates[2], room)
    for o in range(room.sizes[1]):
        room.inner_deltas[0, n, o] = step * room.deltas[0, n, o]
    for layer in range(1, len(room.sizes) - 1):
        weights, outputs, deltas = layer_of(ahead, layer, room), room.outputs[layer - 1], room.deltas[layer]
        before, width = room.sizes[layer], room.sizes[layer + 1]
        for i in range(before + 1):
            value = (outputs[n, i] if i < before else one) * step
            if value != 0:
                for o in range(width):
                    weights[i, o] -= value * deltas[n, o]


@compiled
def _towards(start: Array, end: Array, share: Any) -> None:
    for p in range(len(start)):
        start[p] += share * (end[p] - start[p])


@compiled
def _draw_back(theta: Array, rows: int, within: Any, room: Room) -> None:
    """Take this share of the way that a pass went."""
    upper, width = room.starts[1], room.sizes[1]
    _towards(theta[upper:], room.ahead[upper:], within)
    weights, biases = layer_of(theta, 0, room), biases_of(theta, 0, room)
    for i in range(room.sizes[0]):
        count = 0
        for n in range(rows):
            room.terms[count], room.values[count] = n, -within * room.x[n, i]
            count += room.x[n, i] != 0
        add_fours(weights, i, width, room.inner_deltas[0], count, room.terms, room.values)
    for n in range(rows):
        add(biases, -within, room.inner_deltas[0, n, :width])


@compiled
def walk(theta: Array, passes: Passes, room: Room) -> None:
    """Move the weights by all passes, one after another."""
    upper, rows = room.starts[1], passes.y.shape[1]
    for turn in range(len(passes.y)):
        room.ahead[upper:] = theta[upper:]
        for n in range(rows):
            take_in(n, passes.x[turn, n], room)
            enter(n, theta, room)
        for n in range(rows):
            _step(n, passes.y[turn, n], passes.rates, room)
        _draw_back(theta, rows, passes.rates[1], room)
