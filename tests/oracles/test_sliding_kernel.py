"""The compiled sliding look-ahead against the plain one, learner against learner, in double precision."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlearn.inputs import InputSettings
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from tests.oracles.kernels import gap, pair, stream


def check_measures(one: Mapping[str, float], two: Mapping[str, float]) -> None:
    assert set(one) == set(two)
    for name, value in two.items():
        np.testing.assert_allclose(one[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("inner_clip_norm", [None, 1.0])
def test_five_hundred_and_fifty_updates_differ_by_no_more_than_rounding(inner_clip_norm: float | None) -> None:
    task = Task((30,), seed=1, model=ModelSettings(hidden=(12, 9)), dtype="float64")
    options = {"inner_lr": 0.2, "recall": 0.3, "window": 4, "update_every": 2, "replay_rows": 4, "fast_share": 0.5}
    options["inner_clip_norm"] = inner_clip_norm
    fast, plain = pair(SlidingLookAhead, task, memory={"rows": 40}, **options)
    batch = stream(1100, 30, 6, seed=0)
    for start in range(0, len(batch), 100):
        check_measures(fast.learn(batch[start : start + 100]).measures, plain.learn(batch[start : start + 100]).measures)
    assert gap(fast, plain) < 1e-12
    assert bool((fast.point.weights["rates"]["body.layers.0.weight"] == 0).any())
    start_at = fast.network.initial(32, torch.float64, "cpu")["body.layers.0.weight"]
    assert float((fast.point.weights["slow"]["body.layers.0.weight"] - start_at).abs().max()) > 0.1


@settings(max_examples=25, deadline=None, derandomize=True)  # rounding is chaotic: the same shapes at every run
@given(
    features=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 24), max_size=3),
    window=st.integers(1, 6),
    update_every=st.integers(1, 4),
    replay_rows=st.integers(0, 9),
    recall=st.sampled_from([0.0, 0.3, 2.0]),
    inner_clip_norm=st.sampled_from([None, 0.3, 2.0]),
    kind=st.sampled_from(["none", "scale", "standardise"]),
    seed=st.integers(0, 10_000),
)
@example(
    features=784,
    hidden=[100, 100],
    window=4,
    update_every=2,
    replay_rows=4,
    recall=0.3,
    inner_clip_norm=1.0,
    kind="none",
    seed=0,
)  # the paper's
def test_any_shape_gives_the_same(  # noqa: PLR0917 hypothesis passes by name
    features: int,
    hidden: list[int],
    window: int,
    update_every: int,
    replay_rows: int,
    recall: float,
    inner_clip_norm: float | None,
    kind: Any,
    seed: int,
) -> None:
    inputs = InputSettings(kind=kind, factor=0.5, clip=2.0)
    task = Task((features,), seed=seed, model=ModelSettings(hidden=tuple(hidden)), dtype="float64", inputs=inputs)
    options = {"window": window, "update_every": update_every, "replay_rows": replay_rows, "recall": recall}
    options |= {"inner_clip_norm": inner_clip_norm, "averaging": 0.7 * (seed % 2)}
    fast, plain = pair(SlidingLookAhead, task, memory={"rows": 15}, **options)
    batch = stream(40, features, 20, seed)  # in longer runs a unit at its kink multiplies rounding
    batch.x[31] = np.nan
    one, two = fast.learn(batch), plain.learn(batch)
    assert gap(fast, plain) < 1e-12
    assert one.rejected.tolist() == two.rejected.tolist() == [row == 31 for row in range(40)]
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-5, atol=1e-6)
    check_measures(one.measures, two.measures)


def test_a_refused_row_of_a_new_label_changes_nothing() -> None:
    for label in (2, 38):  # within the head's capacity, and beyond it
        task = Task((6,), model=ModelSettings(hidden=(5, 5)), dtype="float64")
        fast, plain = pair(SlidingLookAhead, task)
        batch = stream(9, 6, 1, seed=0)
        batch.x[5], batch.labels[5] = np.inf, label
        for learner in (fast, plain):
            assert learner.learn(batch).rejected.tolist() == [row == 5 for row in range(9)]
            assert learner.point.active.width == 1
        assert gap(fast, plain) < 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused_through_zeros_and_silent_units(bad: float) -> None:
    """The compiled form skips zeros and units that do not fire; what is not a number must not be skipped with them."""
    for learner in pair(SlidingLookAhead, Task((6,), model=ModelSettings(hidden=(5, 5)))):
        learner.learn(stream(20, 6, 3, seed=0))
        before = learner.state()
        batch = stream(4, 6, 1, seed=1)
        batch.x[:, 2] = bad
        assert learner.learn(batch).rejected.all(), learner.kernel
        heads = [f"{weights}/head.weight" for weights in ("slow", "fast", "mean")]
        for name in (*heads, "rates/body.layers.0.weight", "memory/x", "recent/x"):
            np.testing.assert_array_equal(learner.state().arrays[name], before.arrays[name])


def test_fast_weights_that_ran_away_start_again_from_the_slow_ones_in_both_forms() -> None:
    fast, plain = pair(SlidingLookAhead, Task((6,), model=ModelSettings(hidden=(5, 5)), dtype="float64"))
    for learner in (fast, plain):
        learner.learn(stream(20, 6, 3, seed=0))
        for layer in (0, 1):
            learner.point.weights["fast"][f"body.layers.{layer}.weight"][...] = 1e300
        assert not learner.learn(stream(2, 6, 3, seed=1)).rejected.any()
    assert gap(fast, plain) < 1e-12
    assert max(float(p.abs().max()) for p in fast.point.weights["fast"].values()) < 1e3
