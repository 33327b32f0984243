"""The first layer of a compiled look-ahead, whose fast weights are never formed.

An inner gradient there is an outer product δⱼxⱼᵀ, so inner step j moves the pre-activation of row n by −δⱼ ⊙ P[j, n] with
P[j, n] = Σᵢ a[i, :]·xⱼ[i]·xₙ[i], which is made once. Its step size gradient is likewise a sum over pairs of rows. With Dₖ[n]
the delta of query row n after step k and Cⱼ = Σ_{k ≥ j} Dₖ: ∂𝓛/∂θ₁[i, :] = (1/K) Σₙ xₙ[i]·C₁[n] and
∂𝓛/∂α₁[i, :] = −(1/K) Σⱼₙ xⱼ[i]·xₙ[i]·δⱼ ⊙ Cⱼ[n].
"""

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.look_ahead_room import Bench
from streamlearn.kernels.terms import Terms, accumulate, pick_row, summed
from streamlearn.records import Array


@compiled
def take_rates(alpha: Array, floor: bool, out: Array) -> None:
    """Step sizes as the inner loop takes them."""
    zero = alpha.dtype.type(0)
    for p in range(len(out)):
        out[p] = zero if floor and alpha[p] < zero else alpha[p]


@compiled
def pre_activations(theta: Array, x: Array, bench: Bench) -> None:
    """Of all rows at θ. Notes which features are not 0 in every row."""
    inputs, width = bench.sizes[0], bench.sizes[1]
    table, bias = theta[: inputs * width].reshape(inputs, width), theta[inputs * width : bench.starts[1]]
    bench.used[:] = False
    for n in range(len(x)):
        bench.z[n, :] = bias
        for i in range(inputs):
            bench.used[i] |= x[n, i] != 0
        accumulate(bench.z, n, table, pick_row(x, n, inputs, bench.terms), bench.terms)


@compiled
def pair_up(x: Array, bench: Bench) -> None:
    """P: what one inner gradient does to the pre-activations of the others."""
    inputs, width, kept, most = bench.sizes[0], bench.sizes[1], len(x) - bench.fresh, len(bench.all_rows)
    pairs, terms, own = bench.pairs, bench.terms, bench.own
    table = bench.rates[: inputs * width].reshape(inputs, width)
    for j in range(bench.fresh):
        nonzero = pick_row(x, kept + j, inputs, own)
        for n in range(kept + j + 1):
            count = 0
            for t in range(nonzero):
                other = x[n, own.picks[t]]
                terms.picks[count] = own.picks[t]
                terms.factors[count] = own.factors[t] * other
                count += other != 0
            summed(pairs, j * most + n, table, count, terms)
    for j in range(bench.fresh):
        for m in range(j):
            pairs[m * most + kept + j, :] = pairs[j * most + kept + m, :]


@compiled
def move_pre_activations(rates: Array, j: int, kept: int, bench: Bench) -> None:
    """The step of row j of the chunk, seen from the pre-activations of all rows; `rates` are the biases'."""
    width, bias, most = bench.sizes[1], bench.sizes[0] * bench.sizes[1], len(bench.all_rows)
    z, pairs, inner = bench.z, bench.pairs, bench.inner
    inner[j, :] = bench.deltas[0, kept + j, :width]
    for n in range(kept + bench.fresh):
        for o in range(width):
            z[n, o] -= inner[j, o] * (pairs[j * most + n, o] + rates[o])
    bench.steps[bias : bias + width] += inner[j]


@compiled
def suffix_sums(groups: Array, rows: int, bench: Bench) -> None:
    """Cⱼ out of Dₖ, and −δⱼ ⊙ Cⱼ for each pair; xⱼ·xₘ counts for (j, m) and for (m, j)."""
    kept, most, width = rows - bench.fresh, len(bench.all_rows), bench.sizes[1]
    deltas0, pairs, inner = bench.deltas0, bench.pairs, bench.inner
    for step in range(len(groups) - 2, -1, -1):
        for n in range(rows):
            for o in range(width):
                deltas0[step, n, o] += deltas0[step + 1, n, o]
    for step in range(len(groups)):
        for j in groups[step]:
            for n in range(rows):
                for o in range(width):
                    pairs[j * most + n, o] = -(inner[j, o] * deltas0[step, n, o])
    for j in range(bench.fresh):
        for m in range(j):
            for o in range(width):
                pairs[j * most + kept + m, o] += pairs[m * most + kept + j, o]


@compiled
def first_layer(x: Array, bench: Bench, learns: bool) -> None:
    """∂θ and ∂α of used features, from rows and pairs of rows."""
    inputs, width = bench.sizes[0], bench.sizes[1]
    grads = bench.grads[: inputs * width].reshape(inputs, width)
    effects = bench.effects[: inputs * width].reshape(inputs, width)
    rows = bench.own
    for i in range(inputs):
        if bench.used[i]:
            count = 0
            for n in range(len(x)):
                rows.picks[count] = n
                rows.factors[count] = x[n, i]
                count += x[n, i] != 0
            summed(grads, i, bench.deltas0[0], count, rows)
            pairs = _pairs_of(rows, count, len(x), bench) if learns else 0
            summed(effects, i, bench.pairs, pairs, bench.terms)


@compiled
def _pairs_of(rows: Terms, count: int, total: int, bench: Bench) -> int:
    """List the pairs of a row of the chunk and one not after it, out of those that have a feature."""
    kept, most, terms, listed = total - bench.fresh, len(bench.all_rows), bench.terms, 0
    for t in range(count):
        if rows.picks[t] >= kept:
            line = (rows.picks[t] - kept) * most
            for s in range(t + 1):
                terms.picks[listed + s] = line + rows.picks[s]
                terms.factors[listed + s] = rows.factors[s] * rows.factors[t]
            listed += t + 1
    return listed


@compiled
def spans(bench: Bench) -> Array:
    """Where a flat array holds what this update can move: weights of used features, and all that is not a weight of one."""
    inputs, width, count = bench.sizes[0], bench.sizes[1], 0
    found = np.empty((inputs + 1, 2), np.int64)
    for i in range(inputs):
        if bench.used[i]:
            if count > 0 and found[count - 1, 1] == i * width:
                found[count - 1, 1] += width
            else:
                found[count, 0], found[count, 1] = i * width, (i + 1) * width
                count += 1
    found[count, 0], found[count, 1] = inputs * width, len(bench.grads)
    return found[: count + 1]
