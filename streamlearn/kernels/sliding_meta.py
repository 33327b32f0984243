"""One look-ahead of a multi-layer perceptron over a window of rows, with replayed ones and their stored answers.

As in `look_ahead_mlp`, the weights that look ahead in the first layer are never formed: an inner gradient there is an outer
product δⱼxⱼᵀ and moves the pre-activation of row n by −δⱼ ⊙ (P[j, n] + α_bias), P[j, n] = Σᵢ αᵢ·xⱼ[i]·xₙ[i]. With
Dₖ[n] the delta of row n after step k and Cⱼ = Σ_{k ≥ j} Dₖ, ∂𝓛/∂θ₁[i] = (1/K) Σₙ xₙ[i]·C₁[n] and
∂𝓛/∂α₁[i] = −(1/K) Σⱼₙ xⱼ[i]·xₙ[i]·δⱼ ⊙ Cⱼ[n]. A row's gradient under the weights after step k is known from scoring it
there, so an inner step needs no pass of its own.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.sliding_passes import (
    add,
    biases_of,
    clipping,
    dot,
    enter,
    inner_product,
    is_finite,
    judge,
    nonzero,
    real,
    rise,
    row_clipping,
    sink,
    take_in,
    turn_all,
    weights_of,
)
from streamlearn.kernels.sliding_room import Given, Held, Recipe, Room, Work
from streamlearn.kernels.sums import add_fours
from streamlearn.records import Array


class Span(NamedTuple):
    """The rows of a look-ahead in the room."""

    kept: int  # replayed ones, which come first
    rows: int  # all of them


@compiled
def _transformed(x: Array, given: Given, room: Room) -> Array:
    values = room.values
    for i in range(len(x)):
        value = (x[i] - given.shift[i]) * given.gain[i]
        if value > given.clip:
            value = np.float32(given.clip)
        elif value < -given.clip:
            value = np.float32(-given.clip)
        values[i] = value
    return values[: len(x)]


@compiled
def _recall(row: int, work: Work) -> Any:
    """Put replayed rows into the room. How many there are."""
    held, given, room = work.held, work.given, work.room
    size = min(held.seen[0], len(held.x))
    count = min(work.recipe.replays, size)
    moved_at, moved_to = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):  # Fisher-Yates over an array that is never written out
        j = i + int(given.chances[row, i] * (size - i))
        pick, first = j, i
        for k in range(i):
            if moved_at[k] == j:
                pick = moved_to[k]
            if moved_at[k] == i:
                first = moved_to[k]
        moved_at[i], moved_to[i] = j, first
        room.slots[i], room.y[i] = pick, np.searchsorted(given.active, held.labels[pick])
        take_in(i, _transformed(held.x[pick], given, room), room)
    return count


@compiled
def _gather_rows(row: int, newest: int, work: Work) -> Span:
    """Put replayed rows and the window into the room."""
    given, room = work.given, work.room
    end = newest + row + 1
    begin, kept = max(0, end - work.recipe.window), _recall(row, work)
    for j in range(end - begin):
        take_in(kept + j, given.x[begin + j], room)
        room.y[kept + j] = given.labels[begin + j]
    return Span(kept, kept + end - begin)


@compiled
def _begin(span: Span, slow: Array, room: Room) -> None:
    """The rows' pre-activations, the upper layers' weights that will look ahead, and empty sums."""
    bias = room.sizes[0] * room.sizes[1]
    room.used[:] = False
    for n in range(span.rows):
        for t in range(room.counts[n]):
            room.used[room.picks[n, t]] = True
        enter(n, slow, room)
    room.ahead[bias:] = slow[bias:]
    for part in (room.steps, room.grads, room.effects):
        part[bias:] = 0
    turn_all(room)


@compiled
def _products(a: Array, b: Array, picks: Array, terms: Array, values: Array) -> int:
    """List as terms the picked features where the product of two rows is not 0. How many there are."""
    count = 0
    for t in range(len(picks)):
        terms[count], values[count] = picks[t], a[picks[t]] * b[picks[t]]
        count += values[count] != 0
    return count


@compiled
def _pair_up(rates: Array, kept: int, rows: int, room: Room) -> None:
    """P: what one inner step does to the pre-activations of the first layer, but for the biases."""
    step_sizes, terms, values, pairs = weights_of(rates, 0, room), room.terms, room.values, room.pairs
    for j in range(rows - kept):
        mine, picks = room.x[kept + j], room.picks[kept + j, : room.counts[kept + j]]
        for n in range(kept + j + 1):
            count = _products(mine, room.x[n], picks, terms, values)
            pairs[j * rows + n] = 0
            add_fours(pairs, j * rows + n, room.sizes[1], step_sizes, count, terms, values)
        for m in range(j):
            room.pairs[m * rows + kept + j, :] = room.pairs[j * rows + kept + m, :]


@compiled
def _alignment(kept: int, rows: int, room: Room) -> float:
    """Cosine between the gradients of replayed and of fresh rows at θ, from inner products of rows alone."""
    both, old, new = 0.0, 0.0, 0.0
    for n in range(rows):
        _first_deltas(n, 1, room)
        for m in range(n + 1):
            product = inner_product(n, m, room) * (1.0 if n == m else 2.0)
            if n < kept:
                old += product
            elif m >= kept:
                new += product
            else:
                both += product / 2.0
    cosine: float = both / np.sqrt(old * new)
    return cosine


@compiled
def _count_known(kept: int, held: Held, given: Given, room: Room) -> int:
    known = 0
    for n in range(kept):
        for c in range(room.sizes[-1]):
            known += held.known[room.slots[n], given.active[c]]
    return known


@compiled
def _descend(ahead: Array, steps: Array, rates: Array, value: Any, delta: Array) -> None:
    for o in range(len(ahead)):
        step = value * delta[o]
        steps[o] += step
        ahead[o] -= rates[o] * step


@compiled
def _move_layer(layer: int, n: int, whole: Any, rates: Array, room: Room) -> None:
    before, after, start = room.sizes[layer], room.sizes[layer + 1], room.starts[layer]
    outputs, delta = room.outputs[layer - 1, n], room.deltas[layer, n]
    for i in range(before + 1):
        value = (outputs[i] if i < before else room.one[0]) * whole
        if value == 0:
            continue
        at = start + i * after
        ahead = room.ahead[at : at + after]
        _descend(ahead, room.steps[at : at + after], rates[at : at + after], value, delta)
        if i < before:
            for o in range(after):
                room.turned[start + o * before + i] = ahead[o]


@compiled
def _inner_step(step: int, j: int, span: Span, rates: Array, work: Work) -> None:
    """Step on the loss of the window's row j, by its deltas in the room, which are those of its share in the score."""
    room, rows, n = work.room, span.rows, span.kept + j
    whole = real(rows, room)
    whole *= row_clipping(n, whole, work.recipe.rates[5], room)
    delta, biases, width = room.inner[step], biases_of(rates, 0, room), room.sizes[1]
    for o in range(width):
        delta[o] = room.deltas[0, n, o] * whole
    for m in range(rows):
        z, pair = room.z[m], room.pairs[j * rows + m]
        for o in range(width):
            z[o] -= delta[o] * (pair[o] + biases[o])
    add(biases_of(room.steps, 0, room), room.one[0], delta)
    for layer in range(1, len(room.sizes) - 1):
        _move_layer(layer, n, whole, rates, room)


@compiled
def _gap(n: int, known: int, work: Work) -> None:
    """Add the delta of the recall gap to row n's in the last layer; `known` stored answers are compared in all."""
    held, given, room, weight = work.held, work.given, work.room, work.recipe.rates[2]
    last, slot = len(room.sizes) - 2, room.slots[n]
    for c in range(room.sizes[-1]):
        row = given.active[c]
        if held.known[slot, row]:
            gap = room.outputs[last, n, c] - held.logits[slot, row]
            room.deltas[last, n, c] += weight * (gap + gap) / real(known, room)


@compiled
def _gather(layer: int, rows: int, room: Room) -> None:
    """Gradient of an upper layer."""
    after, grads = room.sizes[layer + 1], weights_of(room.query, layer, room)
    deltas, outputs = room.deltas[layer], room.outputs[layer - 1]
    terms, values = room.terms, room.values
    for i in range(room.sizes[layer]):
        add_fours(grads, i, after, deltas, nonzero(outputs[:rows, i], terms, values), terms, values)
    biases = biases_of(room.query, layer, room)
    for n in range(rows):
        add(biases, room.one[0], deltas[n, :after])


@compiled
def _subtract_products(total: Array, a: Array, b: Array) -> None:
    for p in range(len(total)):
        total[p] -= a[p] * b[p]


@compiled
def _score(step: int, span: Span, known: int, work: Work) -> None:
    """Gradient of the score under the weights that look ahead: added to ∂θ and, times what was stepped, to ∂α."""
    room, rows, compares = work.room, span.rows, known > 0 and work.recipe.rates[2] > 0
    share, width, bias = room.one[0] / real(rows, room), room.sizes[1], room.sizes[0] * room.sizes[1]
    room.query[bias:] = 0
    biases = biases_of(room.query, 0, room)
    for n in range(rows):
        rise(n, room.ahead, room)
        judge(n, room.y[n], share, room)
        if n < span.kept and compares:
            _gap(n, known, work)
        sink(n, room)
        room.suffix[step, n, :] = room.deltas[0, n, :width]
        add(biases, room.one[0], room.suffix[step, n])
    for layer in range(1, len(room.sizes) - 1):
        _gather(layer, rows, room)
    add(room.grads[bias:], room.one[0], room.query[bias:])
    _subtract_products(room.effects[bias:], room.query[bias:], room.steps[bias:])


@compiled
def _first_deltas(n: int, rows: int, room: Room) -> None:
    """As `_score` leaves them for a row of the window."""
    rise(n, room.ahead, room)
    judge(n, room.y[n], room.one[0] / real(rows, room), room)
    sink(n, room)


@compiled
def _pair_off(order: Array, kept: int, rows: int, room: Room) -> None:
    """Cⱼ out of Dₖ, and δⱼ ⊙ Cⱼ for each pair; xⱼ·xₘ counts for (j, m) and for (m, j)."""
    for step in range(len(order) - 2, -1, -1):
        for n in range(rows):
            add(room.suffix[step, n], room.one[0], room.suffix[step + 1, n])
    for step in range(len(order)):
        for n in range(rows):
            pair = room.pairs[order[step] * rows + n]
            for o in range(room.sizes[1]):
                pair[o] = room.inner[step, o] * room.suffix[step, n, o]
    for j in range(rows - kept):
        for m in range(j):
            add(room.pairs[j * rows + kept + m], room.one[0], room.pairs[m * rows + kept + j])


@compiled
def _first_layer(kept: int, rows: int, room: Room) -> None:
    """∂θ and ∂α of the first layer, from rows and pairs of rows."""
    grads, effects = weights_of(room.grads, 0, room), weights_of(room.effects, 0, room)
    x, first, pairs, terms, values, used = room.x, room.suffix[0], room.pairs, room.terms, room.values, room.used
    width = room.sizes[1]
    for i in range(len(used)):
        if not used[i]:
            continue
        grads[i] = 0
        add_fours(grads, i, width, first, nonzero(x[:rows, i], terms, values), terms, values)
        count = 0
        for j in range(rows - kept):
            if x[kept + j, i] != 0:
                for n in range(kept + j + 1):
                    terms[count], values[count] = j * rows + n, -(x[kept + j, i] * x[n, i])
                    count += x[n, i] != 0
        effects[i] = 0
        add_fours(effects, i, width, pairs, count, terms, values)


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


@compiled
def _leave_dead(rates: Array, effects: Array) -> None:
    """A rate at 0 has no gradient that would lower it."""
    zero = rates[0] * 0
    for p in range(len(rates)):
        effects[p] = zero if rates[p] <= zero and effects[p] > zero else effects[p]


@compiled
def _scale(values: Array, factor: Any) -> None:
    for p in range(len(values)):
        values[p] *= factor


@compiled
def _move(slow: Array, rates: Array, grads: Array, effects: Array, grow: Any) -> Any:
    """Rates, then weights by the new rates; the sum of squares of the way."""
    zero = grow * 0
    for p in range(len(slow)):
        rates[p] = max(rates[p] - grow * effects[p], zero)
        grads[p] = rates[p] * grads[p]
        slow[p] -= grads[p]
    return dot(grads, grads)


@compiled
def _finish(steps: int, held: Held, recipe: Recipe, room: Room) -> Any:
    """Mean over steps, dead rates that would sink left out, both norms clipped; then rates, and weights by the new rates.

    Returns how far the weights moved; NaN, with nothing changed, where a gradient is not finite.
    """
    slow, rates, grads, effects, stretches = held.slow, held.rates, room.grads, room.effects, _stretches(room)
    grown, gone, moved, share = room.one[0] * 0, room.one[0] * 0, room.one[0] * 0, room.one[0] / real(steps, room)
    for first, end in stretches:
        _leave_dead(rates[first:end], effects[first:end])
        grown += dot(effects[first:end], effects[first:end])
        gone += dot(grads[first:end], grads[first:end])
    if not (np.isfinite(grown) and np.isfinite(gone)):
        for first, end in stretches:
            if not (is_finite(grads[first:end]) and is_finite(effects[first:end])):
                return np.nan
    grow = recipe.rates[3] * share * clipping(np.sqrt(grown) * share, recipe.rates[4], room)
    move = share * clipping(np.sqrt(gone) * share, recipe.rates[4], room)
    for first, end in stretches:
        _scale(grads[first:end], move)
        moved += _move(slow[first:end], rates[first:end], grads[first:end], effects[first:end], grow)
    return np.sqrt(moved)


@compiled
def look_ahead(row: int, newest: int, work: Work) -> bool:
    """Move slow weights and rates by one look-ahead over the window that ends with this row. False when undone."""
    held, given, told, room, recipe = work.held, work.given, work.told, work.room, work.recipe
    span = _gather_rows(row, newest, work)
    steps = span.rows - span.kept
    _begin(span, held.slow, room)
    if span.kept and held.seen[0] % recipe.align_every < recipe.every:
        told.cosines[row] = _alignment(span.kept, span.rows, room)
    _pair_up(held.rates, span.kept, span.rows, room)
    known, order = _count_known(span.kept, held, given, room), given.orders[row, :steps]
    _first_deltas(span.kept + order[0], span.rows, room)
    for step in range(steps):
        _inner_step(step, order[step], span, held.rates, work)
        _score(step, span, known, work)
    _pair_off(order, span.kept, span.rows, room)
    _first_layer(span.kept, span.rows, room)
    told.norms[row] = _finish(steps, held, recipe, room)
    return not np.isnan(told.norms[row])
