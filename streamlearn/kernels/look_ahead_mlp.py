"""One first-order look-ahead update of a multi-layer perceptron, compiled.

The fast weights of the first layer are never formed. An inner gradient there is an outer product δⱼxⱼᵀ, so inner step j
moves the pre-activation of row n by −δⱼ ⊙ P[j, n] with P[j, n] = Σᵢ a[i, :]·xⱼ[i]·xₙ[i], which is made once. Its step size
gradient is likewise a sum over pairs of rows. With Dₖ[n] the delta of query row n after step k and Cⱼ = Σ_{k ≥ j} Dₖ:
∂𝓛/∂θ₁[i, :] = (1/K) Σₙ xₙ[i]·C₁[n] and ∂𝓛/∂α₁[i, :] = −(1/K) Σⱼₙ xⱼ[i]·xₙ[i]·δⱼ ⊙ Cⱼ[n].
Zero inputs and units that do not fire contribute exactly nothing and are skipped.

Weights of all layers lie in one flat array: per layer [in, out], then its biases; the head is the last layer. No
reassociation is allowed (`fastmath` off), so one build gives one result.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from streamlearn.records import Array

F = TypeVar("F", bound=Callable[..., Any])
LANES = 16


class Weights(NamedTuple):
    """What an update moves, in place."""

    theta: Array  # [flat]
    alpha: Array  # [flat] step sizes


class Query(NamedTuple):
    """The rows of an update: replayed first, the chunk's own last."""

    x: Array  # [n, inputs]
    y: Array  # int64 [n]
    groups: Array  # int64 [steps, rows per step]: each inner step's rows, counted within the chunk


class Rates(NamedTuple):
    """An update's constants. Scalars are arrays of one entry, to keep the arithmetic in the type of the weights."""

    meta_lr: Array  # η; 0 leaves step sizes alone
    outer_lr: Array  # of Sync and C-MAML; 0 moves weights by their own step sizes
    clip_norm: Array
    floor: bool  # step sizes below 0 count as 0 in the inner loop


class Bench(NamedTuple):
    """The network's measures and room to work; what is in the room between updates means nothing."""

    sizes: Array  # int64 [layers + 1]: inputs, hidden layers, labels
    starts: Array  # int64 [layers + 1]: where each layer's weights begin in a flat array; its length
    fresh: int  # rows of a chunk
    z: Array  # [rows, width of layer 0] pre-activations under the fast weights
    pairs: Array  # [fresh, rows, width of layer 0]: P, then δⱼ ⊙ Cⱼ
    deltas0: Array  # [steps, rows, width of layer 0]: Dₖ, then Cₖ
    outputs: Array  # [layers, rows, widest]
    deltas: Array  # [layers, rows, widest]
    inner: Array  # [fresh, width of layer 0]: δⱼ
    fast: Array  # [flat]
    turned: Array  # [flat]: each upper layer's fast weights as [out, in]
    steps: Array  # [flat]: Sₖ
    query: Array  # [flat]: Gₖ
    grads: Array  # [flat]: ∂θ
    effects: Array  # [flat]: ∂α
    used: Array  # bool [inputs]: features that are not 0 in every row
    one: Array  # [1]: 1, in the type of the weights


def bench_for(sizes: Sequence[int], *, rows: int, fresh: int, steps: int, dtype: str) -> Bench:
    """For a network of these layer sizes and at most `rows` query rows, `fresh` of them of the chunk."""
    widths = np.array(sizes, np.int64)
    starts = np.cumsum([0, *((widths[:-1] + 1) * widths[1:])])
    layers, width0, widest, flat = len(widths) - 1, int(widths[1]), int(widths[1:].max()), int(starts[-1])
    shapes = [(rows, width0), (fresh, rows, width0), (steps, rows, width0), (layers, rows, widest), (layers, rows, widest)]
    room = [np.zeros(shape, dtype) for shape in (*shapes, (fresh, width0), *[flat] * 6)]
    return Bench._make([widths, starts, fresh, *room, np.zeros(int(widths[0]), np.bool_), np.ones(1, dtype)])


def rates_of(meta_lr: float, outer_lr: float, clip_norm: float, *, floor: bool, dtype: str) -> Rates:
    """Constants in the type of the weights."""
    return Rates(np.full(1, meta_lr, dtype), np.full(1, outer_lr, dtype), np.full(1, clip_norm, dtype), floor)


def compiled(function: F) -> F:
    """Compiled on first use, and kept on disk where the installation or the user's cache can be written."""
    try:
        return cast(F, numba.njit(function, cache=True, nogil=True, error_model="numpy"))
    except RuntimeError:  # numba found no place for its cache
        return cast(F, numba.njit(function, nogil=True, error_model="numpy"))


@compiled
def _rate(alpha: Any, floor: bool) -> Any:
    return alpha * 0 if floor and alpha < 0 else alpha


@compiled
def _add(total: Array, factor: Any, row: Array) -> None:
    for o in range(len(total)):
        total[o] += factor * row[o]


@compiled
def _pre_activations(theta: Array, x: Array, bench: Bench) -> None:
    width, bias = bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    bench.used[:] = False
    for n in range(len(x)):
        z = bench.z[n]
        z[:] = theta[bias : bench.starts[1]]
        for i in range(bench.sizes[0]):
            if x[n, i] != 0:
                bench.used[i] = True
                _add(z, x[n, i], theta[i * width : (i + 1) * width])


@compiled
def _turn(bench: Bench) -> None:
    """Transposed copies of the upper layers' fast weights."""
    for layer in range(1, len(bench.sizes) - 1):
        before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
        for i in range(before):
            for o in range(after):
                bench.turned[start + o * before + i] = bench.fast[start + i * after + o]


@compiled
def _pair_up(alpha: Array, x: Array, floor: bool, bench: Bench) -> None:
    """P: what one inner gradient of the first layer does to the pre-activations of the others."""
    width, kept = bench.sizes[1], len(x) - bench.fresh
    step_sizes = np.empty(width, alpha.dtype)
    bench.pairs[:] = 0
    for i in range(bench.sizes[0]):
        if not bench.used[i]:
            continue
        for o in range(width):
            step_sizes[o] = _rate(alpha[i * width + o], floor)
        for j in range(bench.fresh):
            if x[kept + j, i] != 0:
                for n in range(kept + j + 1):
                    product = x[kept + j, i] * x[n, i]
                    if product != 0:
                        _add(bench.pairs[j, n], product, step_sizes)
    for j in range(bench.fresh):
        for m in range(j):
            bench.pairs[m, kept + j, :] = bench.pairs[j, kept + m, :]


@compiled
def _forward(before: Array, after: Array, flat: Array) -> None:
    width = len(after)
    after[:] = flat[len(before) * width : (len(before) + 1) * width]
    for i in range(len(before)):
        if before[i] != 0:
            _add(after, before[i], flat[i * width : (i + 1) * width])


@compiled
def _backward(before: Array, earlier: Array, delta: Array, turned: Array) -> None:
    width = len(before)
    earlier[:] = 0
    for o in range(len(delta)):
        if delta[o] != 0:
            _add(earlier, delta[o], turned[o * width : (o + 1) * width])
    for i in range(width):
        if before[i] == 0:
            earlier[i] = 0


@compiled
def _softmax_delta(logits: Array, label: int, share: Any, delta: Array) -> None:
    highest, total = logits[0], logits[0] * 0
    for c in range(1, len(logits)):
        highest = max(highest, logits[c])
    for c in range(len(logits)):
        delta[c] = np.exp(logits[c] - highest)
        total += delta[c]
    for c in range(len(logits)):
        delta[c] = delta[c] / total * share
    delta[label] -= share


@compiled
def _pass(n: int, label: int, share: Any, bench: Bench) -> None:
    """Outputs of row n under the fast weights, and `share` times its deltas, layer by layer."""
    last = len(bench.sizes) - 2
    for layer in range(last + 1):
        after = bench.outputs[layer, n, : bench.sizes[layer + 1]]
        if layer == 0:
            after[:] = bench.z[n]
        else:
            _forward(bench.outputs[layer - 1, n, : bench.sizes[layer]], after, bench.fast[bench.starts[layer] :])
        if layer < last:
            for o in range(len(after)):
                if after[o] <= 0:  # noqa: PLR1730 unlike max, this lets NaN through, to be seen
                    after[o] = 0
    _softmax_delta(bench.outputs[last, n, : bench.sizes[last + 1]], label, share, bench.deltas[last, n])
    for layer in range(last, 0, -1):
        before = bench.outputs[layer - 1, n, : bench.sizes[layer]]
        earlier, delta = bench.deltas[layer - 1, n, : bench.sizes[layer]], bench.deltas[layer, n, : bench.sizes[layer + 1]]
        _backward(before, earlier, delta, bench.turned[bench.starts[layer] :])


@compiled
def _move_first_layer(weights: Weights, j: int, kept: int, rates: Rates, bench: Bench) -> None:
    """The step of row j, seen from the pre-activations of all rows."""
    width, bias = bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    delta = bench.inner[j]
    delta[:] = bench.deltas[0, kept + j, :width]
    for n in range(kept + bench.fresh):
        z, pair = bench.z[n], bench.pairs[j, n]
        for o in range(width):
            z[o] -= delta[o] * (pair[o] + _rate(weights.alpha[bias + o], rates.floor))
    _add(bench.steps[bias : bias + width], bench.one[0], delta)


@compiled
def _move_layer(alpha: Array, n: int, layer: int, floor: bool, bench: Bench) -> None:
    """The step of row n on an upper layer's fast weights."""
    before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
    delta, outputs = bench.deltas[layer, n], bench.outputs[layer - 1, n]
    for i in range(before + 1):
        value = outputs[i] if i < before else bench.one[0]
        if value == 0:
            continue
        at = start + i * after
        fast, steps, own = bench.fast[at : at + after], bench.steps[at : at + after], alpha[at : at + after]
        for o in range(after):
            step = value * delta[o]
            steps[o] += step
            fast[o] -= _rate(own[o], floor) * step
        if i < before:
            for o in range(after):
                bench.turned[start + o * before + i] = fast[o]


@compiled
def _inner_step(weights: Weights, query: Query, step: int, rates: Rates, bench: Bench) -> None:
    """One step of gradient descent on the mean loss of the group's rows."""
    group, kept = query.groups[step], len(query.y) - bench.fresh
    share = bench.one[0] / bench.one.dtype.type(len(group))
    for j in group:
        _pass(kept + j, query.y[kept + j], share, bench)
    for j in group:
        _move_first_layer(weights, j, kept, rates, bench)
        for layer in range(1, len(bench.sizes) - 1):
            _move_layer(weights.alpha, kept + j, layer, rates.floor, bench)


@compiled
def _upper_gradient(rows: int, layer: int, bench: Bench) -> None:
    before, after, start = bench.sizes[layer], bench.sizes[layer + 1], bench.starts[layer]
    for n in range(rows):
        outputs, delta = bench.outputs[layer - 1, n], bench.deltas[layer, n, :after]
        for i in range(before):
            if outputs[i] != 0:
                _add(bench.query[start + i * after : start + (i + 1) * after], outputs[i], delta)
        _add(bench.query[start + before * after : start + (before + 1) * after], bench.one[0], delta)


@compiled
def _score(y: Array, step: int, bench: Bench) -> None:
    """Gradient of the query's mean loss under the fast weights, added to ∂θ and, times what was stepped, to ∂α."""
    share = bench.one[0] / bench.one.dtype.type(len(y))
    width, bias = bench.sizes[1], bench.sizes[0] * bench.sizes[1]
    bench.query[bias:] = 0
    for n in range(len(y)):
        _pass(n, y[n], share, bench)
        bench.deltas0[step, n, :] = bench.deltas[0, n, :width]
        _add(bench.query[bias : bias + width], bench.one[0], bench.deltas0[step, n])
    for layer in range(1, len(bench.sizes) - 1):
        _upper_gradient(len(y), layer, bench)
    for p in range(bias, len(bench.query)):
        bench.grads[p] += bench.query[p]
        bench.effects[p] -= bench.query[p] * bench.steps[p]


@compiled
def _suffix_sums(groups: Array, rows: int, bench: Bench) -> None:
    """Cⱼ out of Dₖ, and δⱼ ⊙ Cⱼ for each pair; xⱼ·xₘ counts for (j, m) and for (m, j)."""
    kept = rows - bench.fresh
    for step in range(len(groups) - 2, -1, -1):
        for n in range(rows):
            _add(bench.deltas0[step, n], bench.one[0], bench.deltas0[step + 1, n])
    for step in range(len(groups)):
        for j in groups[step]:
            for n in range(rows):
                for o in range(bench.sizes[1]):
                    bench.pairs[j, n, o] = bench.inner[j, o] * bench.deltas0[step, n, o]
    for j in range(bench.fresh):
        for m in range(j):
            _add(bench.pairs[j, kept + m], bench.one[0], bench.pairs[m, kept + j])


@compiled
def _first_layer(x: Array, bench: Bench, learns: bool) -> None:
    """∂θ and ∂α of the first layer, from rows and pairs of rows."""
    width, kept = bench.sizes[1], len(x) - bench.fresh
    for i in range(bench.sizes[0]):
        if not bench.used[i]:
            continue
        grads, effects = bench.grads[i * width : (i + 1) * width], bench.effects[i * width : (i + 1) * width]
        for n in range(len(x)):
            if x[n, i] == 0:
                continue
            _add(grads, x[n, i], bench.deltas0[0, n])
            for j in range(max(0, n - kept), bench.fresh if learns else 0):
                product = x[n, i] * x[kept + j, i]
                if product != 0:
                    _add(effects, -product, bench.pairs[j, n])


@compiled
def _clipping(grads: Array, share: Any, max_norm: Any) -> Any:
    """What clips `share` times these gradients to `max_norm`."""
    sums = np.zeros(LANES, grads.dtype)
    whole = len(grads) - len(grads) % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            sums[lane] += grads[start + lane] * grads[start + lane]
    for p in range(whole, len(grads)):
        sums[0] += grads[p] * grads[p]
    scale = max_norm / (np.sqrt(sums.sum()) * share + grads.dtype.type(1e-6))
    return scale if not scale > 1 else grads.dtype.type(1)


@compiled
def _finish(weights: Weights, steps: int, rates: Rates, bench: Bench) -> None:
    """Mean over steps, the floor's own derivative, both norms clipped, then step sizes and weights."""
    share, width = bench.one[0] / bench.one.dtype.type(steps), bench.sizes[1]
    if rates.floor:
        for p in range(len(weights.alpha)):
            if weights.alpha[p] <= 0:
                bench.effects[p] = 0
    grow = rates.meta_lr[0] * share * _clipping(bench.effects, share, rates.clip_norm[0])
    move = share * _clipping(bench.grads, share, rates.clip_norm[0])
    for i in range(bench.sizes[0] + 1):
        if i == bench.sizes[0] or bench.used[i]:
            for p in range(i * width, len(weights.theta) if i == bench.sizes[0] else (i + 1) * width):
                weights.alpha[p] -= grow * bench.effects[p]
                rate = rates.outer_lr[0] if rates.outer_lr[0] > 0 else _rate(weights.alpha[p], True)
                weights.theta[p] -= rate * (move * bench.grads[p])


@compiled
def update(weights: Weights, query: Query, rates: Rates, bench: Bench) -> None:
    """Move weights and step sizes by one look-ahead: inner steps, a score after each, one outer step."""
    upper, learns = bench.starts[1], rates.meta_lr[0] > 0
    bench.fast[upper:] = weights.theta[upper:]
    bench.steps[:] = 0
    bench.grads[:] = 0
    bench.effects[:] = 0
    _turn(bench)
    _pre_activations(weights.theta, query.x, bench)
    _pair_up(weights.alpha, query.x, rates.floor, bench)
    for step in range(len(query.groups)):
        _inner_step(weights, query, step, rates, bench)
        _score(query.y, step, bench)
    _suffix_sums(query.groups, len(query.y), bench)
    _first_layer(query.x, bench, learns)
    _finish(weights, len(query.groups), rates, bench)


@compiled
def _inner_product(n: int, m: int, x: Array, bench: Bench) -> float:
    """Of the gradients of two rows: per layer (inputs · inputs + 1) (deltas · deltas)."""
    product = 0.0
    for layer in range(len(bench.sizes) - 1):
        inputs, outputs = 1.0, 0.0
        for i in range(bench.sizes[layer]):
            inputs += x[n, i] * x[m, i] if layer == 0 else bench.outputs[layer - 1, n, i] * bench.outputs[layer - 1, m, i]
        for o in range(bench.sizes[layer + 1]):
            outputs += bench.deltas[layer, n, o] * bench.deltas[layer, m, o]
        product += inputs * outputs
    return product


@compiled
def alignment(weights: Weights, query: Query, bench: Bench) -> float:
    """Cosine between the gradients of replayed and of fresh rows at θ, from inner products of rows alone."""
    rows, kept = len(query.y), len(query.y) - bench.fresh
    bench.fast[:] = weights.theta
    _turn(bench)
    _pre_activations(weights.theta, query.x, bench)
    both, old, new = 0.0, 0.0, 0.0
    for n in range(rows):
        _pass(n, query.y[n], bench.one[0], bench)
        for m in range(n + 1):
            product = _inner_product(n, m, query.x, bench) * (1.0 if n == m else 2.0)
            if n < kept:
                old += product
            elif m >= kept:
                new += product
            else:
                both += product / 2.0
    cosine: float = both / np.sqrt(old * new)
    return cosine
