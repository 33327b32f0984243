"""The meta gradient without a graph against the one with it, update after update, in double precision."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamlearn.adapt import outer, recursion
from streamlearn.adapt.inner import Episode, Form, exact_gradient, first_order_gradient
from streamlearn.adapt.params import Params, Rows, masked_cross_entropy
from streamlearn.adapt.recursion import meta_gradient
from streamlearn.models.classifier import Classifier, ModelSettings, build

UPDATES = 500
FORMS = [
    Form(second, floor, clip, norm, last)
    for second in (False, True)
    for floor, clip, norm, last in (
        (True, None, None, False),
        (False, 0.05, None, False),
        (False, None, 0.3, False),
        (False, 0.05, 0.3, True),
    )
]


def loss_of(network: Classifier, params: Params, rows: Rows) -> Tensor:
    return masked_cross_entropy(network.logits(params, rows.x), rows)


def rows(network: Classifier, shape: tuple[int, ...], count: int, draws: torch.Generator) -> Rows:
    """Some inputs, labels 0 to 3, the rest masked."""
    x = torch.randn(count, *shape, dtype=torch.float64, generator=draws)
    return Rows(x, torch.randint(0, 4, (count,), generator=draws), (torch.arange(16) < 4).unsqueeze(0))


def episode(network: Classifier, shape: tuple[int, ...], parts: tuple[int, int], draws: torch.Generator) -> Episode:
    fresh = rows(network, shape, parts[0] * parts[1], draws)
    support = [fresh.at(slice(k * parts[1], (k + 1) * parts[1])) for k in range(parts[0])]
    return Episode(support, Rows.joined([rows(network, shape, 3, draws), fresh]))


def gap(one: Params, two: Params) -> float:
    return max(float((p - two[name]).abs().max()) for name, p in one.items())


def far_apart(network: Classifier, shape: tuple[int, ...], parts: tuple[int, int], form: Form, updates: int) -> float:
    """The largest difference of any weight or step size after so many updates of both."""
    loss, draws = partial(loss_of, network), torch.Generator().manual_seed(1)
    plain = exact_gradient if form.second_order else first_order_gradient
    slow = network.initial(16, torch.float64, "cpu")
    rates = {name: torch.full_like(p, 0.05) for name, p in slow.items()}
    one, two, first = (slow, rates), (slow, rates), slow
    move = partial(outer.la_maml, meta_lr=0.05, clip_norm=2.0)
    for _ in range(updates):
        lesson = episode(network, shape, parts, draws)
        one = move(*one, meta_gradient(loss, *one, lesson, form))
        two = move(*two, plain(loss, *two, lesson, form))
    assert gap(one[0], first) > 1e-3, "they learn"
    return max(gap(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batched", [0, 10**9])
def test_each_form_is_the_plain_one(form: Form, batched: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores in one batch or one after another."""
    monkeypatch.setattr(recursion, "BATCHED", batched)
    network = build(ModelSettings(name="conv", channels=3, hidden=(5,)), (2, 6, 5), seed=0)
    assert far_apart(network, (2, 6, 5), (3, 2), form, 20) < 1e-13


@settings(max_examples=3, deadline=None)
@given(
    model=st.sampled_from(["mlp", "conv"]),
    sides=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    hidden=st.lists(st.integers(2, 7), min_size=1, max_size=2),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_the_same_after_five_hundred_updates(
    *, model: Any, sides: tuple[int, int], hidden: list[int], parts: tuple[int, int], form: Form, seed: int
) -> None:
    network = build(ModelSettings(name=model, channels=3, hidden=tuple(hidden)), sides, seed=seed)
    assert far_apart(network, sides, parts, form, UPDATES) < 1e-12


def test_a_linear_loss_has_no_curvature() -> None:
    """Nothing to differentiate twice, and no failure of it."""
    params = {"w": torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    seen = Rows(torch.ones(1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))

    def linear(params: Params, rows: Rows) -> Tensor:
        return (params["w"] * rows.x).sum()

    found = meta_gradient(linear, params, {"w": torch.full((4,), 0.1, dtype=torch.float64)}, Episode([seen], seen), Form(True))
    torch.testing.assert_close(found.params["w"], torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found.inner_lr["w"], -torch.ones(4, dtype=torch.float64))
