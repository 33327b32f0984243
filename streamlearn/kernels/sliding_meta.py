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
from streamlearn.kernels.sliding_finish import finish
from streamlearn.kernels.sliding_gather import Span, gather_rows
from streamlearn.kernels.sliding_passes import (
    biases_of,
    enter,
    inner_product,
    judge,
    layer_of,
    real,
    rise,
    row_clipping,
    sink,
    turn_all,
    turned,
)
from streamlearn.kernels.sliding_room import Room, Work
from streamlearn.kernels.sums import add_fours
from streamlearn.records import Array


class Stored(NamedTuple):
    """The answers that are held against those of now."""

    logits: Array  # [capacity, label rows]
    known: Array  # bool [capacity, label rows]
    active: Array  # int64 [labels]: the active label rows
    weight: Any  # of the recall gap, for each answer that is compared


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
    turn_all(room)


@compiled
def _products(m: int, n: int, room: Room) -> int:
    """List as terms the features where the product of two rows is not 0. How many there are."""
    x, picks, terms, values = room.x, room.picks, room.terms, room.values
    count = 0
    for t in range(room.counts[m]):
        i = picks[m, t]
        terms[count], values[count] = i, x[m, i] * x[n, i]
        count += values[count] != 0
    return count


@compiled
def _pair_up(rates: Array, kept: int, rows: int, room: Room) -> None:
    """P: what one inner step does to the pre-activations of the first layer, but for the biases."""
    step_sizes, terms, values, pairs, width = layer_of(rates, 0, room), room.terms, room.values, room.pairs, room.sizes[1]
    for j in range(rows - kept):
        for n in range(kept + j + 1):
            at, count = j * rows + n, _products(kept + j, n, room)
            for o in range(width):
                pairs[at, o] = 0
            add_fours(pairs, at, width, step_sizes, count, terms, values)
        for m in range(j):
            for o in range(width):
                pairs[m * rows + kept + j, o] = pairs[j * rows + kept + m, o]


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
def _stored(kept: int, work: Work) -> Stored:
    held, given, room, weight = work.held, work.given, work.room, work.recipe.rates[2]
    compared = 0
    for n in range(kept):
        for c in range(room.sizes[-1]):
            compared += held.known[room.slots[n], given.active[c]]
    if compared:
        weight /= real(compared, room)
    return Stored(held.logits, held.known, given.active, weight)


@compiled
def _move_layer(step: int, layer: int, rates: Array, room: Room) -> None:
    """The weights that look ahead, and their turned copy, by this step."""
    before, after, across = room.sizes[layer], room.sizes[layer + 1], turned(layer, room)
    ahead, sizes = layer_of(room.ahead, layer, room), layer_of(rates, layer, room)
    inputs, deltas = room.inner_inputs[layer], room.inner_deltas[layer]
    for i in range(before + 1):
        value = inputs[step, i]
        if value == 0:
            continue
        for o in range(after):
            ahead[i, o] -= sizes[i, o] * (value * deltas[step, o])
        if i < before:
            for o in range(after):
                across[o, i] = ahead[i, o]


@compiled
def _inner_step(step: int, n: int, span: Span, rates: Array, bound: Any, room: Room) -> None:  # noqa: PLR0917 numba
    """Step on the loss of the window's row `n`, by its deltas in the room, which are those of its share in the score."""
    rows, j, whole = span.rows, n - span.kept, real(span.rows, room)
    whole *= row_clipping(n, whole, bound, room)
    inputs, deltas = room.inner_inputs, room.inner_deltas
    for layer in range(len(room.sizes) - 1):
        for o in range(room.sizes[layer + 1]):
            deltas[layer, step, o] = room.deltas[layer, n, o] * whole
        if layer:
            for i in range(room.sizes[layer]):
                inputs[layer, step, i] = room.outputs[layer - 1, n, i]
            inputs[layer, step, room.sizes[layer]] = 1
    z, pairs, biases = room.z, room.pairs, biases_of(rates, 0, room)
    for m in range(rows):
        for o in range(room.sizes[1]):
            z[m, o] -= deltas[0, step, o] * (pairs[j * rows + m, o] + biases[o])
    for layer in range(1, len(room.sizes) - 1):
        _move_layer(step, layer, rates, room)


@compiled
def _gap(n: int, stored: Stored, room: Room) -> None:
    """Add the delta of the recall gap to row n's in the last layer."""
    last, slot, active, weight = len(room.sizes) - 2, room.slots[n], stored.active, stored.weight
    logits, deltas, was, known = room.outputs[last], room.deltas[last], stored.logits, stored.known
    for c in range(len(active)):
        if known[slot, active[c]]:
            gap = logits[n, c] - was[slot, active[c]]
            deltas[n, c] += weight * (gap + gap)


@compiled
def _score(step: int, span: Span, stored: Stored, room: Room) -> None:
    """Deltas of the score under the weights that look ahead, kept beside the outputs they go with."""
    rows, share = span.rows, room.one[0] / real(span.rows, room)
    rise(0, rows, room.ahead, room)
    for n in range(rows):
        judge(n, room.y[n], share, room)
    if stored.weight > 0:
        for n in range(span.kept):
            _gap(n, stored, room)
    sink(0, rows, room)
    last = len(room.sizes) - 2
    for layer in range(last + 1):
        for n in range(rows):
            for o in range(room.sizes[layer + 1]):
                room.score_deltas[layer, step * rows + n, o] = room.deltas[layer, n, o]
                if layer < last:
                    room.score_outputs[layer, step * rows + n, o] = room.outputs[layer, n, o]


@compiled
def _first_deltas(n: int, rows: int, room: Room) -> None:
    """As `_score` leaves them for a row of the window."""
    rise(n, n + 1, room.ahead, room)
    judge(n, room.y[n], room.one[0] / real(rows, room), room)
    sink(n, n + 1, room)


@compiled
def _upper_layer(layer: int, steps: int, rows: int, room: Room) -> None:
    """∂θ and ∂α of an upper layer, unit by unit, from the last step to the first.

    What the score of this and later steps says of a weight, times the inner gradient of this step, is its part of ∂α.
    """
    grads, effects = layer_of(room.grads, layer, room), layer_of(room.effects, layer, room)
    outputs, deltas = room.score_outputs[layer - 1], room.score_deltas[layer]
    inputs, inner = room.inner_inputs[layer], room.inner_deltas[layer]
    before, width, terms, values, one = room.sizes[layer], room.sizes[layer + 1], room.terms, room.values, room.one[0]
    for i in range(before + 1):
        for o in range(width):
            grads[i, o] = 0
            effects[i, o] = 0
        for step in range(steps - 1, -1, -1):
            count = 0
            for n in range(step * rows, (step + 1) * rows):
                terms[count], values[count] = n, outputs[n, i] if i < before else one
                count += values[count] != 0
            add_fours(grads, i, width, deltas, count, terms, values)
            if inputs[step, i] != 0:
                for o in range(width):
                    effects[i, o] -= inputs[step, i] * inner[step, o] * grads[i, o]


@compiled
def _pair_off(order: Array, kept: int, rows: int, room: Room) -> None:
    """Cⱼ out of Dₖ, and δⱼ ⊙ Cⱼ for each pair; xⱼ·xₘ counts for (j, m) and for (m, j)."""
    later, inner, pairs, width = room.score_deltas[0], room.inner_deltas[0], room.pairs, room.sizes[1]
    for at in range((len(order) - 1) * rows - 1, -1, -1):
        for o in range(width):
            later[at, o] += later[at + rows, o]
    for step in range(len(order)):
        for n in range(rows):
            for o in range(width):
                pairs[order[step] * rows + n, o] = inner[step, o] * later[step * rows + n, o]
    for j in range(rows - kept):
        for m in range(j):
            for o in range(width):
                pairs[j * rows + kept + m, o] += pairs[m * rows + kept + j, o]


@compiled
def _first_layer(kept: int, rows: int, room: Room) -> None:
    """∂θ and ∂α of the first layer's weights, from rows and pairs of rows."""
    grads, effects = layer_of(room.grads, 0, room), layer_of(room.effects, 0, room)
    later, pairs = room.score_deltas[0], room.pairs
    x, terms, values, used, width = room.x, room.terms, room.values, room.used, room.sizes[1]
    for i in range(len(used)):
        if not used[i]:
            continue
        for o in range(width):
            grads[i, o] = 0
            effects[i, o] = 0
        count = 0
        for n in range(rows):
            terms[count], values[count] = n, x[n, i]
            count += x[n, i] != 0
        add_fours(grads, i, width, later, count, terms, values)
        count = 0
        for j in range(rows - kept):
            if x[kept + j, i] != 0:
                for n in range(kept + j + 1):
                    terms[count], values[count] = j * rows + n, -(x[kept + j, i] * x[n, i])
                    count += x[n, i] != 0
        add_fours(effects, i, width, pairs, count, terms, values)


@compiled
def _first_biases(steps: int, rows: int, room: Room) -> None:
    grads, effects = biases_of(room.grads, 0, room), biases_of(room.effects, 0, room)
    later, inner = room.score_deltas[0], room.inner_deltas[0]
    for o in range(room.sizes[1]):
        effects[o] = 0
        for step in range(steps - 1, -1, -1):
            grads[o] = 0
            for n in range(step * rows, (step + 1) * rows):
                grads[o] += later[n, o]
            effects[o] -= inner[step, o] * grads[o]


@compiled
def look_ahead(row: int, newest: int, work: Work) -> bool:
    """Move slow weights and rates by one look-ahead over the window that ends with this row. False when undone."""
    held, given, told, room, recipe = work.held, work.given, work.told, work.room, work.recipe
    span = gather_rows(row, newest, work)
    steps = span.rows - span.kept
    _begin(span, held.slow, room)
    if span.kept and held.seen[0] % recipe.align_every < recipe.every:
        told.cosines[row] = _alignment(span.kept, span.rows, room)
    _pair_up(held.rates, span.kept, span.rows, room)
    stored, order = _stored(span.kept, work), given.orders[row, :steps]
    _first_deltas(span.kept + order[0], span.rows, room)
    for step in range(steps):
        _inner_step(step, span.kept + order[step], span, held.rates, recipe.rates[5], room)
        _score(step, span, stored, room)
    for layer in range(1, len(room.sizes) - 1):
        _upper_layer(layer, steps, span.rows, room)
    _pair_off(order, span.kept, span.rows, room)
    _first_layer(span.kept, span.rows, room)
    _first_biases(steps, span.rows, room)
    told.norms[row] = finish(steps, held, recipe, room)
    return not np.isnan(told.norms[row])
