"""The meta-gradient through an inner loop that is written out, over a batch of episodes at once; and Reptile's, without one.

With fast weights φ after K steps φ ← φ − a ∇ℓ(φ; support), order 2 differentiates ℓ(φ_K; query) through every step,
order 1 takes ∂φ_K/∂θ for the identity where the inner loop begins at θ. Parameters that the inner loop does not move
get their gradient through both losses in order 2, and through the query alone in order 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from streamlearn.adapt.inner import look_ahead
from streamlearn.adapt.linear_head import Features, descended
from streamlearn.adapt.params import Loss, Params, Rows


class Parts(NamedTuple):
    """A partition of the parameters: what the inner loop moves, and what of the network it leaves alone."""

    begin: Callable[[Params], Params]  # what moves, where it begins; what is no parameter of ours begins at a constant
    prepare: Callable[[Params, Tensor], Tensor]  # of inputs [n, *shape], all that no moving parameter touches: [n, …]
    loss: Loss  # under all parameters, of rows that were prepared
    features: Features | None = None  # of prepared rows, where all that moves are these and a linear head on them


class Lessons(NamedTuple):
    """Episodes, stacked along the first axis."""

    support_x: Tensor  # [episodes, s, *shape]
    support_y: Tensor
    query_x: Tensor  # [episodes, q, *shape]
    query_y: Tensor

    def at(self, episode: int) -> "Lessons":
        """One of them, still stacked."""
        return Lessons(*(part[episode : episode + 1] for part in self))

    def alone(self, episode: int) -> "Lessons":
        """One of them, not stacked: support_x [s, *shape], …"""
        return Lessons(*(part[episode] for part in self))


class Plan(NamedTuple):
    """The inner loop."""

    rate: float
    steps: tuple[slice, ...]  # the rows of the support that each step learns


class Meta(NamedTuple):
    """One meta-gradient."""

    loss: Tensor  # mean over episodes, of the query after adaptation
    grads: Params


def labelled(x: Tensor, y: Tensor) -> Rows:
    """Rows whose labels all take part."""
    return Rows(x, y, torch.ones(1, 1, dtype=torch.bool, device=x.device))


def adapted(parts: Parts, params: Params, support: Rows, plan: Plan) -> Params:
    """What moves, after the inner loop over prepared rows. Differentiable in `params`."""
    begin = parts.begin(params)
    if parts.features is not None:
        return descended(parts.features, begin, support, rate=plan.rate, steps=plan.steps)
    step = torch.func.grad(lambda fast, rows: parts.loss({**params, **fast}, rows))
    rates = {name: torch.tensor(plan.rate, dtype=p.dtype, device=p.device) for name, p in begin.items()}
    return [begin, *look_ahead(step, begin, rates, [support.at(rows) for rows in plan.steps]).fast][-1]


def second_order(parts: Parts, params: Params, lessons: Lessons, plan: Plan) -> Meta:
    """Through every inner step; all episodes in one pass, so that what does not move is computed in one batch."""

    def after(params: Params, lesson: Lessons) -> Tensor:
        count = len(lesson.support_y)
        x = parts.prepare(params, torch.cat([lesson.support_x, lesson.query_x]))
        fast = adapted(parts, params, labelled(x[:count], lesson.support_y), plan)
        return parts.loss({**params, **fast}, labelled(x[count:], lesson.query_y))

    loss, grads = value_and_gradient(lambda params: each(lambda lesson: after(params, lesson), lessons).mean(), params)
    return Meta(loss, grads)


def first_order(parts: Parts, params: Params, lessons: Lessons, plan: Plan) -> Meta:
    """No graph is kept through the inner loop."""

    def query_loss(params: Params, fast: Params) -> Tensor:
        def one(lesson: Lessons, fast: Params) -> Tensor:
            x = parts.prepare(params, lesson.query_x)
            return parts.loss({**params, **fast}, labelled(x, lesson.query_y))

        return each(one, lessons, fast).mean()

    fast = each_adapted(parts, params, lessons, plan)
    loss, grads, ends = value_and_gradient(query_loss, params, fast)
    return Meta(loss, {name: g + ends[name].sum(0) if name in ends else g for name, g in grads.items()})


def interpolated(parts: Parts, params: Params, lessons: Lessons, plan: Plan) -> Meta:
    """θ − φ_K, mean over episodes: the way back. A step against it at rate ε is Reptile's θ + ε (φ_K − θ).

    Source  Nichol et al. 2018. What the inner loop does not move gets 0. The loss is that of the query.
    """
    fast = each_adapted(parts, params, lessons, plan)

    def one(lesson: Lessons, fast: Params) -> Tensor:
        return parts.loss({**params, **fast}, labelled(parts.prepare(params, lesson.query_x), lesson.query_y))

    loss = each(one, lessons, fast).mean()
    return Meta(loss, {n: p - fast[n].mean(0) if n in fast else torch.zeros_like(p) for n, p in params.items()})


def each_adapted(parts: Parts, params: Params, lessons: Lessons, plan: Plan) -> Params:
    """What moves, after the inner loop of each episode, stacked along the first axis. No graph."""

    def one(lesson: Lessons) -> Params:
        if not plan.steps:  # and maybe no support, of which a norm cannot be taken
            return parts.begin(params)
        x = parts.prepare(params, lesson.support_x)
        return adapted(parts, params, labelled(x, lesson.support_y), plan)

    return each(one, lessons)


def value_and_gradient(loss: Callable[..., Tensor], *arguments: Params) -> tuple[Any, ...]:
    """A loss, and its gradient in each argument.

    By plain autograd: `torch.func.grad` has it that the way back can be differentiated once more, for which a norm takes five
    passes in place of one.
    """
    with torch.enable_grad():
        inputs = [{name: p.detach().requires_grad_() for name, p in argument.items()} for argument in arguments]
        value = loss(*inputs)
        flat = [p for argument in inputs for p in argument.values()]
        grads = iter(torch.autograd.grad(value, flat, materialize_grads=True, allow_unused=True))
    return value.detach(), *({name: next(grads) for name in argument} for argument in inputs)


@overload
def each(one: Callable[..., Tensor], lessons: Lessons, *others: Params) -> Tensor: ...
@overload
def each(one: Callable[..., Params], lessons: Lessons, *others: Params) -> Params: ...
def each(one: Callable[..., Tensor | Params], lessons: Lessons, *others: Params) -> Tensor | Params:
    """`one` of each episode and its part of `others`, stacked. For a single one `vmap` would make more passes over memory."""
    if len(lessons.support_y) > 1:
        return torch.func.vmap(one)(lessons, *others)
    made = one(lessons.alone(0), *({name: p[0] for name, p in other.items()} for other in others))
    return made[None] if isinstance(made, Tensor) else {name: p[None] for name, p in made.items()}
