"""A linear head that follows the gradient of its loss for a while, and how the end depends on the beginning (COMLN).

dW/dt = −(1/M) (P − Y)ᵀ Φ with P = softmax(Φ Wᵀ) never leaves W₀ + span Φ, so W(t) = W₀ − s(t)ᵀ Φ with
ds/dt = (P − Y)/M, and the logits are U − G s with U = Φ W₀ᵀ and G = Φ Φᵀ. The derivatives B = ∂s/∂U and Z = ∂s/∂G obey
equations of their own, integrated along with s: nothing is kept along the way, so memory depends on neither the
duration nor the number of steps. With Aᵢ = (diag pᵢ − pᵢ pᵢᵀ)/M, dBᵢ/dt = Aᵢ (eᵢ − Σ G_im Bₘ) and
dZᵢ/dt = −Aᵢ (δᵢ s + Σ G_im Zₘ).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from streamlearn.adapt.ode import integrate


class FlowGradient(NamedTuple):
    """Derivatives of a query's loss after the flow."""

    loss: Tensor
    head: Tensor  # by W₀ [N, d]
    support: Tensor  # by Φ [M, d]
    query: Tensor  # by the query's features [Q, d]
    duration: Tensor  # by T


def flowed(features: Tensor, targets: Tensor, head: Tensor, duration: float, *, tolerance: float = 1e-8) -> Tensor:
    """W(T).

    Shapes  features Φ [M, d], targets Y [M, N] one-hot, head W₀ [N, d].
    Units   `duration` in steps of gradient descent at rate 1.
    """
    initial, gram = features @ head.T, features @ features.T

    def slope(flat: Tensor) -> Tensor:
        return (torch.softmax(initial - gram @ flat.view_as(targets), 1) - targets).flatten() / len(targets)

    s = integrate(slope, torch.zeros_like(targets).flatten(), duration, tolerance=tolerance).view_as(targets)
    return head - s.T @ features


def flow_gradient(
    support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], head: Tensor, duration: float, *, tolerance: float = 1e-8
) -> FlowGradient:
    """Of the query's mean cross-entropy under W(T); `support` and `query` are features and label rows.

    Source  Deleu et al. 2022, Continuous-Time Meta-Learning with Forward Mode Differentiation, section 4.
    """
    features, targets = support[0], torch.nn.functional.one_hot(support[1], len(head)).to(head)
    initial, gram = features @ head.T, features @ features.T
    s, by_initial, by_gram = _traced(initial, gram, targets, duration, tolerance)
    end = (head - s.T @ features).requires_grad_()
    asked = query[0].detach().requires_grad_()
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(asked @ end.T, query[1])
    by_end, by_query = torch.autograd.grad(loss, [end, asked])
    by_s = -features @ by_end.T
    c = torch.einsum("in,injm->jm", by_s, by_initial)
    g = torch.einsum("in,inkl->kl", by_s, by_gram)
    last = (torch.softmax(initial - gram @ s, 1) - targets) / len(targets)
    by_support = -s @ by_end + c @ head + (g + g.T) @ features
    return FlowGradient(loss.detach(), by_end + c.T @ features, by_support, by_query, (by_s * last).sum())


def _traced(initial: Tensor, gram: Tensor, targets: Tensor, duration: float, tolerance: float) -> tuple[Tensor, ...]:
    """s [M, N], ∂s/∂U [M, N, M, N] and ∂s/∂G [M, N, M, M], integrated together."""
    rows, labels = targets.shape
    shapes = ((rows, labels), (rows, labels, rows, labels), (rows, labels, rows, rows))
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    eye = torch.eye(rows, dtype=targets.dtype, device=targets.device)
    unit = torch.einsum("ij,nm->injm", eye, torch.eye(labels, dtype=targets.dtype, device=targets.device))

    def slope(flat: Tensor) -> Tensor:
        s, b, z = (part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True))
        p = torch.softmax(initial - gram @ s, 1)
        a = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / rows
        inner_b = unit - torch.tensordot(gram, b, 1)
        inner_z = -torch.tensordot(gram, z, 1) - torch.einsum("ik,ln->inkl", eye, s)
        db, dz = (torch.einsum("inm,imkl->inkl", a, inner) for inner in (inner_b, inner_z))
        return torch.cat([((p - targets) / rows).flatten(), db.flatten(), dz.flatten()])

    zero = torch.zeros(sum(sizes), dtype=targets.dtype, device=targets.device)
    end = integrate(slope, zero, duration, tolerance=tolerance)
    return tuple(part.view(shape) for part, shape in zip(torch.split(end, sizes), shapes, strict=True))
