"""Our updates against arrays made by the authors' implementation (see look_ahead.md), in double precision."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch

from streamlearn.adapt import outer
from streamlearn.adapt.inner import Episode, Form, MetaGradient
from streamlearn.adapt.params import Params, Rows, masked_cross_entropy
from streamlearn.adapt.recursion import meta_gradient
from streamlearn.models.classifier import Classifier, ModelSettings, build
from streamlearn.models.mlp import MLP
from streamlearn.records import Array
from tests.golden.arrays import Arrays, load

Outer = Callable[[Params, Params, MetaGradient], tuple[Params, Params]]


class Recipe(NamedTuple):
    """Which of the authors' forms, and with what rates."""

    update: Outer
    rate: float
    form: Form = Form()
    inner_chunks: int = 10
    heads: int = 1


def run(golden: Arrays, network: Classifier, names: list[str], recipe: Recipe) -> None:
    """Replay every recorded update and compare wherever the file holds weights. Raises when they differ."""

    def named(prefix: str) -> Params:
        parts = {name: torch.from_numpy(golden[f"{prefix}/{i}"]) for i, name in enumerate(names)}
        turned = {"body.layers.0.weight", "body.layers.1.weight"} if isinstance(network.body, MLP) else set()
        return {name: p.T.contiguous() if name in turned else p for name, p in parts.items()}

    def loss(params: Params, rows: Rows) -> torch.Tensor:
        return masked_cross_entropy(network.logits(params, rows.x), rows)

    slow = named("start/theta")
    rates = {name: torch.full_like(p, recipe.rate) for name, p in slow.items()}
    compared = 0
    for u in range(len(golden["order"])):
        slow, rates = recipe.update(slow, rates, meta_gradient(loss, slow, rates, episode(golden, u, recipe), recipe.form))
        if f"after/{u}/theta/0" in golden:
            compared += 1
            torch.testing.assert_close(slow, named(f"after/{u}/theta"), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(rates, named(f"after/{u}/alpha"), rtol=1e-12, atol=1e-12)
    assert compared == 5


def episode(golden: Arrays, update: int, recipe: Recipe) -> Episode:
    """The recorded rows of one update."""
    batch, order = update // (len(golden["order"]) // len(golden["x"])), golden["order"][update]
    task = np.full(len(order), golden["t"][batch])
    fresh = rows(golden["x"][batch][order], golden["y"][batch][order], task, recipe.heads)
    kept_x = golden[f"replay_x/{update}"].reshape(-1, *fresh.x.shape[1:])  # no shape at all while the memory was empty
    kept = rows(kept_x, golden[f"replay_y/{update}"], golden[f"replay_t/{update}"], recipe.heads)
    support = [fresh.at(part) for part in torch.arange(len(order)).chunk(recipe.inner_chunks)]
    return Episode(support, Rows.joined([kept, fresh]) if len(kept.y) else fresh)


def rows(x: Array, y: Array, tasks: Array, heads: int) -> Rows:
    """Rows whose softmax is over the labels of their own head."""
    labels = 5 if heads == 1 else 6
    head = torch.arange(labels) // (labels // heads) * (heads > 1)
    return Rows(torch.from_numpy(x), torch.from_numpy(y), head[None] == torch.from_numpy(tasks * (heads > 1))[:, None])


MLP_NAMES = [f"{layer}.{part}" for layer in ("body.layers.0", "body.layers.1", "head") for part in ("weight", "bias")]


@pytest.mark.parametrize(
    ("name", "update", "rate"),
    [
        ("la_maml", partial(outer.la_maml, meta_lr=0.3, clip_norm=2.0), 0.15),
        ("sync", partial(outer.sync, meta_lr=0.1, clip_norm=2.0, outer_lr=0.3), 0.15),
        ("c_maml", lambda p, lr, g: (outer.c_maml(p, g, clip_norm=2.0, outer_lr=0.1), lr), 0.1),
    ],
)
def test_forty_first_order_updates_equal_the_authors(name: str, update: Outer, rate: float) -> None:
    network = build(ModelSettings(hidden=(8, 8)), (12,), seed=0)
    run(load(f"look_ahead_{name}"), network, MLP_NAMES, Recipe(update, rate))


def test_sixteen_second_order_updates_of_the_convolutional_network_equal_the_authors() -> None:
    network = build(ModelSettings(name="conv", channels=4, hidden=(8, 8)), (3, 8, 8), seed=0)
    layers = [f"body.convs.{i}" for i in range(3)] + ["body.layers.0", "body.layers.1", "head"]
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    update = partial(outer.la_maml, meta_lr=0.25, clip_norm=1.0)
    form = Form(second_order=True, floor=False, clip=1.0)
    run(load("look_ahead_second_order"), network, names, Recipe(update, 0.1, form, inner_chunks=5, heads=2))
