"""One first-order look-ahead update of a multi-layer perceptron, compiled.

The fast weights of the first layer are never formed. An inner gradient there is an outer product δⱼxⱼᵀ, so inner step j
moves the pre-activation of row n by −δⱼ ⊙ P[j, n] with P[j, n] = Σᵢ a[i, :]·xⱼ[i]·xₙ[i], which is made once. Its step size
gradient is likewise a sum over pairs of rows. With Dₖ[n] the delta of query row n after step k and Cⱼ = Σ_{k ≥ j} Dₖ:
∂𝓛/∂θ₁[i, :] = (1/K) Σₙ xₙ[i]·C₁[n] and ∂𝓛/∂α₁[i, :] = −(1/K) Σⱼₙ xⱼ[i]·xₙ[i]·δⱼ ⊙ Cⱼ[n].
Zero inputs and units that do not fire contribute exactly nothing and are skipped.

Weights of all layers lie in one flat array: per layer [in, out], then its biases; the head is the last layer. No
reassociation is allowed (`fastmath` off), so one build gives one result. Nearly all work is one operation, a sum of some
rows of a table, each times a factor (`_accumulate`): four rows at a time, straight from the table, without a view.
"""

from typing import Any

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.look_ahead_room import Bench, Query, Rates, Terms, Weights
from streamlearn.records import Array

LANES = 16


@compiled
def _accumulate(out: Array, row: int, table: Array, count: int, terms: Terms) -> None:
    """Add to out[row] the `count` picked rows of `table`, each times its factor."""
    width = min(out.shape[1], table.shape[1])
    whole = count - count % 4
    for t in range(0, whole, 4):
        i, j, k, m = terms.picks[t], terms.picks[t + 1], terms.picks[t + 2], terms.picks[t + 3]
        a, b, c, d = terms.factors[t], terms.factors[t + 1], terms.factors[t + 2], terms.factors[t + 3]
        for o in range(width):
            out[row, o] += (a * table[i, o] + b * table[j, o]) + (c * table[k, o] + d * table[m, o])
    for t in range(whole, count):
        i, a = terms.picks[t], terms.factors[t]
        for o in range(width):
            out[row, o] += a * table[i, o]


@compiled
def _pick_row(factors: Array, row: int, width: int, terms: Terms) -> int:
    """List the entries of factors[row] that are not 0. How many there are."""
    count = 0
    for i in range(width):
        factor = factors[row, i]
        if factor != 0:
            terms.picks[count] = i
            terms.factors[count] = factor
            count += 1
    return count


@compiled
def _pick_column(factors: Array, column: int, rows: int, terms: Terms) -> int:
    """List the first `rows` entries of factors[:, column] that are not 0. How many there are."""
    count = 0
    for n in range(rows):
        factor = factors[n, column]
        if factor != 0:
            terms.picks[count] = n
            terms.factors[count] = factor
            count += 1
    return count


@compiled
def _rate(alpha: Any, floor: bool) -> Any:
    return alpha * 0 if floor and alpha < 0 else alpha


@compiled
def _pre_activations(theta: Array, x: Array, bench: Bench) -> None:
    inputs, width = bench.sizes[0], bench.sizes[1]
    table, bias = theta[: inputs * width].reshape(inputs, width), theta[inputs * width : bench.starts[1]]
    z, terms, used = bench.z, bench.terms, bench.used
    used[:] = False
    for n in range(len(x)):
        z[n, :] = bias
        count = _pick_row(x, n, inputs, terms)
        for t in range(count):
            used[terms.picks[t]] = True
        _accumulate(z, n, table, count, terms)


@compiled
def _spans(bench: Bench) -> Array:
    """Where a flat array holds what this update can move: weights of used features, and all that is not a weight of one."""
    inputs, width, count = bench.sizes[0], bench.sizes[1], 0
    spans = np.empty((inputs + 1, 2), np.int64)
    for i in range(inputs):
        if bench.used[i]:
            if count > 0 and spans[count - 1, 1] == i * width:
                spans[count - 1, 1] += width
            else:
                spans[count, 0], spans[count, 1] = i * width, (i + 1) * width
                count += 1
    spans[count, 0], spans[count, 1] = inputs * width, len(bench.grads)
    return spans[: count + 1]


@compiled
def _clear(alpha: Array, floor: bool, bench: Bench) -> None:
    """Sums at 0, and the first layer's step sizes as the inner loop takes them."""
    bias, grads, effects, query = bench.sizes[0] * bench.sizes[1], bench.grads, bench.effects, bench.query
    bench.steps[bias:] = 0
    for start, end in _spans(bench):
        for p in range(start, end):
            grads[p] = 0
            effects[p] = 0
            query[p] = _rate(alpha[p], floor)


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
def _pair_up(x: Array, bench: Bench) -> None:
    """P: what one inner gradient of the first layer does to the pre-activations of the others."""
    inputs, width, kept, most = bench.sizes[0], bench.sizes[1], len(x) - bench.fresh, len(bench.all_rows)
    pairs, terms, own = bench.pairs, bench.terms, np.empty(inputs, np.int64)
    table = bench.query[: inputs * width].reshape(inputs, width)
    pairs[:] = 0
    for j in range(bench.fresh):
        nonzero = _pick_row(x, kept + j, inputs, terms)
        own[:nonzero] = terms.picks[:nonzero]
        for n in range(kept + j + 1):
            count = 0
            for t in range(nonzero):
                i = own[t]
                if x[n, i] != 0:
                    terms.picks[count] = i
                    terms.factors[count] = x[kept + j, i] * x[n, i]
                    count += 1
            _accumulate(pairs, j * most + n, table, count, terms)
    for j in range(bench.fresh):
        for m in range(j):
            pairs[m * most + kept + j, :] = pairs[j * most + kept + m, :]


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
        _accumulate(outputs, n, table, _pick_row(inputs, n, before, terms), terms)


@compiled
def _backward(layer: int, rows: Array, bench: Bench) -> None:
    """Deltas of the layer below an upper layer."""
    before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
    table = bench.turned[start : start + before * after].reshape(after, before)
    outputs, below, deltas, terms = bench.outputs[layer - 1], bench.deltas[layer - 1], bench.deltas[layer], bench.terms
    for n in rows:
        below[n, :before] = 0
        _accumulate(below, n, table, _pick_row(deltas, n, after, terms), terms)
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
def _move_first_layer(alpha: Array, j: int, kept: int, floor: bool, bench: Bench) -> None:
    """The step of row j, seen from the pre-activations of all rows."""
    width, bias, most = bench.sizes[1], bench.sizes[0] * bench.sizes[1], len(bench.all_rows)
    z, pairs, inner, steps = bench.z, bench.pairs, bench.inner, bench.steps
    inner[j, :] = bench.deltas[0, kept + j, :width]
    for n in range(kept + bench.fresh):
        for o in range(width):
            z[n, o] -= inner[j, o] * (pairs[j * most + n, o] + _rate(alpha[bias + o], floor))
    steps[bias : bias + width] += inner[j]


@compiled
def _move_layer(alpha: Array, n: int, layer: int, floor: bool, bench: Bench) -> None:
    """The step of row n on an upper layer's fast weights; the last line is the biases'."""
    before, after, start, end = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer], bench.starts[layer + 1]
    fast, steps = bench.fast[start:end].reshape(before + 1, after), bench.steps[start:end].reshape(before + 1, after)
    own, turned = alpha[start:end].reshape(before + 1, after), bench.turned[start : end - after].reshape(after, before)
    outputs, deltas = bench.outputs[layer - 1], bench.deltas[layer]
    for i in range(before + 1):
        value = outputs[n, i] if i < before else fast.dtype.type(1)
        if value == 0:
            continue
        for o in range(after):
            step = value * deltas[n, o]
            steps[i, o] += step
            fast[i, o] -= _rate(own[i, o], floor) * step
        if i < before:
            for o in range(after):
                turned[o, i] = fast[i, o]


@compiled
def _inner_step(alpha: Array, query: Query, step: int, floor: bool, bench: Bench) -> None:
    """One step of gradient descent on the mean loss of the group's rows."""
    group, kept = query.groups[step], len(query.y) - bench.fresh
    _pass(query.y, group + kept, bench)
    for j in group:
        _move_first_layer(alpha, j, kept, floor, bench)
        for layer in range(1, len(bench.sizes) - 1):
            _move_layer(alpha, kept + j, layer, floor, bench)


@compiled
def _upper_gradient(rows: int, layer: int, bench: Bench) -> None:
    before, after, start, end = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer], bench.starts[layer + 1]
    table, outputs, deltas = bench.query[start:end].reshape(before + 1, after), bench.outputs[layer - 1], bench.deltas[layer]
    for i in range(before):
        _accumulate(table, i, deltas, _pick_column(outputs, i, rows, bench.terms), bench.terms)
    for n in range(rows):
        for o in range(after):
            table[before, o] += deltas[n, o]


@compiled
def _score(y: Array, step: int, bench: Bench) -> None:
    """Gradient of the query's mean loss under the fast weights, added to ∂θ and, times what was stepped, to ∂α."""
    width, bias = bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    query, steps, grads, effects, deltas0 = bench.query, bench.steps, bench.grads, bench.effects, bench.deltas0
    query[bias:] = 0
    _pass(y, bench.all_rows[: len(y)], bench)
    for n in range(len(y)):
        for o in range(width):
            deltas0[step, n, o] = bench.deltas[0, n, o]
            query[bias + o] += deltas0[step, n, o]
    for layer in range(1, len(bench.sizes) - 1):
        _upper_gradient(len(y), layer, bench)
    for p in range(bias, len(query)):
        grads[p] += query[p]
        effects[p] -= query[p] * steps[p]


@compiled
def _suffix_sums(groups: Array, rows: int, bench: Bench) -> None:
    """Cⱼ out of Dₖ, and δⱼ ⊙ Cⱼ for each pair; xⱼ·xₘ counts for (j, m) and for (m, j)."""
    kept, most, width = rows - bench.fresh, len(bench.all_rows), bench.sizes[1]
    deltas0, pairs, inner = bench.deltas0, bench.pairs, bench.inner
    for step in range(len(groups) - 2, -1, -1):
        deltas0[step, :rows] += deltas0[step + 1, :rows]
    for step in range(len(groups)):
        for j in groups[step]:
            for n in range(rows):
                for o in range(width):
                    pairs[j * most + n, o] = inner[j, o] * deltas0[step, n, o]
    for j in range(bench.fresh):
        for m in range(j):
            pairs[j * most + kept + m] += pairs[m * most + kept + j]


@compiled
def _first_layer(x: Array, bench: Bench, learns: bool) -> None:
    """∂θ and ∂α of the first layer, from rows and pairs of rows."""
    inputs, width, kept, most = bench.sizes[0], bench.sizes[1], len(x) - bench.fresh, len(bench.all_rows)
    grads = bench.grads[: inputs * width].reshape(inputs, width)
    effects = bench.effects[: inputs * width].reshape(inputs, width)
    total, pairs, terms = bench.deltas0[0], bench.pairs, bench.terms
    for i in range(inputs):
        if bench.used[i]:
            _accumulate(grads, i, total, _pick_column(x, i, len(x), terms), terms)
            count = 0
            for j in range(bench.fresh if learns else 0):
                own = x[kept + j, i]
                for n in range(kept + j + 1 if own != 0 else 0):
                    if x[n, i] != 0:
                        terms.picks[count] = j * most + n
                        terms.factors[count] = -(x[n, i] * own)
                        count += 1
            _accumulate(effects, i, pairs, count, terms)


@compiled
def _add_squares(sums: Array, values: Array, start: int, end: int) -> None:
    """Add the squares of values[start:end] to `sums`, lane by lane."""
    whole = end - (end - start) % LANES
    for block in range(start, whole, LANES):
        for lane in range(LANES):
            sums[lane] += values[block + lane] * values[block + lane]
    for p in range(whole, end):
        sums[0] += values[p] * values[p]


@compiled
def _clipping(squares: Any, share: Any, max_norm: Any) -> Any:
    """What clips `share` times gradients with this sum of squares to `max_norm`."""
    one = squares.dtype.type(1)
    scale = max_norm / (np.sqrt(squares.sum()) * share + squares.dtype.type(1e-6))
    return scale if not scale > one else one


@compiled
def _finish(weights: Weights, steps: int, rates: Rates, bench: Bench) -> None:
    """Mean over steps, the floor's own derivative, both norms clipped, then step sizes and weights."""
    theta, alpha, grads, effects, spans = weights.theta, weights.alpha, bench.grads, bench.effects, _spans(bench)
    share, outer_lr = theta.dtype.type(1) / theta.dtype.type(steps), rates.outer_lr[0]
    sums = np.zeros((2, LANES), theta.dtype)
    for start, end in spans:
        if rates.floor:
            for p in range(start, end):
                if alpha[p] <= 0:
                    effects[p] = 0
        _add_squares(sums[0], effects, start, end)
        _add_squares(sums[1], grads, start, end)
    grow = rates.meta_lr[0] * share * _clipping(sums[0], share, rates.clip_norm[0])
    move = share * _clipping(sums[1], share, rates.clip_norm[0])
    for start, end in spans:
        for p in range(start, end):
            alpha[p] -= grow * effects[p]
            rate = outer_lr if outer_lr > 0 else _rate(alpha[p], True)
            theta[p] -= rate * (move * grads[p])


@compiled
def update(weights: Weights, query: Query, rates: Rates, bench: Bench) -> None:
    """Move weights and step sizes by one look-ahead: inner steps, a score after each, one outer step."""
    upper, learns = bench.starts[1], rates.meta_lr[0] > 0
    bench.fast[upper:] = weights.theta[upper:]
    _turn(bench)
    _pre_activations(weights.theta, query.x, bench)
    _clear(weights.alpha, rates.floor, bench)
    _pair_up(query.x, bench)
    for step in range(len(query.groups)):
        _inner_step(weights.alpha, query, step, rates.floor, bench)
        _score(query.y, step, bench)
    _suffix_sums(query.groups, len(query.y), bench)
    _first_layer(query.x, bench, learns)
    _finish(weights, len(query.groups), rates, bench)


@compiled
def score_rows(theta: Array, query: Query, bench: Bench) -> None:
    """Leave outputs and deltas of all rows at θ in `bench`, layer by layer."""
    bench.fast[:] = theta
    _turn(bench)
    _pre_activations(theta, query.x, bench)
    _pass(query.y, bench.all_rows[: len(query.y)], bench)
