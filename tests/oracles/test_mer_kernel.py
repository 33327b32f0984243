"""MER against its algorithm by hand, and the compiled form against the plain one, in double precision."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlearn.inputs import InputSettings
from streamlearn.learners.replay import MER
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Batch
from tests.oracles.kernels import gap, pair, stream

KERNELS = ("numba", "torch")


@pytest.mark.parametrize("bound", [None, 0.8])
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_riemers_first_algorithm(kernel: Any, bound: float | None) -> None:
    """Softmax regression, whose gradient is (p − 1ᵧ)·[x, 1]; of one remembered row it is known which row is replayed."""
    options = {"passes": 3, "learning_rate": 0.5, "within": 0.3, "across": 0.7, "clip_norm": bound, "replay_rows": 4}
    task = Task((4,), known=3, model=ModelSettings(hidden=()), dtype="float64")
    learner = MER(MER.Settings(kernel=kernel, memory={"rows": 1}, **options), task)
    random = np.random.default_rng(0)
    batch = Batch.of(random.normal(size=(30, 4)), np.r_[0, 1, 2, random.integers(0, 3, 27)])
    clipped = 0
    for n in range(len(batch)):
        state = learner.state().arrays
        w = np.column_stack([state["slow/head.weight"], state["slow/head.bias"]])[:3]
        rows = [(batch.x[n], batch.labels[n]), *zip(state["memory/x"], state["memory/label"], strict=True)]
        before = w
        for _ in range(3):
            walked = w
            for x, y in rows:
                scores = np.exp(walked @ np.r_[x, 1])
                step = np.outer(scores / scores.sum() - (np.arange(3) == y), np.r_[x, 1])
                norm = float(np.linalg.norm(step))
                clipped += bound is not None and norm > bound
                walked = walked - 0.5 * step * (1 if bound is None else min(1, bound / (norm + 1e-6)))
            w = w + 0.3 * (walked - w)
        learner.learn(batch[n : n + 1])
        after = learner.state().arrays
        found = np.column_stack([after["slow/head.weight"], after["slow/head.bias"]])[:3]
        np.testing.assert_allclose(found, before + 0.7 * (w - before), rtol=0, atol=1e-13)
    assert (bound is not None) == (clipped > 20)


@pytest.mark.parametrize("bound", [None, 1.0])
def test_five_hundred_updates_differ_by_no_more_than_rounding(bound: float | None) -> None:
    task = Task((30,), seed=1, model=ModelSettings(hidden=(12, 9)), dtype="float64")
    fast, plain = pair(MER, task, memory={"rows": 40}, replay_rows=6, passes=4, within=0.3, across=0.8, clip_norm=bound)
    batch = stream(500, 30, 6, seed=0)
    fast.learn(batch)
    plain.learn(batch)
    assert gap(fast, plain) < 1e-12
    start = fast.network.initial(32, torch.float64, "cpu")["body.layers.0.weight"]
    assert float((fast.point.weights["slow"]["body.layers.0.weight"] - start).abs().max()) > 0.1


@settings(max_examples=25, deadline=None, derandomize=True)  # rounding is chaotic: the same shapes at every run
@given(
    features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 24), max_size=3),
    passes=st.integers(1, 4),
    replay_rows=st.integers(0, 9),
    bound=st.sampled_from([None, 0.5, 10.0]),
    kind=st.sampled_from(["none", "scale", "standardise"]),
    seed=st.integers(0, 10_000),
)
@example(
    features=784, hidden=[100, 100], passes=5, replay_rows=10, bound=None, kind="none", seed=0
)  # the authors', on Rotations
def test_any_shape_gives_the_same(  # noqa: PLR0917 hypothesis passes by name
    features: int, hidden: list[int], passes: int, replay_rows: int, bound: float | None, kind: Any, seed: int
) -> None:
    inputs = InputSettings(kind=kind, factor=0.5, clip=2.0)
    task = Task((features,), seed=seed, model=ModelSettings(hidden=tuple(hidden)), dtype="float64", inputs=inputs)
    options = {"passes": passes, "replay_rows": replay_rows, "clip_norm": bound, "learning_rate": 0.03}
    fast, plain = pair(MER, task, memory={"rows": 15, "with_replacement": seed % 2 == 0}, **options)
    batch = stream(40, features, 20, seed)
    batch.x[31] = np.nan
    one, two = fast.learn(batch), plain.learn(batch)
    assert gap(fast, plain) < 1e-12
    assert one.rejected.tolist() == two.rejected.tolist() == [row == 31 for row in range(40)]
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-5, atol=1e-6)
    assert set(one.measures) == set(two.measures)
    np.testing.assert_allclose(one.measures["update_norm"], two.measures["update_norm"], rtol=1e-9)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    features=st.integers(2, 24),
    hidden=st.lists(st.integers(1, 19), min_size=1, max_size=2),
    passes=st.integers(1, 3),
    replay_rows=st.integers(0, 5),
    seed=st.integers(0, 10_000),
)
def test_any_shape_gives_the_same_after_five_hundred_updates(
    *, features: int, hidden: list[int], passes: int, replay_rows: int, seed: int
) -> None:
    task = Task((features,), seed=seed, model=ModelSettings(hidden=tuple(hidden)), dtype="float64")
    fast, plain = pair(MER, task, memory={"rows": 15}, passes=passes, replay_rows=replay_rows)
    batch = stream(500, features, 4, seed)
    fast.learn(batch)
    plain.learn(batch)
    assert gap(fast, plain) < 1e-12


@pytest.mark.parametrize("kind", ["none", "standardise"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_seen_through_zeros_and_silent_units(bad: float, kind: Any) -> None:
    """The compiled form skips zeros and units that do not fire; a NaN must not be skipped with them."""
    for learner in pair(MER, Task((6,), model=ModelSettings(hidden=(5, 5)), inputs=InputSettings(kind=kind))):
        learner.learn(stream(20, 6, 3, seed=0))
        before = learner.state()
        batch = stream(4, 6, 1, seed=1)
        batch.x[:, 2] = bad
        assert learner.learn(batch).rejected.all(), learner.kernel
        for name in ("slow/head.weight", "slow/body.layers.0.weight", "memory/x"):
            np.testing.assert_array_equal(learner.state().arrays[name], before.arrays[name])


def test_an_update_that_overflows_is_undone() -> None:
    for learner in pair(MER, Task((6,), model=ModelSettings(hidden=(5, 5))), clip_norm=None):
        learner.learn(stream(10, 6, 3, seed=0))
        before = learner.state().arrays["slow/head.weight"]
        assert learner.learn(Batch.of(np.full((1, 6), 3e38), np.ones(1, np.int64))).rejected.all()
        np.testing.assert_array_equal(learner.state().arrays["slow/head.weight"], before)
