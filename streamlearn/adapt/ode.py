"""Ordinary differential equations y' = f(y), with steps as long as the error allows."""

from collections.abc import Callable

import torch
from torch import Tensor

STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
MOST_STEPS = 100_000


def integrate(slope: Callable[[Tensor], Tensor], y: Tensor, duration: float, *, tolerance: float = 1e-8) -> Tensor:
    """y after `duration`. Only the present point is kept, so memory does not depend on the number of steps.

    Shapes  y [n], and what `slope` makes of it.
    Units   `tolerance` bounds the root mean square of each step's error, relative to 1 + |y|.
    Source  Dormand and Prince 1980, the 5(4) pair; steps as in Hairer, Nørsett, Wanner, II.4.
    """
    done, first = 0.0, slope(y)
    if not bool(torch.isfinite(first).all()):
        raise ArithmeticError("the slope at the start is not finite: expected numbers")
    step = min(duration, 0.01 * (1 + float(y.abs().max())) / (float(first.abs().max()) + 1e-12))
    for _ in range(MOST_STEPS):
        if done >= duration:
            return y
        step = min(step, duration - done)
        slopes = [first]
        for weights in STAGES[1:]:
            slopes.append(slope(_moved(y, slopes, weights, step)))
        after = _moved(y, slopes, STAGES[-1], step)
        error = _moved(torch.zeros_like(y), slopes, ERROR, step) / (1 + torch.maximum(y.abs(), after.abs()))
        size = float(error.square().mean().sqrt()) / tolerance
        if size <= 1:
            done = duration if step >= duration - done else done + step
            y, first = after, slopes[-1]
        step *= min(5.0, max(0.2, 0.9 * (size + 1e-12) ** -0.2))
    raise ArithmeticError(f"no solution after {MOST_STEPS} steps, at {done:.3g} of {duration:.3g}: expected a smoother slope")


def _moved(y: Tensor, slopes: list[Tensor], weights: tuple[float, ...], step: float) -> Tensor:
    return y + step * sum((w * k for w, k in zip(weights, slopes, strict=False) if w), torch.zeros_like(y))
