"""Which parameters the inner loop moves, and what it need not compute again at each of its steps."""

from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call

from streamlearn.adapt.params import Params, Rows
from streamlearn.adapt.unrolled import Parts
from streamlearn.models.classifier import Classifier
from streamlearn.models.gated import Gated

WHOLE, TRUNK, HEAD = ("",), ("body.trunk.", "head."), ("head.",)


def parts(network: Classifier, moves: tuple[str, ...], *, shape: tuple[int, ...], ways: int | None = None) -> Parts:
    """The partition in which names that begin with one of `moves` move, for inputs of this shape.

    `ways` gives a head of zeros, made anew for each episode; without it the head is among the parameters.
    """

    def begin(params: Params) -> Params:
        moving = {name: p for name, p in params.items() if name.startswith(moves)}
        if ways is None:
            return moving
        like = next(iter(params.values()))
        return {**moving, "head.weight": like.new_zeros(ways, network.width), "head.bias": like.new_zeros(ways)}

    if moves == HEAD:
        return Parts(begin, network.features, _head_loss, lambda _, x: x)
    if moves == TRUNK and isinstance(network.body, Gated):
        gated = _GatedOnce(network.body, torch.Size(shape))
        return Parts(begin, gated.prepare, gated.loss, gated.features)
    return Parts(begin, lambda _, x: x, lambda params, rows: _entropy(network.logits(params, rows.x), rows))


class _GatedOnce:
    """The gate is still while trunk and head move: its values are computed once per episode and travel beside the input."""

    def __init__(self, body: Gated, shape: torch.Size) -> None:
        self.body, self.shape = body, shape

    def prepare(self, params: Params, x: Tensor) -> Tensor:
        gates = cast(Tensor, functional_call(self.body.gate, _under("body.gate.", params), (x,)))
        return torch.cat([x.flatten(1), gates], 1)

    def features(self, params: Params, prepared: Tensor) -> Tensor:
        size = self.shape.numel()
        x, gates = prepared[:, :size].reshape(-1, *self.shape), prepared[:, size:]
        return cast(Tensor, functional_call(self.body.trunk, _under("body.trunk.", params), (x,))) * gates

    def loss(self, params: Params, rows: Rows) -> Tensor:
        return _entropy(_linear(self.features(params, rows.x), params), rows)


def _under(prefix: str, params: Params) -> Params:
    return {name.removeprefix(prefix): p for name, p in params.items() if name.startswith(prefix)}


def _head_loss(params: Params, rows: Rows) -> Tensor:
    return _entropy(_linear(rows.x, params), rows)


def _linear(features: Tensor, params: Params) -> Tensor:
    return torch.nn.functional.linear(features, params["head.weight"], params["head.bias"])


def _entropy(logits: Tensor, rows: Rows) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, rows.y)
