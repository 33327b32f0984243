"""The meta-gradient of an inner problem that is solved, whatever path led there (iMAML).

With φ* = argmin ℓ(φ; support) + λ/2 ‖φ − θ‖², implicit differentiation gives dℓ(φ*; query)/dθ = (I + H/λ)⁻¹ ∇ℓ(φ*; query),
H the Hessian of the support's loss at φ*. The inverse is never formed: conjugate gradients need products Hv alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from streamlearn.adapt.params import Params, dot, global_norm


class Proximal(NamedTuple):
    """The inner problem and how well it is solved."""

    strength: float  # λ, > 0
    rate: float
    steps: int
    cg_steps: int
    tolerance: float  # of the residual, relative to the right-hand side


class Solved(NamedTuple):
    """A linear system's answer and how good it is."""

    params: Params
    residual: float  # ‖b − Ax‖ / ‖b‖
    steps: int


def anchored(loss: Callable[[Params], Tensor], anchor: Params, proximal: Proximal) -> Params:
    """φ after gradient descent on ℓ(φ) + λ/2 ‖φ − anchor‖², from the anchor."""
    fast, step = anchor, torch.func.grad(loss)
    for _ in range(proximal.steps):
        grads = step(fast)
        fast = {n: p - proximal.rate * (grads[n] + proximal.strength * (p - anchor[n])) for n, p in fast.items()}
    return fast


def implicit_gradient(loss: Callable[[Params], Tensor], fast: Params, query_grad: Params, proximal: Proximal) -> Solved:
    """(I + H/λ)⁻¹ g, H the Hessian of `loss` at `fast`.

    Shapes  `query_grad` and the result match `fast`, name by name.
    Source  Rajeswaran et al. 2019, Meta-Learning with Implicit Gradients, Lemma 1. We stop on the residual; they fix the
            steps, and their released code solves another system.
    """
    _, curvature, *_ = torch.func.vjp(
        torch.func.grad(loss), fast
    )  # H is symmetric: its product from the left is that from the right

    def operator(v: Params) -> Params:
        curved = curvature(v)[0]
        return {name: p + curved[name] / proximal.strength for name, p in v.items()}

    return conjugate_gradients(operator, query_grad, steps=proximal.cg_steps, tolerance=proximal.tolerance)


def conjugate_gradients(operator: Callable[[Params], Params], right: Params, *, steps: int, tolerance: float) -> Solved:
    """x with operator(x) = right, `operator` linear, symmetric and positive; the best that was met where it is not.

    Source  Hestenes and Stiefel 1952.
    """
    x = {name: torch.zeros_like(p) for name, p in right.items()}
    residual, way, taken = right, right, 0
    size, squared = float(global_norm(right)), float(dot(right, right))
    while taken < steps and squared**0.5 > tolerance * size:
        ahead = operator(way)
        bend = float(dot(way, ahead))
        if bend <= 0:  # negative curvature: the inner problem was not at a minimum, and further steps would lead away
            break
        length = squared / bend
        x = {name: p + length * way[name] for name, p in x.items()}
        residual = {name: r - length * ahead[name] for name, r in residual.items()}
        before, squared, taken = squared, float(dot(residual, residual)), taken + 1
        way = {name: r + squared / before * way[name] for name, r in residual.items()}
    return Solved(x if taken else right, squared**0.5 / size if size else 0.0, taken)
