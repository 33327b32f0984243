"""A body and the head that we own, as pure functions of a dict of tensors.

Head row r belongs to label row r. It is drawn from a generator seeded by (seed, r), so that growth moves no old row and
the result does not depend on when growth happened. Capacity is allocated in powers of two; unused rows are masked.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from streamlearn.errors import ConfigError
from streamlearn.models.conv import Conv
from streamlearn.models.mlp import MLP
from streamlearn.settings import Section, key

Params: TypeAlias = dict[str, Tensor]
Shape: TypeAlias = tuple[int, ...]
MIN_CAPACITY = 16


class ModelSettings(Section):
    """The network between inputs and labels."""

    name: Literal["mlp", "conv"] = key("mlp", "which built-in network")
    hidden: tuple[int, ...] = key((100, 100), "sizes of the linear layers before the head")
    channels: int = key(160, "channels of each convolution (conv)", ge=1)
    channels_last: bool = key(False, "images come as height, width, channels (conv)")
    module: str = key("", 'own network instead: "package.module:factory"; factory(shape) returns a body without a head')


class Classifier:
    """Logits of a body and a head: nothing is held but the body's structure and the seed of its first values."""

    def __init__(self, body: nn.Module, shape: Shape, *, seed: int) -> None:
        self.body = body.eval()
        self.width = _checked_width(body, shape)
        self.seed = seed
        self._frozen = {f"body.{name}": b.detach().clone() for name, b in body.named_buffers()}

    def initial(self, capacity: int, dtype: torch.dtype, device: str) -> Params:
        """First values: `body.…`, `head.weight` [capacity, width], `head.bias` [capacity]."""
        body = {f"body.{name}": p.detach().clone() for name, p in self.body.named_parameters()}
        head = {"head.weight": torch.zeros(0, self.width), "head.bias": torch.zeros(0)}
        return {n: p.to(device, dtype) for n, p in self.grown({**body, **head}, capacity).items()}

    def grown(self, params: Params, capacity: int) -> Params:
        """The same with `capacity` head rows: old rows bit for bit, new ones from their own seeds."""
        weight, bias = params["head.weight"], params["head.bias"]
        new = [head_row(self.seed, row, self.width) for row in range(len(bias), capacity)]
        if not new:
            return params
        return {
            **params,
            "head.weight": torch.cat([weight, torch.stack(new).to(weight)]),
            "head.bias": torch.cat([bias, bias.new_zeros(len(new))]),
        }

    def logits(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """[n, capacity] for inputs [n, *shape]. Differentiable, and safe under `vmap` over parameters."""
        features = self._mlp(params, x) if isinstance(self.body, MLP) else self._call(params, x)
        return torch.nn.functional.linear(features, params["head.weight"], params["head.bias"])

    def _mlp(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(len(cast(MLP, self.body).layers)):
            x = torch.relu(torch.addmm(params[f"body.layers.{i}.bias"], x, params[f"body.layers.{i}.weight"]))
        return x

    def _call(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        named = {**self._frozen, **params}
        body = {name.removeprefix("body."): p for name, p in named.items() if name.startswith("body.")}
        return cast(Tensor, functional_call(self.body, body, (x,)))


def build(settings: ModelSettings, shape: Shape, *, seed: int) -> Classifier:
    """The classifier that `settings` name. The global random state neither matters nor moves.

    Errors  ConfigError when the module cannot be imported, mixes rows, or keeps statistics.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 0))
        return Classifier(_body(settings, shape), shape, seed=seed)


def capacity_for(rows: int) -> int:
    """The power of two that is allocated for this many head rows."""
    return max(MIN_CAPACITY, 1 << max(0, rows - 1).bit_length())


def head_row(seed: int, row: int, width: int) -> Tensor:
    """Kaiming-normal weights of one head row, float32 [width]: a function of (seed, row) alone."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, 1, row))
    return torch.randn(width, generator=generator) * math.sqrt(2.0 / width)


def mixed_seed(*parts: int) -> int:
    """63 well-mixed bits out of some small numbers, so that neighbouring seeds share nothing."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _body(settings: ModelSettings, shape: Shape) -> nn.Module:
    if settings.module:
        return _imported(settings.module)(shape)
    if settings.name == "conv":
        return Conv(shape, settings.channels, settings.hidden, channels_last=settings.channels_last)
    return MLP(shape, settings.hidden)


def _imported(name: str) -> Callable[[Shape], nn.Module]:
    module, _, factory = name.partition(":")
    try:
        return cast(Callable[[Shape], nn.Module], getattr(importlib.import_module(module), factory))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"model.module is {name!r}: expected 'package.module:factory' that can be imported") from error


def _checked_width(body: nn.Module, shape: Shape) -> int:
    """Features per row. Refuses what would make an answer depend on its batch mates, on chance, or on earlier questions."""
    for name, part in body.named_modules():
        kind = type(part).__name__
        if "BatchNorm" in kind or getattr(part, "track_running_stats", False):
            raise ConfigError(f"model has {kind} at '{name}': expected no batch norm and no running statistics (use GroupNorm)")
        if "Dropout" in kind and getattr(part, "p", 0.0) > 0.0:
            raise ConfigError(f"model has {kind} at '{name}': expected no dropout, answers must not depend on chance")
    return _probed_width(body, shape)


def _probed_width(body: nn.Module, shape: Shape) -> int:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    buffers = [b.clone() for b in body.buffers()]
    with torch.no_grad():
        whole, again, alone = body(x), body(x), body(x[:1])
    if whole.dim() != 2 or len(whole) != 3:
        raise ConfigError(f"model turned inputs {list(x.shape)} into {list(whole.shape)}: expected [3, features]")
    if not torch.equal(whole, again) or any(not torch.equal(a, b) for a, b in zip(buffers, body.buffers(), strict=True)):
        raise ConfigError("model gave two answers to one question or changed a buffer: expected a function of its input")
    if not torch.allclose(whole[:1], alone, rtol=1e-4, atol=1e-5):
        raise ConfigError("model's answer to a row depends on the rows beside it: expected each row for itself")
    return int(whole.shape[1])
