"""What the kernels of the sliding look-ahead work on: plain arrays, and constants beside them.

Weights of all layers lie in one flat array: per layer [in, out], then its biases; the head, of which only active labels
take part, is the last layer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamlearn.records import Array


class Held(NamedTuple):
    """What learning changes, in place."""

    slow: Array  # [flat]
    mean: Array  # [flat]: what answers about all that was learned; the slow weights themselves where nothing is averaged
    rates: Array  # [flat]
    fast: Array  # [2, flat]: the line `turn[0]` is current, the other is written next
    turn: Array  # int64 [1]
    seen: Array  # int64 [1]: rows learned, and offered to the memory
    x: Array  # float32 [capacity, inputs]: the memory's rows, untransformed
    labels: Array  # int64 [capacity], label rows
    logits: Array  # [capacity, label rows]: stored answers
    known: Array  # bool [capacity, label rows]


class Given(NamedTuple):
    """Rows to be learned, after the newest ones of earlier calls; and the random numbers that go with them."""

    x: Array  # [newest + rows, inputs], transformed
    asked: Array  # [rows, inputs], transformed as it was before each was learned
    raw: Array  # float32 [newest + rows, inputs]
    labels: Array  # int64 [newest + rows], counted among the active label rows
    active: Array  # int64 [labels]: the active label rows
    shift: Array  # float32 [inputs]: what transforms a remembered row
    gain: Array  # float32 [inputs]
    clip: float
    orders: Array  # int64 [rows, window]: order of the inner steps
    chances: Array  # float64 [rows, replays + 1]: slots to replay, and whether the row enters the memory


class Recipe(NamedTuple):
    """Settings. Entries of `rates` are in the type of the weights."""

    window: int
    every: int
    replays: int
    align_every: int
    rates: Array  # leak, share, weight of the recall gap, meta_lr, clip_norm, inner_clip_norm, averaging


class Told(NamedTuple):
    """What comes back, row by row."""

    logits: Array  # [rows, labels]
    slow: Array  # [rows, labels]: what the answer about all that was learned would have been
    slots: Array  # int64 [rows]: where the row lies in memory, −1 for nowhere
    norms: Array  # float64 [rows]: how far the slow weights moved
    cosines: Array  # float64 [rows]: alignment, NaN where not measured


class Room(NamedTuple):
    """The network's measures and room to work; what lies there between rows means nothing. N = replays + window."""

    sizes: Array  # int64 [layers + 1]: inputs, hidden layers, labels
    starts: Array  # int64 [layers + 1]: where each layer begins in a flat array; its length
    x: Array  # [N, inputs]
    y: Array  # int64 [N]
    slots: Array  # int64 [N]: of replayed rows
    picks: Array  # int64 [N, inputs]: features of each row that are not 0
    counts: Array  # int64 [N]: how many
    z: Array  # [N, width of layer 0]: pre-activations
    pairs: Array  # [window · N, width of layer 0]: P, then δⱼ ⊙ Cⱼ
    outputs: Array  # [layers, N, widest]
    deltas: Array  # [layers, N, widest]
    score_outputs: Array  # [layers, window · N, widest]: after each inner step
    score_deltas: Array  # [layers, window · N, widest]: Dₖ; of layer 0 then Cₖ
    inner_inputs: Array  # [layers, window, widest + 1]: what each inner step's row gives to an upper layer, and 1
    inner_deltas: Array  # [layers, window, widest]: δ of each inner step
    ahead: Array  # [flat]: weights that look ahead, of upper layers
    turned: Array  # [flat]: the same as [out, in]
    grads: Array  # [flat]: ∂θ
    effects: Array  # [flat]: ∂α
    used: Array  # bool [inputs]: features that some row has
    terms: Array  # int64 [most terms of a sum]
    values: Array  # [most terms of a sum]
    one: Array  # [1]: 1, in the type of the weights


class Work(NamedTuple):
    """All of it."""

    held: Held
    given: Given
    recipe: Recipe
    told: Told
    room: Room


def room_for(sizes: Sequence[int], *, window: int, replays: int, dtype: Any) -> Room:
    """For a network of these layer sizes, and at most `replays + window` rows."""
    widths = np.array(sizes, np.int64)
    starts = np.cumsum([0, *((widths[:-1] + 1) * widths[1:])])
    layers, first, widest, flat = len(widths) - 1, int(widths[1]), int(widths[1:].max()), int(starts[-1])
    rows, inputs, most = replays + window, int(widths[0]), max(int(widths.max()), (replays + window) * window)
    whole = [np.zeros(shape, np.int64) for shape in (rows, rows, (rows, inputs), rows)]
    shapes = [(rows, first), (window * rows, first), *[(layers, rows, widest)] * 2, *[(layers, window * rows, widest)] * 2]
    shapes += [(layers, window, widest + 1), (layers, window, widest)]
    real = [np.zeros(shape, dtype) for shape in (*shapes, *[flat] * 4)]
    ends = [
        np.zeros(inputs, np.bool_),
        np.zeros(most, np.int64),
        np.zeros(most, dtype),
        np.ones(1, dtype),
    ]
    return Room._make([widths, starts, np.zeros((rows, inputs), dtype), *whole, *real, *ends])
