"""The meta gradient of a look-ahead without a graph through the inner loop, over flat parameters, for any network.

With Gₖ = ∇ℓ(wₖ; query), gₖ the step that led to wₖ and Hₖ the Hessian of inner loss k at wₖ₋₁, run backwards from v = 0:
v ← v + Gₖ, then ∂𝓛/∂α ← ∂𝓛/∂α − gₖ ⊙ v, then v ← v − Hₖ (a ⊙ v); what v ends as, over K, is ∂𝓛/∂θ. First order leaves out Hₖ.
So the query costs K plain gradients; second order adds a Hessian-vector product per inner step, on that step's rows alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from streamlearn.adapt.inner import Episode, Form, MetaGradient
from streamlearn.adapt.params import Loss, Params, Rows, clipped

FlatLoss: TypeAlias = Callable[[Tensor, Rows], Tensor]
BATCHED, BATCHED_ON_GPU = 200_000, 2_000_000
"""Up to this many fast weights are scored in one batch; larger sets one after another, which fits caches better. On a GPU it is
the number of kernels that counts: there the paper's MLP goes in one batch. Measured on the CPU alone."""


class Flat:
    """A dict of parameters as one vector, and back."""

    def __init__(self, like: Params) -> None:
        self._shapes = {name: p.shape for name, p in like.items()}
        self._sizes = [p.numel() for p in like.values()]

    def vector(self, params: Params) -> Tensor:
        """All entries, in order."""
        return torch.cat([p.detach().flatten() for p in params.values()])

    def params(self, vector: Tensor) -> Params:
        """Views of its parts. Differentiable."""
        parts = torch.split(vector, self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


class _Step(NamedTuple):
    """One inner step."""

    before: Tensor  # wₖ₋₁, a leaf
    grad: Tensor  # ∇ at it, its norm bounded; with its graph in second order
    step: Tensor  # gₖ: the same, clipped
    after: Tensor  # wₖ


def meta_gradient(loss: Loss, params: Params, inner_lr: Params, episode: Episode, form: Form) -> MetaGradient:
    """Gradient of the meta loss with respect to parameters and rates.

    Source  Gupta, Yadav, Paull 2020, Algorithm 1 and section 4. Equal to `inner.exact_gradient`, and to
            `inner.first_order_gradient`, up to rounding.
    """
    flat = Flat(params)

    def flat_loss(vector: Tensor, rows: Rows) -> Tensor:
        return loss(flat.params(vector), rows)

    def flat_score(vector: Tensor, rows: Rows) -> Tensor:
        return (episode.score or loss)(flat.params(vector), rows)

    alpha = flat.vector(inner_lr)
    rates = torch.relu(alpha) if form.floor else alpha
    with torch.enable_grad():
        path = _inner_loop(flat_loss, flat.vector(params), rates, episode.support, form)
        scores = _scores(flat_score, [step.after for step in (path[-1:] if form.last_only else path)], episode.query)
    unscored: list[Tensor | None] = [None] * (len(path) - len(scores))
    v, effect = _backwards(path, [*unscored, *scores], rates, form)
    effect = (effect.mul_(alpha > 0) if form.floor else effect).div_(len(scores))
    return MetaGradient(flat.params(v.div_(len(scores))), flat.params(effect))


def _inner_loop(loss: FlatLoss, start: Tensor, rates: Tensor, support: Sequence[Rows], form: Form) -> list[_Step]:
    path, after = [], start
    for rows in support:
        before = after.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(before, rows), before, create_graph=form.second_order)
        if form.clip_norm is not None:
            grad = clipped({"all": grad}, form.clip_norm)["all"]
        step = grad.detach()
        step = step if form.clip is None else step.clamp(-form.clip, form.clip)
        after = torch.addcmul(after, rates, step, value=-1)
        path.append(_Step(before, grad, step, after))
    return path


def _scores(score: FlatLoss, weights: Sequence[Tensor], query: Rows) -> list[Tensor]:
    """Gₖ for each of these weights."""
    if len(weights) * len(weights[0]) > (BATCHED if weights[0].device.type == "cpu" else BATCHED_ON_GPU):
        leaves = [w.requires_grad_() for w in weights]
        return [torch.autograd.grad(score(leaf, query), leaf)[0] for leaf in leaves]
    stacked = torch.stack(list(weights)).requires_grad_()
    losses = torch.func.vmap(score, in_dims=(0, None))(stacked, query)
    return list(torch.autograd.grad(losses.sum(), stacked)[0])


def _backwards(path: Sequence[_Step], scores: Sequence[Tensor | None], rates: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """The recursion: v in the end, and Σ −gₖ ⊙ v."""
    v, effect = torch.zeros_like(rates), torch.zeros_like(rates)
    for step, score in zip(reversed(path), reversed(scores), strict=True):
        v = v if score is None else v.add_(score)  # in place: large vectors cost more to make than to add
        effect.addcmul_(step.step, v, value=-1)
        if form.second_order:
            v = v - _curvature(step, rates * v, form.clip)
    return v, effect


def _curvature(step: _Step, along: Tensor, clip: float | None) -> Tensor:
    """Hₖ times a vector. A clipped entry of the gradient is constant."""
    if clip is not None:
        along = along * (step.grad.detach().abs() <= clip)
    if not step.grad.requires_grad:  # the loss is linear
        return torch.zeros_like(along)
    return torch.autograd.grad(step.grad, step.before, along, materialize_grads=True)[0]
