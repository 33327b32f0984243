"""The meta-gradient of an inner problem that is solved, whatever path led there (iMAML).

With φ* = argmin ℓ(φ; support) + λ/2 ‖φ − θ‖², implicit differentiation gives dℓ(φ*; query)/dθ = (I + H/λ)⁻¹ ∇ℓ(φ*; query),
H the Hessian of the support's loss at φ*. The inverse is never formed: conjugate gradients need products Hv alone.
All episodes go together, stacked along the first axis: their Hessians are the blocks of one, and each stops where its own
residual allows.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.adapt.unrolled import Lessons, Meta, Parts, each, labelled, value_and_gradient

Losses = Callable[[Params], Tensor]
"""Of stacked parameters [episodes, …], the loss of each episode: [episodes]."""


class Proximal(NamedTuple):
    """The inner problem and how well it is solved."""

    strength: float  # λ, > 0
    rate: float
    steps: int
    cg_steps: int
    tolerance: float  # of the residual, relative to the right-hand side


class Solved(NamedTuple):
    """The answers of linear systems and how good they are."""

    params: Params  # [episodes, …]
    residual: Tensor  # [episodes], ‖b − Ax‖ / ‖b‖
    steps: Tensor  # [episodes]


def anchored(loss: Callable[[Params], Tensor], anchor: Params, proximal: Proximal) -> Params:
    """φ of one episode after gradient descent on ℓ(φ) + λ/2 ‖φ − anchor‖², from the anchor."""
    fast, step = anchor, torch.func.grad(loss)
    for _ in range(proximal.steps):
        grads = step(fast)
        fast = {n: p - proximal.rate * (grads[n] + proximal.strength * (p - anchor[n])) for n, p in fast.items()}
    return fast


def implicit_meta(parts: Parts, params: Params, lessons: Lessons, proximal: Proximal) -> tuple[Meta, float]:
    """iMAML's meta-gradient, mean over episodes, and the largest residual of its linear systems.

    Source  Rajeswaran et al. 2019, algorithm 2. What the inner loop does not move gets 0.
    """

    def support(lesson: Lessons, fast: Params) -> Tensor:
        return parts.loss({**params, **fast}, labelled(lesson.support_x, lesson.support_y))

    def query(lesson: Lessons, fast: Params) -> Tensor:
        return parts.loss({**params, **fast}, labelled(lesson.query_x, lesson.query_y))

    def prepare(lesson: Lessons) -> Tensor:
        return parts.prepare(params, torch.cat([lesson.support_x, lesson.query_x]))

    with torch.no_grad():
        taught = lessons.support_y.shape[1]
        x, begin = each(prepare, lessons), parts.begin(params)
        lessons = lessons._replace(support_x=x[:, :taught], query_x=x[:, taught:])
        fast = each(lambda lesson: anchored(lambda fast: support(lesson, fast), begin, proximal), lessons)
    loss, grads = value_and_gradient(lambda fast: each(query, lessons, fast).sum(), fast)
    solved = implicit_gradient(lambda fast: each(support, lessons, fast), fast, grads, proximal)
    moved = {n: solved.params[n].mean(0) if n in solved.params else torch.zeros_like(p) for n, p in params.items()}
    return Meta(loss / len(lessons.support_y), moved), float(solved.residual.max())


def implicit_gradient(losses: Losses, fast: Params, query_grad: Params, proximal: Proximal) -> Solved:
    """(I + H/λ)⁻¹ g for each episode, H the Hessian of its loss at `fast`.

    Shapes  `fast`, `query_grad` and the result are stacked, and match name by name.
    Source  Rajeswaran et al. 2019, Meta-Learning with Implicit Gradients, Lemma 1. We stop on the residual; they fix the
            steps, and their released code solves another system.
    """
    at = {name: p.detach().requires_grad_() for name, p in fast.items()}
    with torch.enable_grad():
        slopes = torch.autograd.grad(losses(at).sum(), list(at.values()), create_graph=True)

    def operator(v: Params) -> Params:
        along = [v[name] for name in at]
        curved = torch.autograd.grad(slopes, list(at.values()), along, retain_graph=True, materialize_grads=True)
        return {name: v[name] + each_curved / proximal.strength for name, each_curved in zip(at, curved, strict=True)}

    return conjugate_gradients(operator, query_grad, steps=proximal.cg_steps, tolerance=proximal.tolerance)


def conjugate_gradients(operator: Callable[[Params], Params], right: Params, *, steps: int, tolerance: float) -> Solved:
    """x with operator(x) = right for each episode, `operator` linear, symmetric and positive; where it is not, the best met.

    Shapes  everything is stacked along the first axis, [episodes, …].
    Source  Hestenes and Stiefel 1952.
    """
    x = {name: torch.zeros_like(p) for name, p in right.items()}
    residual, way = right, right
    size = squared = _dots(right, right)
    taken, goes_on = torch.zeros_like(size, dtype=torch.int64), torch.ones_like(size, dtype=torch.bool)
    for _ in range(steps):
        goes_on = goes_on & (squared > tolerance**2 * size)
        if not goes_on.any():
            break
        ahead = operator(way)
        bend = _dots(way, ahead)
        goes_on = goes_on & (bend > 0)  # else negative curvature: no minimum of the inner problem, and steps would lead away
        length = torch.where(goes_on, squared / bend, 0.0)
        x = _moved(x, length, way)
        residual = _moved(residual, -length, ahead)
        before, squared, taken = squared, _dots(residual, residual), taken + goes_on
        way = _moved(residual, torch.where(goes_on, squared / before, 0.0), way)
    x = {name: torch.where(_wide(taken > 0, p), p, right[name]) for name, p in x.items()}
    return Solved(x, torch.where(size > 0, squared / size, 0.0).sqrt(), taken)


def _dots(a: Params, b: Params) -> Tensor:
    return torch.stack([(p * b[name]).flatten(1).sum(1) for name, p in a.items()]).sum(0)


def _moved(a: Params, lengths: Tensor, way: Params) -> Params:
    return {name: p + _wide(lengths, p) * way[name] for name, p in a.items()}


def _wide(each_one: Tensor, like: Tensor) -> Tensor:
    return each_one.view(-1, *[1] * (like.dim() - 1))
