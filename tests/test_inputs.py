"""The input transform."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.errors import CheckpointError
from streamlearn.inputs import Inputs, InputSettings


def inputs(shape: tuple[int, ...] = (3,), **settings: object) -> Inputs:
    return Inputs.fresh(InputSettings(**settings), shape)  # type: ignore[arg-type]


def draw(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 3)) * [1, 100, 1e-3] + [5, -1000, 0.1]).astype(np.float32)


def test_none_passes_inputs_as_they_are() -> None:
    x = draw(4)
    same = inputs().learned(x)
    assert same.is_identity
    np.testing.assert_array_equal(same.apply(x), x)
    assert same.arrays() == {}


def test_scale_multiplies() -> None:
    x = np.array([[0.0, 127.5, 255.0]], np.float32)
    np.testing.assert_allclose(inputs(kind="scale", factor=1 / 255).learned(x).apply(x), [[0, 0.5, 1]], rtol=1e-6)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_running_statistics_equal_those_of_all_rows_at_once(sizes: list[int]) -> None:
    x = draw(sum(sizes))
    running = inputs(kind="standardise")
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        running = running.learned(part)
    np.testing.assert_allclose(running.mean, x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(running.squares, x.astype(np.float64).var(0) * len(x), rtol=1e-7, atol=1e-12)
    assert running.count == len(x)


def test_standardised_rows_have_mean_zero_and_deviation_one_and_are_clipped() -> None:
    x = draw(500)
    running = inputs(kind="standardise").learned(x)
    y = running.apply(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)
    np.testing.assert_array_equal(running.apply(np.array([[1e9, -1e9, 0.1]], np.float32))[0, :2], [5, -5])


def test_a_feature_that_never_varied_says_nothing() -> None:
    x = np.full((5, 3), 2.0, np.float32)
    running = inputs(kind="standardise").learned(x)
    np.testing.assert_array_equal(running.apply(x + 1), np.zeros((5, 3)))


def test_statistics_stay_exact_far_from_zero() -> None:
    """A float32 sum of squares would lose every digit of the deviation here."""
    x = (1e6 + draw(1000)[:, :1] % 1).astype(np.float32).repeat(3, 1)
    running = inputs(kind="standardise")
    for part in np.split(x, 100):
        running = running.learned(part)
    np.testing.assert_allclose(running.squares / 1000, x.astype(np.float64).var(0), rtol=1e-6)


def test_learning_gives_a_new_value_and_applying_changes_none() -> None:
    first = inputs(kind="standardise").learned(draw(4))
    mean = first.mean.copy()
    second = first.learned(draw(4, seed=1))
    second.apply(draw(4))
    np.testing.assert_array_equal(first.mean, mean)
    assert second.count == 8


def test_rows_that_are_not_finite_raise_no_warning_and_show_in_the_statistics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad = inputs(kind="standardise").learned(np.array([[np.inf, 1, 2], [-np.inf, 1, 2]], np.float32))
    assert np.isnan(bad.mean[0])


def test_a_restored_transform_is_the_same() -> None:
    one = inputs(kind="standardise").learned(draw(7))
    two = inputs(kind="standardise").restored(one.state())
    np.testing.assert_array_equal(one.apply(draw(3)), two.apply(draw(3)))
    assert two.learned(draw(2)).count == 9
    with pytest.raises(CheckpointError, match="input statistics of shape"):
        inputs((4,), kind="standardise").restored(one.state())
