"""Fast weights: they follow the slow ones as these drift, and lead them by steps on the newest row.

Each row pulls them a share ρ of the way back and then moves them by a share σ of the learned step sizes:
w ← w + ρ(θ − w), then w ← w − σ·α ⊙ ∇ℓ(w; row). A step is forgotten after about 1/ρ rows. The gradient's norm is bounded:
one row that a fresh network knows nothing of would else throw its weights where no row has a gradient.
"""

from typing import NamedTuple

from streamlearn.adapt.params import Loss, Params, Rows, clipped, gradient


class Pace(NamedTuple):
    """How fast they forget and move."""

    leak: float  # ρ, in (0, 1]
    share: float  # σ, of the learned step sizes
    clip_norm: float | None = None  # bound on the global norm of a row's gradient


def fast_step(loss: Loss, fast: Params, rows: Rows, *, slow: Params, rates: Params, pace: Pace) -> Params:
    """The fast weights after one more row."""
    leaked = {name: w + pace.leak * (slow[name] - w) for name, w in fast.items()}
    grads = gradient(loss, leaked, rows)
    if pace.clip_norm is not None:
        grads = clipped(grads, pace.clip_norm)
    return {name: w - pace.share * rates[name] * grads[name] for name, w in leaked.items()}


def averaged(mean: Params, weights: Params, *, learned: int, most: float) -> Params:
    """The mean of weights over the rows behind, after one row more: it keeps (1 + n) / (10 + n) of itself, at most `most`.

    `learned`  n, how many rows were learned before: early on the mean is one over a tenth of them or less.
    Source     Polyak and Juditsky 1992, with exponential weights.
    """
    keep = min(most, (1 + learned) / (10 + learned))
    return {name: w + keep * (mean[name] - w) for name, w in weights.items()}
