"""Adam as a pure function, so that what it remembers can be a value in a checkpoint."""

from typing import NamedTuple

import torch

from streamlearn.adapt.params import Params

FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """What Adam remembers."""

    mean: Params
    square: Params
    steps: int


def still(params: Params) -> Moments:
    """Before the first step."""
    zeros = {name: torch.zeros_like(p) for name, p in params.items()}
    return Moments(zeros, zeros, 0)


def adam(params: Params, grads: Params, moments: Moments, rate: float) -> tuple[Params, Moments]:
    """One step. Source: Kingma and Ba 2015, Algorithm 1, with its constants."""
    steps = moments.steps + 1
    mean = {n: FIRST * m + (1 - FIRST) * grads[n] for n, m in moments.mean.items()}
    square = {n: SECOND * v + (1 - SECOND) * grads[n] ** 2 for n, v in moments.square.items()}
    fair_mean, fair_square = 1 - FIRST**steps, 1 - SECOND**steps
    moved = {n: p - rate * (mean[n] / fair_mean) / ((square[n] / fair_square).sqrt() + FLOOR) for n, p in params.items()}
    return moved, Moments(mean, square, steps)
