"""The sliding look-ahead of a multi-layer perceptron, compiled: row after row, answer, fast step, look-ahead, memory."""

from typing import Any

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.sliding_meta import look_ahead
from streamlearn.kernels.sliding_passes import enter, is_finite, judge, layer_of, rise, row_clipping, step_back, take_in
from streamlearn.kernels.sliding_room import Held, Work
from streamlearn.records import Array


@compiled
def _leak(fast: Array, start: Array, slow: Array, leak: Any) -> None:
    for p in range(len(fast)):
        fast[p] = start[p] + leak * (slow[p] - start[p])


@compiled
def _follow(n: int, layer: int, share: Any, work: Work) -> bool:
    """Move a layer of the next fast weights by row n's gradient. False when they are not finite."""
    held, room = work.held, work.room
    fast, rates = layer_of(held.fast[1 - held.turn[0]], layer, room), layer_of(held.rates, layer, room)
    before, width, deltas = room.sizes[layer], room.sizes[layer + 1], room.deltas[layer]
    below = room.x if layer == 0 else room.outputs[layer - 1]
    bad = 0
    for i in range(before + 1):
        value = (below[n, i] if i < before else room.one[0]) * share
        if value != 0:
            for o in range(width):
                fast[i, o] -= rates[i, o] * (value * deltas[n, o])
                bad += fast[i, o] - fast[i, o] != 0  # NaN is not equal to anything
    return bad == 0


@compiled
def _fast_step(start: Array, label: int, work: Work) -> bool:
    """From `start`, the next fast weights, by row 0 of the room. False when they are not finite."""
    held, room = work.held, work.room
    fast, one = held.fast[1 - held.turn[0]], room.one[0]
    _leak(fast, start, held.slow, work.recipe.rates[0])
    enter(0, fast, room)
    rise(0, 1, fast, room)
    judge(0, label, one, room)
    step_back(fast, 0, room)
    share = work.recipe.rates[1] * row_clipping(0, one, work.recipe.rates[5], room)
    finite = True
    for layer in range(len(room.sizes) - 1):
        finite &= _follow(0, layer, share, work)
        finite &= is_finite(room.deltas[layer, 0, : room.sizes[layer + 1]])
    return finite


@compiled
def _average(held: Held, most: Any) -> None:
    """As `fast.averaged`."""
    mean, slow, learned = held.mean, held.slow, held.seen[0]
    keep = mean.dtype.type(min(most, (1.0 + learned) / (10.0 + learned)))
    for p in range(len(mean)):
        mean[p] = slow[p] + keep * (mean[p] - slow[p])


@compiled
def _remember(row: int, newest: int, work: Work) -> int:
    """Offer the row to the memory with the answer that the slow weights give now. The slot it took, or −1."""
    held, given, room = work.held, work.given, work.room
    held.seen[0] += 1
    capacity, at = len(held.x), newest + row
    taken = held.seen[0] - 1 if held.seen[0] <= capacity else int(given.chances[row, work.recipe.replays] * held.seen[0])
    if taken >= capacity:
        return -1
    take_in(0, given.x[at], room)
    enter(0, held.slow, room)
    rise(0, 1, held.slow, room)
    held.x[taken] = given.raw[at]
    held.labels[taken] = given.active[given.labels[at]]
    held.logits[taken] = 0
    held.known[taken] = False
    for c in range(len(given.active)):
        held.logits[taken, given.active[c]] = room.outputs[len(room.sizes) - 2, 0, c]
        held.known[taken, given.active[c]] = True
    return taken


@compiled
def run(work: Work) -> int:
    """Answer and learn rows, one after another. How many were learned: the next, if any, is refused and changed nothing."""
    held, given, told, room = work.held, work.given, work.told, work.room
    newest = len(given.x) - len(told.slots)
    last, labels = len(room.sizes) - 2, room.sizes[-1]
    for row in range(len(told.slots)):
        label, fast = given.labels[newest + row], held.fast[held.turn[0]]
        take_in(0, given.asked[row], room)
        enter(0, fast, room)
        rise(0, 1, fast, room)
        told.logits[row] = room.outputs[last, 0, :labels]
        enter(0, held.mean, room)
        rise(0, 1, held.mean, room)
        told.slow[row] = room.outputs[last, 0, :labels]
        take_in(0, given.x[newest + row], room)
        if not _fast_step(fast, label, work) and not _fast_step(held.slow, label, work):
            return row
        due = (held.seen[0] + 1) % work.recipe.every == 0
        if due and not look_ahead(row, newest, work):
            return row
        held.turn[0] = 1 - held.turn[0]
        if work.recipe.rates[6] > 0:
            _average(held, work.recipe.rates[6])
        told.slots[row] = _remember(row, newest, work)
    return len(told.slots)
