"""What becomes of parameters and rates once the meta gradient is known: four outer updates."""

import torch

from streamlearn.adapt.inner import MetaGradient
from streamlearn.adapt.params import Params, clipped, moved


def la_maml(
    params: Params, inner_lr: Params, gradient: MetaGradient, *, meta_lr: float, clip_norm: float
) -> tuple[Params, Params]:
    """Rates first, then parameters by the *new* rates, floored at 0. Both gradients are clipped, separately.

    Source  Gupta, Yadav, Paull 2020, equations 5 and 6 ("look-ahead", asynchronous).
    """
    inner_lr = moved(inner_lr, clipped(gradient.inner_lr, clip_norm), meta_lr)
    grads = clipped(gradient.params, clip_norm)
    return {name: p - torch.relu(inner_lr[name]) * grads[name] for name, p in params.items()}, inner_lr


def sync(
    params: Params, inner_lr: Params, gradient: MetaGradient, *, meta_lr: float, clip_norm: float, outer_lr: float
) -> tuple[Params, Params]:
    """Rates learn, but act in the inner loop only; parameters move by one scalar rate."""
    inner_lr = moved(inner_lr, clipped(gradient.inner_lr, clip_norm), meta_lr)
    return moved(params, clipped(gradient.params, clip_norm), outer_lr), inner_lr


def c_maml(params: Params, gradient: MetaGradient, *, clip_norm: float, outer_lr: float) -> Params:
    """Parameters move by one scalar rate; inner rates stay what they were."""
    return moved(params, clipped(gradient.params, clip_norm), outer_lr)


def revived(
    params: Params, inner_lr: Params, gradient: MetaGradient, *, meta_lr: float, clip_norm: float
) -> tuple[Params, Params]:
    """As `la_maml`, but rates stay at 0 or above, and one at 0 has a gradient where that raises it.

    Source  `la_maml` leaves a rate that has reached 0 there for good; a stream without end needs it back.
    """
    effect = {name: g * ((inner_lr[name] > 0) | (g < 0)) for name, g in gradient.inner_lr.items()}
    rates = {name: torch.relu(lr) for name, lr in moved(inner_lr, clipped(effect, clip_norm), meta_lr).items()}
    grads = clipped(gradient.params, clip_norm)
    return {name: p - rates[name] * grads[name] for name, p in params.items()}, rates
