"""Bodies, the head that grows, and what is refused."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from streamlearn.errors import ConfigError
from streamlearn.models.classifier import MIN_CAPACITY, Classifier, ModelSettings, build, capacity_for, head_row


def test_the_papers_mnist_network_has_89610_weights() -> None:
    params = build(ModelSettings(), (28, 28), seed=0).initial(10, torch.float32, "cpu")
    assert sum(p.numel() for p in params.values()) == 89_610
    assert all(not p.any() for name, p in params.items() if name.endswith("bias"))
    first = params["body.layers.0.weight"]
    assert first.std().item() == pytest.approx(math.sqrt(2 / 784), rel=0.02)
    assert params["head.weight"].std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.1)


def test_the_papers_cifar_network_has_its_layers() -> None:
    """Three convolutions 32 → 16 → 8 → 4, so 160·16 features; then 320, 320 and the head."""
    network = build(ModelSettings(name="conv", hidden=(320, 320)), (3, 32, 32), seed=0)
    params = network.initial(100, torch.float32, "cpu")
    shapes = {name.removeprefix("body."): tuple(p.shape) for name, p in params.items() if name.endswith("weight")}
    assert shapes == {
        "convs.0.weight": (160, 3, 3, 3),
        "convs.1.weight": (160, 160, 3, 3),
        "convs.2.weight": (160, 160, 3, 3),
        "layers.0.weight": (320, 2560),
        "layers.1.weight": (320, 320),
        "head.weight": (100, 320),
    }
    assert network.logits(params, torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_channels_may_come_last_and_gray_images_have_none() -> None:
    settings = ModelSettings(name="conv", channels=4, hidden=(5,))
    last = build(settings.model_copy(update={"channels_last": True}), (8, 8, 3), seed=0)
    first = build(settings, (3, 8, 8), seed=0)
    x = torch.randn(2, 3, 8, 8)
    params = first.initial(16, torch.float32, "cpu")
    torch.testing.assert_close(last.logits(params, x.movedim(1, -1)), first.logits(params, x))
    gray = build(settings, (8, 8), seed=0)
    assert gray.logits(gray.initial(16, torch.float32, "cpu"), x[:, 0]).shape == (2, 16)
    with pytest.raises(ConfigError, match=r"shape \[7\]"):
        build(settings, (7,), seed=0)


def test_an_mlp_computes_what_linear_layers_compute() -> None:
    network = build(ModelSettings(hidden=(6, 4)), (2, 3), seed=0)
    params = network.initial(16, torch.float64, "cpu")
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    h = x.reshape(5, 6)
    for i in range(2):
        h = (h @ params[f"body.layers.{i}.weight"] + params[f"body.layers.{i}.bias"]).clamp(min=0)
    torch.testing.assert_close(network.logits(params, x), h @ params["head.weight"].T + params["head.bias"])
    torch.testing.assert_close(network.body.double()(x), h)


def test_no_hidden_layer_gives_a_linear_classifier() -> None:
    network = build(ModelSettings(hidden=()), (2, 3), seed=0)
    assert set(network.initial(16, torch.float32, "cpu")) == {"head.weight", "head.bias"}


def test_first_values_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> Tensor:
        return build(ModelSettings(), (4,), seed=seed).initial(16, torch.float32, "cpu")["body.layers.0.weight"]

    torch.manual_seed(1)
    state, one = torch.get_rng_state(), first(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first(0), one)
    assert not torch.equal(first(1), one)


def test_capacity_is_allocated_in_powers_of_two() -> None:
    assert [capacity_for(n) for n in (0, 1, 16, 17, 32, 33, 1000)] == [MIN_CAPACITY, 16, 16, 32, 32, 64, 1024]


def test_growth_keeps_old_rows_and_does_not_depend_on_when_it_happened() -> None:
    network = build(ModelSettings(hidden=(4,)), (3,), seed=5)
    small = network.initial(16, torch.float64, "cpu")
    small["head.weight"] += 1
    steps = network.grown(network.grown(small, 32), 64)
    assert torch.equal(steps["head.weight"][:16], small["head.weight"])
    assert torch.equal(steps["head.weight"][16:], network.initial(64, torch.float64, "cpu")["head.weight"][16:])
    assert torch.equal(steps["head.weight"][40], head_row(5, 40, 4).double())
    assert not torch.equal(head_row(5, 40, 4), head_row(5, 41, 4))
    assert network.grown(steps, 32) is steps


def test_any_module_serves_as_body() -> None:
    network = build(ModelSettings(module=f"{__name__}:normalised_body"), (6,), seed=0)
    params = network.initial(16, torch.float32, "cpu")
    assert {n for n in params if n.startswith("body.")} == {f"body.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}
    assert network.logits(params, torch.zeros(3, 6)).shape == (3, 16)


class Tied(nn.Module):
    """One weight twice, under two names."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("tied", [True, False])
def test_a_weight_with_two_names_is_one_weight(tied: bool) -> None:
    network = Classifier(Tied(tied=tied), (3,), seed=0)
    params = network.initial(2, torch.float32, "cpu")
    assert len([name for name in params if name.startswith("body.")]) == 1 + (not tied)
    changed = {name: 2 * p for name, p in params.items()}
    x, first = torch.ones(1, 3), changed["body.first.weight"]
    second = first if tied else changed["body.second.weight"]
    expected = torch.relu(x @ first.T) @ second.T @ changed["head.weight"].T + changed["head.bias"]
    torch.testing.assert_close(network.logits(changed, x), expected)


class Nested(nn.Module):
    """Buffers, an absent bias, a reparametrised weight, modules in modules and one module twice."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(3, 3)
        self.parts = nn.ModuleList([nn.Sequential(shared, nn.Tanh()), nn.Linear(3, 4, bias=False), shared])
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
        self.register_buffer("gain", torch.arange(3.0))

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.parts[2], *self.parts[:2]):
            x = part(x * self.get_buffer("gain") if x.shape[1] == 3 else x)
        return self.last(x)


def test_a_body_is_called_as_torch_calls_it_functionally() -> None:
    network = Classifier(Nested(), (3,), seed=0)
    before = {name: p.clone() for name, p in network.body.state_dict().items()}
    params = {name: 1 + 2 * p for name, p in network.initial(2, torch.float32, "cpu").items()}
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    own = {name.removeprefix("body."): p for name, p in params.items() if name.startswith("body.")}
    expected = functional_call(deepcopy(network.body), own, (x,))  # it leaves a module that goes by two names changed
    torch.testing.assert_close(network.features(params, x), expected, rtol=0, atol=0)
    with pytest.raises(RuntimeError):
        network.features(params, torch.randn(5, 7))
    with pytest.raises(KeyError):
        network.features({name: p for name, p in params.items() if "last" not in name}, x)
    torch.testing.assert_close(dict(network.body.state_dict()), before, rtol=0, atol=0)
    assert all(isinstance(p, nn.Parameter) for p in network.body.parameters()), "everything is back in its place"


def normalised_body(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 8), nn.LayerNorm(8), nn.ReLU())


class Mixing(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """Counts its questions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x


class Guessing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "BatchNorm1d at '1': expected no batch norm"),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True)), "InstanceNorm1d"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)), "Dropout at '1': expected no dropout"),
        (Mixing, "depends on the rows beside it"),
        (Counting, "changed a buffer"),
        (Guessing, "two answers to one question"),
        (lambda: nn.Unflatten(1, (2, 3)), r"expected \[3, features\]"),
    ],
)
def test_a_body_that_breaks_reading_is_not_learning_is_refused(body: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Classifier(body(), (6,), seed=0)


@pytest.mark.parametrize("name", ["nowhere", "nowhere:factory", "math:missing", ":factory"])
def test_a_factory_that_cannot_be_imported_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected 'package\.module:factory'"):
        build(ModelSettings(module=name), (6,), seed=0)


@pytest.mark.parametrize(
    ("options", "shape", "part", "expected"),
    [
        ({"name": "gated", "channels": 256}, (3, 28, 28), "body.trunk.", 1_188_864),
        ({"name": "gated", "channels": 256}, (3, 28, 28), "body.gate.", 2_554_560),
        ({"name": "split", "channels": 256, "layout": "strided"}, (84, 84), "body.", 2_952_960),
    ],
)
def test_trunk_and_gate_have_the_weights_of_the_released_networks(
    options: dict[str, Any], shape: tuple[int, ...], part: str, expected: int
) -> None:
    """Counted from the code of the authors of ANML and OML."""
    network = build(ModelSettings(**options), shape, seed=0)
    params = network.initial(0, torch.float32, "cpu")
    assert sum(p.numel() for name, p in params.items() if name.startswith(part)) == expected
    assert network.width == 2304


def test_a_trunk_computes_convolution_norm_rectification_and_pooling() -> None:
    network = build(ModelSettings(name="split", channels=3), (22, 20), seed=0)
    params = {n: p + 0.1 for n, p in network.initial(0, torch.float64, "cpu").items()}
    x = torch.randn(2, 22, 20, dtype=torch.float64)
    h = x[:, None]
    for i in range(3):
        h = functional.conv2d(h, params[f"body.convs.{i}.weight"], params[f"body.convs.{i}.bias"])
        h = functional.instance_norm(h, weight=params[f"body.norms.{i}.weight"], bias=params[f"body.norms.{i}.bias"])
        h = functional.max_pool2d(h.clamp(min=0), 2) if i < 2 else h.clamp(min=0)
    torch.testing.assert_close(network.features(params, x), h.flatten(1), rtol=1e-10, atol=1e-10)


def test_a_gate_multiplies_the_features_of_its_trunk() -> None:
    network = build(ModelSettings(name="gated", hidden=(5, 4)), (6,), seed=0)
    params = {n: p + 0.1 for n, p in network.initial(0, torch.float64, "cpu").items()}
    x = torch.randn(3, 6, dtype=torch.float64)

    def mlp(part: str) -> Tensor:
        h = x
        for i in range(2):
            h = (h @ params[f"{part}.layers.{i}.weight"] + params[f"{part}.layers.{i}.bias"]).clamp(min=0)
        return h

    gate = mlp("body.gate.0") @ params["body.gate.1.weight"].T + params["body.gate.1.bias"]
    torch.testing.assert_close(network.features(params, x), mlp("body.trunk") / (1 + torch.exp(-gate)))


@pytest.mark.parametrize("layout", ["pooled", "strided"])
def test_images_too_small_for_a_layout_are_refused(layout: str) -> None:
    with pytest.raises(ConfigError, match=rf"layout '{layout}' cannot take inputs of shape \[8, 8\]"):
        build(ModelSettings(name="split", layout=layout, channels=2), (8, 8), seed=0)
