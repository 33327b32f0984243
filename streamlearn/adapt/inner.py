"""Look-ahead: a few inner steps on the newest rows, and the gradient of what they lead to.

With w₀ = θ and wₖ = wₖ₋₁ − a ⊙ gₖ, gₖ = ∇ℓ(wₖ₋₁; support k), the meta loss is 𝓛 = (1/K) Σₖ ℓ(wₖ; query): the query is
scored after every inner step. Exact gradients come from composing `grad`. First order drops the dependence of gₖ on
θ and on earlier rates; then, with Gₖ = ∇ℓ(wₖ; query) and Sₖ = g₁ + … + gₖ,
∂𝓛/∂θ = (1/K) Σₖ Gₖ and ∂𝓛/∂α = −(1/K) Σₖ Gₖ ⊙ Sₖ (times 1[α > 0] where rates are floored at 0), and no graph is needed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from streamlearn.adapt.params import Loss, Params, Rows, clipped, gradient

Gradient: TypeAlias = Callable[[Params, Rows], Params]
Steps = TypeVar("Steps", list[Params], Tensor)


class Form(NamedTuple):
    """Which look-ahead: the published variants are arguments."""

    second_order: bool = False
    floor: bool = True  # rates below 0 count as 0 in the inner loop
    clip: float | None = None  # bound on each entry of an inner gradient
    clip_norm: float | None = None  # bound on the global norm of an inner gradient, which comes first
    last_only: bool = False  # score the query after the last inner step alone


PLAIN = Form()


class Episode(NamedTuple):
    """What one look-ahead is made of."""

    support: Sequence[Rows]  # one entry per inner step
    query: Rows
    score: Loss | None = None  # what judges the query, where that is not the loss of the inner steps


class MetaGradient(NamedTuple):
    """∂𝓛/∂θ and ∂𝓛/∂α."""

    params: Params
    inner_lr: Params


class Path(NamedTuple):
    """Where the inner loop went."""

    fast: list[Params]  # w₁ … w_K
    steps: list[Params]  # g₁ … g_K


def look_ahead(grad: Gradient, params: Params, rates: Params, support: Sequence[Rows], form: Form = PLAIN) -> Path:
    """One step of gradient descent per entry of `support`; differentiable when `grad` is."""
    fast, path, clip = params, Path([], []), form.clip
    for rows in support:
        step = grad(fast, rows)
        if form.clip_norm is not None:
            step = clipped(step, form.clip_norm)
        if clip is not None:
            step = {name: g.clamp(-clip, clip) for name, g in step.items()}
        fast = {name: p - rates[name] * step[name] for name, p in fast.items()}
        path.fast.append(fast)
        path.steps.append(step)
    return path


def exact_gradient(loss: Loss, params: Params, inner_lr: Params, episode: Episode, form: Form) -> MetaGradient:
    """Second order: through every inner step."""
    score = episode.score or loss

    def meta_loss(params: Params, inner_lr: Params) -> Tensor:
        path = look_ahead(torch.func.grad(loss), params, _rates(inner_lr, form), episode.support, form)
        return torch.stack([score(fast, episode.query) for fast in _scored(path.fast, form)]).mean()

    return MetaGradient(*torch.func.grad(meta_loss, argnums=(0, 1))(params, inner_lr))


def first_order_gradient(loss: Loss, params: Params, inner_lr: Params, episode: Episode, form: Form) -> MetaGradient:
    """The closed form above: inner steps first, then the query under all fast weights as one batch."""
    path = look_ahead(partial(gradient, loss), params, _rates(inner_lr, form), episode.support, form)
    fast = _stacked(_scored(path.fast, form))
    query_grads = torch.func.vmap(torch.func.grad(episode.score or loss), in_dims=(0, None))(fast, episode.query)
    sums = {name: _scored(g.cumsum(0), form) for name, g in _stacked(path.steps).items()}
    effect = {name: -(g * sums[name]).mean(0) for name, g in query_grads.items()}
    if form.floor:
        effect = {name: e * (inner_lr[name] > 0) for name, e in effect.items()}
    return MetaGradient({name: g.mean(0) for name, g in query_grads.items()}, effect)


def _rates(inner_lr: Params, form: Form) -> Params:
    return {name: torch.relu(lr) for name, lr in inner_lr.items()} if form.floor else inner_lr


def _scored(steps: Steps, form: Form) -> Steps:
    return steps[-1:] if form.last_only else steps


def _stacked(path: list[Params]) -> Params:
    return {name: torch.stack([p[name] for p in path]) for name in path[0]}
