"""Parameters as a dict of name → tensor, and the few operations that look-ahead learning needs on them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]


class Rows(NamedTuple):
    """Labelled inputs as the network sees them."""

    x: Tensor  # [n, *shape], transformed
    y: Tensor  # int64 [n]
    mask: Tensor  # bool [n or 1, C]: labels that are in the softmax of this row

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        """All rows, in order. A mask that serves all rows goes on doing so only where it is the same one in all parts."""
        last = parts[-1].mask
        if all(len(p.mask) == 1 and p.mask.data_ptr() == last.data_ptr() for p in parts):
            mask = last
        else:
            mask = torch.cat([p.mask.expand(len(p.y), -1) for p in parts])
        return cls(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]), mask)

    def at(self, rows: Tensor | slice) -> "Rows":
        """These rows."""
        return Rows(self.x[rows], self.y[rows], self.mask if len(self.mask) == 1 else self.mask[rows])


Loss: TypeAlias = Callable[[Params, Rows], Tensor]


def masked_cross_entropy(logits: Tensor, rows: Rows) -> Tensor:
    """Mean cross-entropy over rows, each over the labels of its mask."""
    loss: Tensor = torch.nn.functional.cross_entropy(logits.masked_fill(~rows.mask, -torch.inf), rows.y)
    return loss


def gradient(loss: Loss, params: Params, rows: Rows) -> Params:
    """∇ of the loss at `params`, without a graph."""
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        grads = torch.autograd.grad(loss(leaves, rows), list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def global_norm(params: Params) -> Tensor:
    """L2 norm of all entries together."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p) for p in params.values()]))
    return norm


def clipped(grads: Params, max_norm: float) -> Params:
    """Scaled down to global norm `max_norm` where it is above. The 10⁻⁶ is torch's own, see `clip_grad_norm_`."""
    scale = (max_norm / (global_norm(grads) + 1e-6)).clamp(max=1.0)
    return {name: g * scale for name, g in grads.items()}


def moved(params: Params, grads: Params, rate: float) -> Params:
    """One step of gradient descent."""
    return {name: p - rate * grads[name] for name, p in params.items()}


def dot(a: Params, b: Params) -> Tensor:
    """Sum over all entries of the product."""
    return torch.stack([(p * b[name]).sum() for name, p in a.items()]).sum()


def cosine(a: Params, b: Params) -> float:
    """Of the angle between two gradients; NaN when one of them is zero."""
    return float(cosine_of(a, b))


def cosine_of(a: Params, b: Params) -> Tensor:
    """The same, where it was computed."""
    return dot(a, b) / (global_norm(a) * global_norm(b))


def is_finite(params: Params) -> bool:
    """True when every entry is a number."""
    sums = torch.stack([p.sum() for p in params.values() if p.numel()])  # what is not finite comes through a sum
    if bool(torch.isfinite(sums).all()):
        return True
    extremes = [torch.stack(torch.aminmax(p)) for p in params.values() if p.numel()]  # or finite entries overflowed it
    return bool(torch.isfinite(torch.stack(extremes)).all())
