"""What compiled forms have in common: when one is taken, and weights packed for it.

Weights are packed once for a chunk or a call and unpacked into new tensors, so that the learner's values are replaced, never
written into. Of the head only the rows in the softmax take part.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.errors import ConfigError
from streamlearn.records import Array


def is_compiled(wish: str, *, can: bool, expected: str) -> bool:
    """Whether the compiled form is taken. Errors: ConfigError where it is asked for and there is none."""
    if wish == "numba" and not can:
        raise ConfigError(f"learner.kernel is 'numba': expected {expected} on the CPU; leave the key out for the default, auto")
    return can and wish in ("auto", "numba")


def packed(params: Params, active: Tensor) -> Array:
    """One flat array: per layer weights [in, out] and biases, the head's active rows last."""
    head = [params["head.weight"][active].T, params["head.bias"][active]]
    return torch.cat([p.flatten() for p in (*_body(params), *head)]).numpy()


def unpacked(flat: Array, like: Params, active: Tensor) -> Params:
    """Tensors out of a flat array, which is theirs from now on; head rows that are not active stay as they are in `like`.

    Each but the first is an allocation of its own: a view's alignment would differ from a restored tensor's, and with it a
    library's order of summation.
    """
    count = int(active.sum())
    width = like["head.weight"].shape[1]
    sizes = [p.numel() for p in _body(like)]
    *body, weight, bias = torch.split(torch.from_numpy(flat), [*sizes, width * count, count])
    body = [*body[:1], *(part.clone() for part in body[1:])]
    names = [name for name in like if not name.startswith("head.")]
    params = {name: part.view(like[name].shape) for name, part in zip(names, body, strict=True)}
    head = {"head.weight": like["head.weight"].clone(), "head.bias": like["head.bias"].clone()}
    head["head.weight"][active] = weight.view(width, count).T
    head["head.bias"][active] = bias
    return {**params, **head}


def layer_sizes(params: Params, active: Tensor) -> list[int]:
    """Inputs, hidden layers, active labels."""
    hidden = [p.shape[1] for name, p in params.items() if name.endswith("weight") and name.startswith("body.")]
    first = next(iter(params.values())).shape[0] if hidden else params["head.weight"].shape[1]
    return [first, *hidden, int(active.sum())]


def _body(params: Params) -> Iterable[Tensor]:
    return [p for name, p in params.items() if not name.startswith("head.")]
