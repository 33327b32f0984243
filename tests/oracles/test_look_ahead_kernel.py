"""The compiled look-ahead against the plain one, learner against learner, in double precision."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlearn.adapt.params import cosine, gradient
from streamlearn.inputs import InputSettings
from streamlearn.learners.look_ahead import CMAML, LaMAML, LookAhead, Sync
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Batch
from tests.oracles.kernels import gap, pair

KINDS: dict[str, Any] = {"la-maml": LaMAML, "sync": Sync, "c-maml": CMAML}


def stream(count: int, features: int, labels: int, seed: int) -> Batch:
    """Rows with many zeros, as images have, and labels that arrive one after another."""
    random = np.random.default_rng(seed)
    y = np.minimum(random.integers(0, labels, count), np.arange(count) // 7)
    x = np.maximum(random.normal(size=(count, features)) - 0.5, 0) + 0.5 * np.eye(labels, features)[y]
    return Batch.of(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_updates_differ_by_no_more_than_rounding(kind: str) -> None:
    task = Task((30,), seed=1, model=ModelSettings(hidden=(12, 9)), dtype="float64")
    fast, plain = pair(KINDS[kind], task, glances=5, memory={"rows": 40})
    batch = stream(1000, 30, 6, seed=0)
    for start in range(0, len(batch), 100):
        fast.learn(batch[start : start + 100])
        plain.learn(batch[start : start + 100])
    assert gap(fast, plain) < 1e-12
    assert np.abs(fast.state().arrays["slow/body.layers.0.weight"] - initial(fast)).max() > 0.1


def initial(learner: LookAhead) -> Any:
    return learner.network.initial(16, torch.float64, "cpu")["body.layers.0.weight"].numpy()


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 24), max_size=3),
    parts=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    replay_rows=st.integers(0, 12),
    labels=st.integers(1, 20),
    floor=st.booleans(),
    seed=st.integers(0, 10_000),
)
@example(
    kind="la-maml", features=784, hidden=[100, 100], parts=(10, 1), replay_rows=10, labels=10, floor=True, seed=0
)  # the paper's
def test_any_shape_gives_the_same(
    *,
    kind: str,
    features: int,
    hidden: list[int],
    parts: tuple[int, int],
    replay_rows: int,
    labels: int,
    floor: bool,
    seed: int,
) -> None:
    task = Task((features,), seed=seed, model=ModelSettings(hidden=tuple(hidden)), dtype="float64")
    steps, rows = parts
    options = {"chunk": steps * rows, "inner_chunks": steps, "replay_rows": replay_rows, "floor_inner": floor, "glances": 2}
    fast, plain = pair(KINDS[kind], task, memory={"rows": 15, "offer_early": floor}, **options)
    batch = stream(8 * steps * rows, features, labels, seed)
    one, two = fast.learn(batch), plain.learn(batch)
    assert gap(fast, plain) < 1e-12
    assert one.rejected.tolist() == two.rejected.tolist()
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-5, atol=1e-6)
    for name, value in two.measures.items():
        np.testing.assert_allclose(one.measures[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=6, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    features=st.integers(1, 24),
    hidden=st.lists(st.integers(1, 19), min_size=1, max_size=2),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    replay_rows=st.integers(0, 5),
    seed=st.integers(0, 10_000),
)
def test_any_shape_gives_the_same_after_five_hundred_updates(
    *, kind: str, features: int, hidden: list[int], parts: tuple[int, int], replay_rows: int, seed: int
) -> None:
    task = Task((features,), seed=seed, model=ModelSettings(hidden=tuple(hidden)), dtype="float64")
    steps, rows = parts
    options = {"chunk": steps * rows, "inner_chunks": steps, "replay_rows": replay_rows, "glances": 10}
    fast, plain = pair(KINDS[kind], task, memory={"rows": 15}, **options)
    batch = stream(50 * steps * rows, features, 4, seed)
    fast.learn(batch)
    plain.learn(batch)
    assert gap(fast, plain) < 1e-12


def test_alignment_is_the_cosine_between_the_two_gradients() -> None:
    task = Task((12,), model=ModelSettings(hidden=(8,)), dtype="float64")
    fast, plain = pair(LaMAML, task, memory={"rows": 20}, alignment_every=1)
    first, second = stream(30, 12, 3, seed=0), stream(10, 12, 3, seed=1)
    plain.learn(first)
    fast.learn(first)
    other = LaMAML(LaMAML.Settings(memory={"rows": 20}, kernel="torch"), task)
    other.restore(plain.state())
    measured = fast.learn(second).measures["gradient_alignment"]
    torch.randperm(10, generator=other.generator)
    replayed = other._replayed(10)
    assert replayed is not None
    slow = other.point.weights["slow"]
    expected = cosine(*(gradient(other._loss, slow, rows) for rows in (replayed, other._rows(other._columns(second)))))
    assert measured == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["none", "standardise"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_seen_through_zeros_and_silent_units(bad: float, kind: Any) -> None:
    """The compiled form skips zeros and units that do not fire; a NaN must not be skipped with them."""
    for learner in pair(LaMAML, Task((6,), model=ModelSettings(hidden=(5, 5)), inputs=InputSettings(kind=kind))):
        batch = stream(10, 6, 3, seed=0)
        batch.x[4, 2] = bad
        assert learner.learn(batch).rejected.all()


def test_an_update_that_overflows_is_undone() -> None:
    for learner in pair(LaMAML, Task((6,), model=ModelSettings(hidden=(5, 5)))):
        batch = stream(10, 6, 3, seed=0)
        batch.x[4] = 3e38
        before = learner.state().arrays["slow/head.weight"]
        assert learner.learn(batch).rejected.all()
        np.testing.assert_array_equal(learner.state().arrays["slow/head.weight"], before)
