"""What the compiled look-ahead of a multi-layer perceptron is given, and where it works."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.kernels.terms import Terms, terms_for
from streamlearn.records import Array


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
    all_rows: Array  # int64 [rows]: 0, 1, …
    z: Array  # [rows, width of layer 0] pre-activations under the fast weights
    pairs: Array  # [fresh · rows, width of layer 0]: P, then δⱼ ⊙ Cⱼ
    deltas0: Array  # [steps, rows, width of layer 0]: Dₖ, then Cₖ
    outputs: Array  # [layers, rows, widest]
    deltas: Array  # [layers, rows, widest]
    inner: Array  # [fresh, width of layer 0]: δⱼ
    fast: Array  # [flat]
    turned: Array  # [flat]: each upper layer's fast weights as [out, in]
    steps: Array  # [flat]: Sₖ
    query: Array  # [flat]: Gₖ
    rates: Array  # [flat]: step sizes as the inner loop takes them
    grads: Array  # [flat]: ∂θ
    effects: Array  # [flat]: ∂α
    used: Array  # bool [inputs]: features that are not 0 in every row
    terms: Terms
    own: Terms  # those of one row, or of one feature


def bench_for(sizes: Sequence[int], *, rows: int, fresh: int, steps: int, dtype: str) -> Bench:
    """For a network of these layer sizes and at most `rows` query rows, `fresh` of them of the chunk."""
    widths = np.array(sizes, np.int64)
    starts = np.cumsum([0, *((widths[:-1] + 1) * widths[1:])])
    layers, width0, widest, flat = len(widths) - 1, int(widths[1]), int(widths[1:].max()), int(starts[-1])
    shapes = [(rows, width0), (fresh * rows, width0), (steps, rows, width0), (layers, rows, widest), (layers, rows, widest)]
    room = [np.zeros(shape, dtype) for shape in (*shapes, (fresh, width0), *[flat] * 7)]
    most = max(int(widths.max()), fresh * rows)
    terms, own = terms_for(most, dtype), terms_for(max(rows, int(widths[0])), dtype)
    return Bench._make([widths, starts, fresh, np.arange(rows), *room, np.zeros(int(widths[0]), np.bool_), terms, own])


def rates_of(meta_lr: float, outer_lr: float, clip_norm: float, *, floor: bool, dtype: str) -> Rates:
    """Constants in the type of the weights."""
    return Rates(np.full(1, meta_lr, dtype), np.full(1, outer_lr, dtype), np.full(1, clip_norm, dtype), floor)
