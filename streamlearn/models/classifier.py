"""A body and the head that we own, as pure functions of a dict of tensors.

Head row r belongs to label row r. It is drawn from a generator seeded by (seed, r), so that growth moves no old row and
the result does not depend on when growth happened. Capacity is allocated in powers of two; unused rows are masked.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from streamlearn.errors import ConfigError
from streamlearn.models.conv import Conv
from streamlearn.models.gated import Gated
from streamlearn.models.mlp import MLP
from streamlearn.models.split import Split
from streamlearn.records import Initialisation
from streamlearn.settings import Section, key

Params: TypeAlias = dict[str, Tensor]
Shape: TypeAlias = tuple[int, ...]
Place: TypeAlias = tuple[dict[str, Any], str, str]
"""The table of a module, the name in it, and the name in `params`."""
MIN_CAPACITY = 16


class ModelSettings(Section):
    """The network between inputs and labels."""

    name: Literal["mlp", "conv", "split", "gated"] = key("mlp", "which built-in network")
    hidden: tuple[int, ...] = key((100, 100), "sizes of the linear layers before the head (mlp, conv; gated on vectors)")
    channels: int = key(160, "channels of each convolution (conv, split, gated)", ge=1)
    gate_channels: int = key(112, "channels of each convolution of the gate (gated)", ge=1)
    layout: Literal["pooled", "strided", "conv4"] = key("pooled", "which convolutions: of ANML, OML or MAML (split, gated)")
    channels_last: bool = key(False, "images come as height, width, channels (conv)")
    module: str = key("", 'own network instead: "package.module:factory"; factory(shape) returns a body without a head')


class Classifier:
    """Logits of a body and a head: nothing is held but the body's structure, what of it is fixed, and its first values.

    After a warm start, what the stream may not move is in `fixed` and takes no part in any params.
    """

    def __init__(self, body: nn.Module, shape: Shape, *, seed: int, start: Initialisation | None = None) -> None:
        self.body = body.eval()
        self.width = _checked_width(body, shape)
        self.seed = seed
        self.start = start
        self._moving, self.fixed = _parted(body, start)
        self._buffers = {f"body.{name}": b.detach().clone() for name, b in body.named_buffers()}
        self._places = _places(body)

    @property
    def is_whole(self) -> bool:
        """True when params hold all of the network."""
        return not self.fixed

    def initial(self, capacity: int, dtype: torch.dtype, device: str) -> Params:
        """First values of what may move: `body.…`, `head.weight` [capacity, width], `head.bias` [capacity]."""
        self.fixed = {n: p.to(device, dtype) for n, p in self.fixed.items()}
        self._buffers = {n: b.to(device, dtype if b.is_floating_point() else b.dtype) for n, b in self._buffers.items()}
        body = {name: p.clone() for name, p in self._moving.items()}
        head = {"head.weight": torch.zeros(0, self.width), "head.bias": torch.zeros(0)}
        return {n: p.to(device, dtype) for n, p in self.grown({**body, **head}, capacity).items()}

    def grown(self, params: Params, capacity: int) -> Params:
        """The same with `capacity` head rows: old rows bit for bit, new ones from their own seeds."""
        weight, bias = params["head.weight"], params["head.bias"]
        if len(bias) >= capacity:
            return params
        new_weight, new_bias = self._new_rows(len(bias), capacity)
        return {
            **params,
            "head.weight": torch.cat([weight, new_weight.to(weight)]),
            "head.bias": torch.cat([bias, new_bias.to(bias)]),
        }

    def _new_rows(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(end - first, self.width)
        if self.start is not None and self.start.head == "zero":
            return zeros, zeros[:, 0]
        return torch.stack([head_row(self.seed, row, self.width) for row in range(first, end)]), zeros[:, 0]

    def logits(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """[n, capacity] for inputs [n, *shape]. Differentiable, and safe under `vmap` over parameters."""
        return torch.nn.functional.linear(self.features(params, x), params["head.weight"], params["head.bias"])

    def features(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """[n, width]: what the head is given."""
        params = {**self._buffers, **self.fixed, **params}
        return self._mlp(params, x) if isinstance(self.body, MLP) else self._call(params, x)

    def _mlp(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(len(cast(MLP, self.body).layers)):
            x = torch.relu(torch.addmm(params[f"body.layers.{i}.bias"], x, params[f"body.layers.{i}.weight"]))
        return x

    def _call(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What `torch.func.functional_call` does, which spends a sixth of a small network's gradient on finding the places."""
        kept = [held[own] for held, own, _ in self._places]
        try:
            for held, own, name in self._places:
                held[own] = params[name]
            return cast(Tensor, self.body(x))
        finally:
            for (held, own, _), before in zip(self._places, kept, strict=True):
                held[own] = before


def build(
    settings: ModelSettings, shape: Shape, *, seed: int, start: Initialisation | None = None, fan_in: int | None = None
) -> Classifier:
    """The classifier that `settings` name, at the values of `start`. The global random state neither matters nor moves.

    `fan_in`: see `mlp.MLP`, which alone heeds it.

    Errors  ConfigError when the module cannot be imported, mixes rows, or keeps statistics, or `start` is for another one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 0))
        return Classifier(_body(settings, shape, fan_in), shape, seed=seed, start=start)


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


def _body(settings: ModelSettings, shape: Shape, fan_in: int | None) -> nn.Module:
    if settings.module:
        return _imported(settings.module)(shape)
    if settings.name == "conv":
        return Conv(shape, settings.channels, settings.hidden, channels_last=settings.channels_last)
    if settings.name == "split":
        return Split(shape, settings.channels, settings.layout)
    if settings.name == "gated":
        own = {"channels": settings.channels, "gate_channels": settings.gate_channels}
        return Gated(shape, **own, layout=settings.layout, hidden=settings.hidden)
    return MLP(shape, settings.hidden, fan_in)


def _places(body: nn.Module) -> list[Place]:
    """Where each parameter and buffer is held: one that goes by two names, twice, under the name that `params` have."""
    named = [*body.named_parameters(), *body.named_buffers()]
    names = {id(tensor): f"body.{name}" for name, tensor in named}
    modules = list(body.modules())
    held = [table for module in modules for table in (module._parameters, module._buffers)]
    return [(table, own, names[id(tensor)]) for table in held for own, tensor in table.items() if tensor is not None]


def _parted(body: nn.Module, start: Initialisation | None) -> tuple[Params, Params]:
    """Parameters that may move, and those that may not."""
    named = {f"body.{name}": p.detach() for name, p in body.named_parameters()}
    if start is None:
        return named, {}
    kept = {name: array for name, array in start.arrays.items() if name.startswith("body.")}
    for name in sorted(named.keys() | kept.keys()):
        ours, theirs = (str(list(each[name].shape)) if name in each else "nothing" for each in (named, kept))
        if ours != theirs:
            raise ConfigError(
                f"warm start holds {theirs} for '{name}', the model has {ours}: expected the model it was made with"
            )
    values = {name: torch.tensor(kept[name]) for name in named}
    return {n: p for n, p in values.items() if n in start.plastic}, {n: p for n, p in values.items() if n not in start.plastic}


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
