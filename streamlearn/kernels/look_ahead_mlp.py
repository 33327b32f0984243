"""One first-order look-ahead update of a multi-layer perceptron, compiled.

The fast weights of the first layer are never formed (see `look_ahead_first`); those of the upper layers are, and are scored
after every inner step. Zero inputs and units that do not fire contribute exactly nothing and are skipped.

Weights of all layers lie in one flat array: per layer [in, out], then its biases; the head is the last layer. No
reassociation is allowed (`fastmath` off), so one build gives one result. Nearly all work is one operation, a sum of some
rows of a table, each times a factor (`terms.accumulate`).
"""

from typing import Any

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.look_ahead_first import (
    first_layer,
    move_pre_activations,
    pair_up,
    pre_activations,
    spans,
    suffix_sums,
    take_rates,
)
from streamlearn.kernels.look_ahead_room import Bench, Query, Rates, Weights
from streamlearn.kernels.terms import accumulate, pick_column, pick_row, summed
from streamlearn.records import Array

LANES = 16


@compiled
def _clear(alpha: Array, floor: bool, bench: Bench) -> None:
    """Sums at 0, and step sizes as the inner loop takes them."""
    bias = bench.sizes[0] * bench.sizes[1]
    bench.steps[bias:] = 0
    bench.grads[bias:] = 0
    bench.effects[bias:] = 0
    take_rates(alpha[bias:], floor, bench.rates[bias:])
    for start, end in spans(bench):
        take_rates(alpha[start:end], floor, bench.rates[start:end])


@compiled
def _turn(bench: Bench) -> None:
    """Transposed copies of the upper layers' fast weights."""
    for layer in range(1, len(bench.sizes) - 1):
        before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
        weights = bench.fast[start : start + before * after].reshape(before, after)
        turned = bench.turned[start : start + before * after].reshape(after, before)
        for i in range(before):
            for o in range(after):
                turned[o, i] = weights[i, o]


@compiled
def _softmax_deltas(logits: Array, y: Array, rows: Array, labels: int, deltas: Array) -> None:
    """Gradient of the mean cross-entropy over these rows with respect to their logits."""
    share = logits.dtype.type(1) / logits.dtype.type(len(rows))
    for n in rows:
        highest, total = logits[n, 0], logits.dtype.type(0)
        for c in range(1, labels):
            highest = max(highest, logits[n, c])
        for c in range(labels):
            deltas[n, c] = np.exp(logits[n, c] - highest)
            total += deltas[n, c]
        for c in range(labels):
            deltas[n, c] = deltas[n, c] / total * share
        deltas[n, y[n]] -= share


@compiled
def _rectify(outputs: Array, rows: Array, width: int) -> None:
    for n in rows:
        for o in range(width):
            if outputs[n, o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                outputs[n, o] = 0


@compiled
def _forward(layer: int, rows: Array, bench: Bench) -> None:
    """Outputs of an upper layer under the fast weights."""
    before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
    table = bench.fast[start : start + before * after].reshape(before, after)
    bias = bench.fast[start + before * after : bench.starts[layer + 1]]
    inputs, outputs, terms = bench.outputs[layer - 1], bench.outputs[layer], bench.terms
    for n in rows:
        outputs[n, :after] = bias
        accumulate(outputs, n, table, pick_row(inputs, n, before, terms), terms)


@compiled
def _backward(layer: int, rows: Array, bench: Bench) -> None:
    """Deltas of the layer below an upper layer."""
    before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
    table = bench.turned[start : start + before * after].reshape(after, before)
    outputs, below, deltas, terms = bench.outputs[layer - 1], bench.deltas[layer - 1], bench.deltas[layer], bench.terms
    for n in rows:
        summed(below, n, table, pick_row(deltas, n, after, terms), terms)
        for i in range(before):
            if outputs[n, i] == 0:
                below[n, i] = 0


@compiled
def _pass(y: Array, rows: Array, bench: Bench) -> None:
    """Outputs of these rows under the fast weights, and the deltas of their mean loss, layer by layer."""
    last = len(bench.sizes) - 2
    for n in rows:
        bench.outputs[0, n, : bench.sizes[1]] = bench.z[n]
    for layer in range(last + 1):
        if layer > 0:
            _forward(layer, rows, bench)
        if layer < last:
            _rectify(bench.outputs[layer], rows, bench.sizes[layer + 1])
    _softmax_deltas(bench.outputs[last], y, rows, bench.sizes[last + 1], bench.deltas[last])
    for layer in range(last, 0, -1):
        _backward(layer, rows, bench)


@compiled
def _move_layer(n: int, layer: int, bench: Bench) -> None:
    """The step of row n on an upper layer's fast weights; the last line is the biases'."""
    before, after, start, end = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer], bench.starts[layer + 1]
    fast, steps = bench.fast[start:end].reshape(before + 1, after), bench.steps[start:end].reshape(before + 1, after)
    own, turned = bench.rates[start:end].reshape(before + 1, after), bench.turned[start : end - after].reshape(after, before)
    outputs, deltas = bench.outputs[layer - 1], bench.deltas[layer]
    for i in range(before + 1):
        value = outputs[n, i] if i < before else fast.dtype.type(1)
        if value == 0:
            continue
        for o in range(after):
            step = value * deltas[n, o]
            steps[i, o] += step
            fast[i, o] -= own[i, o] * step
        if i < before:
            for o in range(after):
                turned[o, i] = fast[i, o]


@compiled
def _inner_step(query: Query, step: int, bench: Bench) -> None:
    """One step of gradient descent on the mean loss of the group's rows."""
    group, kept, width, bias = query.groups[step], len(query.y) - bench.fresh, bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    _pass(query.y, group + kept, bench)
    for j in group:
        move_pre_activations(bench.rates[bias : bias + width], j, kept, bench)
        for layer in range(1, len(bench.sizes) - 1):
            _move_layer(kept + j, layer, bench)


@compiled
def _upper_gradient(rows: int, layer: int, bench: Bench) -> None:
    before, after, start, end = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer], bench.starts[layer + 1]
    table, outputs, deltas = bench.query[start:end].reshape(before + 1, after), bench.outputs[layer - 1], bench.deltas[layer]
    for i in range(before):
        summed(table, i, deltas, pick_column(outputs, i, rows, bench.terms), bench.terms)
    table[before, :] = 0
    for n in range(rows):
        for o in range(after):
            table[before, o] += deltas[n, o]


@compiled
def _score(y: Array, step: int, bench: Bench) -> None:
    """Gradient of the query's mean loss under the fast weights, added to ∂θ and, times what was stepped, to ∂α."""
    width, bias = bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    query, deltas0 = bench.query[bias:], bench.deltas0
    query[:width] = 0
    _pass(y, bench.all_rows[: len(y)], bench)
    for n in range(len(y)):
        for o in range(width):
            deltas0[step, n, o] = bench.deltas[0, n, o]
            query[o] += deltas0[step, n, o]
    for layer in range(1, len(bench.sizes) - 1):
        _upper_gradient(len(y), layer, bench)
    _add_scores(query, bench.steps[bias:], bench.grads[bias:], bench.effects[bias:])


@compiled
def _add_scores(query: Array, steps: Array, grads: Array, effects: Array) -> None:
    for p in range(len(query)):
        grads[p] += query[p]
        effects[p] -= query[p] * steps[p]


@compiled
def _add_squares(sums: Array, values: Array) -> None:
    """Add the squares of values to `sums`, lane by lane."""
    whole = len(values) - len(values) % LANES
    for block in range(0, whole, LANES):
        for lane in range(LANES):
            sums[lane] += values[block + lane] * values[block + lane]
    for p in range(whole, len(values)):
        sums[0] += values[p] * values[p]


@compiled
def _clipping(squares: Any, share: Any, max_norm: Any) -> Any:
    """What clips `share` times gradients with this sum of squares to `max_norm`."""
    one = squares.dtype.type(1)
    scale = max_norm / (np.sqrt(squares.sum()) * share + squares.dtype.type(1e-6))
    return scale if not scale > one else one


@compiled
def _drop_floored(alpha: Array, effects: Array) -> None:
    """The floor's own derivative: a step size at 0 or below has no effect."""
    zero = alpha.dtype.type(0)
    for p in range(len(alpha)):
        effects[p] = zero if alpha[p] <= zero else effects[p]


@compiled
def _move_rates(alpha: Array, effects: Array, grow: Any) -> None:
    for p in range(len(alpha)):
        alpha[p] -= grow * effects[p]


@compiled
def _move_weights(theta: Array, alpha: Array, grads: Array, move: Any) -> None:
    zero = theta.dtype.type(0)
    for p in range(len(theta)):
        theta[p] -= (zero if alpha[p] < zero else alpha[p]) * (move * grads[p])


@compiled
def _move_alike(theta: Array, grads: Array, rate: Any, move: Any) -> None:
    for p in range(len(theta)):
        theta[p] -= rate * (move * grads[p])


@compiled
def _finish(weights: Weights, steps: int, rates: Rates, bench: Bench) -> None:
    """Mean over steps, the floor's own derivative, both norms clipped, then step sizes and weights."""
    theta, alpha, grads, effects, parts = weights.theta, weights.alpha, bench.grads, bench.effects, spans(bench)
    share, outer_lr = theta.dtype.type(1) / theta.dtype.type(steps), rates.outer_lr[0]
    sums = np.zeros((2, LANES), theta.dtype)
    for start, end in parts:
        if rates.floor:
            _drop_floored(alpha[start:end], effects[start:end])
        _add_squares(sums[0], effects[start:end])
        _add_squares(sums[1], grads[start:end])
    grow = rates.meta_lr[0] * share * _clipping(sums[0], share, rates.clip_norm[0])
    move = share * _clipping(sums[1], share, rates.clip_norm[0])
    for start, end in parts:
        _move_rates(alpha[start:end], effects[start:end], grow)
        if outer_lr > 0:
            _move_alike(theta[start:end], grads[start:end], outer_lr, move)
        else:
            _move_weights(theta[start:end], alpha[start:end], grads[start:end], move)


@compiled
def update(weights: Weights, query: Query, rates: Rates, bench: Bench) -> None:
    """Move weights and step sizes by one look-ahead: inner steps, a score after each, one outer step."""
    upper, learns = bench.starts[1], rates.meta_lr[0] > 0
    bench.fast[upper:] = weights.theta[upper:]
    _turn(bench)
    pre_activations(weights.theta, query.x, bench)
    _clear(weights.alpha, rates.floor, bench)
    pair_up(query.x, bench)
    for step in range(len(query.groups)):
        _inner_step(query, step, bench)
        _score(query.y, step, bench)
    suffix_sums(query.groups, len(query.y), bench)
    first_layer(query.x, bench, learns)
    _finish(weights, len(query.groups), rates, bench)


@compiled
def score_rows(theta: Array, query: Query, bench: Bench) -> None:
    """Leave outputs and deltas of all rows at θ in `bench`, layer by layer."""
    bench.fast[:] = theta
    _turn(bench)
    pre_activations(theta, query.x, bench)
    _pass(query.y, bench.all_rows[: len(query.y)], bench)
