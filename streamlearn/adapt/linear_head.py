"""Gradient descent on a linear head that is not formed until the end, with or without what makes its features.

A step on rows with features H adds −a Eᵀ H to the weights and −a Σ E to the biases, E = (P − Y)/n the slope by the logits. So
after steps 1 … k the logits of features h are h W₀ᵀ + b₀ − a (h H₁…ₖᵀ + 1) E₁…ₖ: products of a few rows, where each step on the
head itself would read and write all of it, and keep it for the second derivative.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from streamlearn.adapt.params import Params, Rows, moved

Features: TypeAlias = Callable[[Params, Tensor], Tensor]


def descended(features: Features, begin: Params, support: Rows, *, rate: float, steps: Sequence[slice]) -> Params:
    """`begin` after one step of gradient descent on the mean cross-entropy for each slice of `support`. Differentiable.

    `begin` holds `head.weight` [C, d], `head.bias` [C], and parameters of `features` that move along, if any.
    """
    weight, bias = begin["head.weight"], begin["head.bias"]
    fast = {name: p for name, p in begin.items() if not name.startswith("head.")}
    met, slopes = weight[:0], weight[:0, :0].new_zeros(0, len(bias))

    def ask(fast: Params, rows: Rows) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = features(fast, rows.x)
        logits = torch.nn.functional.linear(h, weight, bias) - rate * ((h @ met.T + 1) @ slopes)
        return torch.nn.functional.cross_entropy(logits, rows.y), (h, logits)

    for rows in (support.at(step) for step in steps):
        if fast:
            grads, (h, logits) = torch.func.grad(ask, has_aux=True)(fast, rows)
            fast = moved(fast, grads, rate)
        else:
            _, (h, logits) = ask(fast, rows)
        truth = torch.nn.functional.one_hot(rows.y, len(bias)).to(logits)
        met = torch.cat([met, h])
        slopes = torch.cat([slopes, (torch.softmax(logits, 1) - truth) / len(truth)])
    return {**fast, "head.weight": weight - rate * (slopes.T @ met), "head.bias": bias - rate * slopes.sum(0)}
