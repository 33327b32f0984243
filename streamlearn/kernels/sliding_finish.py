"""The end of a look-ahead: step sizes and slow weights move by gradients that are summed, in place."""

from typing import Any

import numpy as np

from streamlearn.kernels.compiling import compiled, summing
from streamlearn.kernels.sliding_passes import clipping, is_finite, real
from streamlearn.kernels.sliding_room import Held, Recipe, Room
from streamlearn.records import Array


@compiled
def _stretches(room: Room) -> Array:
    """Where the weights lie that a look-ahead moves: (first, one past the last) of each stretch, all upper ones last."""
    width, used, count = room.sizes[1], room.used, 0
    stretches = np.empty((len(used) + 1, 2), np.int64)
    for i in range(len(used)):
        if used[i]:
            if count and stretches[count - 1, 1] == i * width:
                count -= 1
            else:
                stretches[count, 0] = i * width
            stretches[count, 1] = (i + 1) * width
            count += 1
    stretches[count, 0], stretches[count, 1] = len(used) * width, room.starts[-1]
    return stretches[: count + 1]


@summing
def _settle(rates: Array, grads: Array, effects: Array) -> Any:
    """A rate at 0 has no gradient that would lower it. The sums of squares of both gradients."""
    zero = rates.dtype.type(0)
    gone, grown = zero, zero
    for p in range(len(rates)):
        effect = zero if rates[p] <= zero and effects[p] > zero else effects[p]
        effects[p] = effect
        gone += grads[p] * grads[p]
        grown += effect * effect
    return gone, grown


@summing
def _move(slow: Array, rates: Array, grads: Array, effects: Array, move: Any, grow: Any) -> Any:  # noqa: PLR0917 numba
    """Rates, then weights by the new rates; the sum of squares of the way."""
    zero = rates.dtype.type(0)
    moved = zero
    for p in range(len(slow)):
        rates[p] = max(rates[p] - grow * effects[p], zero)
        way = rates[p] * (grads[p] * move)
        slow[p] -= way
        moved += way * way
    return moved


@compiled
def finish(steps: int, held: Held, recipe: Recipe, room: Room) -> Any:
    """Mean over steps, dead rates that would sink left out, both norms clipped; then rates, and weights by the new rates.

    Returns how far the weights moved; NaN, with nothing changed, where a gradient is not finite.
    """
    slow, rates, grads, effects, stretches = held.slow, held.rates, room.grads, room.effects, _stretches(room)
    gone, grown, moved, share = 0.0, 0.0, 0.0, room.one[0] / real(steps, room)
    for first, end in stretches:
        part = _settle(rates[first:end], grads[first:end], effects[first:end])
        gone += part[0]
        grown += part[1]
    if not (np.isfinite(grown) and np.isfinite(gone)):
        for first, end in stretches:
            if not (is_finite(grads[first:end]) and is_finite(effects[first:end])):
                return np.nan
    grow = recipe.rates[3] * share * clipping(room.one.dtype.type(np.sqrt(grown)) * share, recipe.rates[4], room)
    move = share * clipping(room.one.dtype.type(np.sqrt(gone)) * share, recipe.rates[4], room)
    for first, end in stretches:
        moved += _move(slow[first:end], rates[first:end], grads[first:end], effects[first:end], move, grow)
    return np.sqrt(moved)
