"""The presence gate against densities computed from all rows at once, and its cost to a stream that asks about its present."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from streamlearn.kernels.presence import LEAST, RIDGE
from streamlearn.learners.members.presence import GateSettings, Presence
from streamlearn.records import Array

HALF_LIFE, EVERY, WINDOW = 40.0, 10, 50


def presence(columns: int, **options: Any) -> Presence:
    settings = GateSettings(**{"half_life": HALF_LIFE, "every": EVERY, "window": WINDOW, **options})
    return Presence(settings, columns=columns, seed=7)


def wandering(count: int, columns: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, columns)) @ random.normal(size=(columns, columns))
    found: Array = (mixed + np.linspace(0, 5, count)[:, None]).astype(np.float32)
    return found


def density(rows: Array, weights: Array, *, shrinkage: float, ridge: float) -> Any:
    """Of weighted rows, by NumPy's covariance and SciPy's density."""
    covariance = np.cov(rows.T, aweights=weights, ddof=0)
    own = np.diag(np.diag(covariance))
    shrunk = (1 - shrinkage) * covariance + shrinkage * own + ridge * np.eye(len(own))
    return multivariate_normal(np.average(rows, 0, weights), shrunk)


def scores(before: Array, asked: Array, shrinkage: float) -> Array:
    """By all rows before, each weighed by its age."""
    ridge = RIDGE * np.trace(np.cov(before.T, ddof=0)) / before.shape[1] + LEAST
    ages = 0.5 ** (np.arange(len(before))[::-1] / HALF_LIFE)
    newest, ever = (
        density(before, weights, shrinkage=shrinkage, ridge=ridge).logpdf(asked) for weights in (ages, np.ones(len(before)))
    )
    found: Array = newest - ever
    return found


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_scores_are_those_of_densities_computed_from_all_rows_at_once(shrinkage: float) -> None:
    rows = wandering(EVERY + WINDOW, 4)
    made = presence(4, shrinkage=shrinkage)
    made.run(rows, np.ones(len(rows), bool))
    kept = made.state().arrays["scores"]
    for n in range(EVERY, len(rows)):
        known = rows[: n - n % EVERY].astype(np.float64)
        np.testing.assert_allclose(kept[n - EVERY], scores(known, rows[n : n + 1], shrinkage), rtol=1e-8, atol=1e-8)


def test_the_threshold_is_the_quantile_of_the_last_scores() -> None:
    rows = wandering(EVERY + 2 * WINDOW, 3)
    made = presence(3, quantile=0.2)
    made.run(rows, np.ones(len(rows), bool))
    arrays = made.state().arrays
    assert arrays["threshold"][0] == np.sort(arrays["scores"])[int(0.2 * WINDOW)]
    assert (arrays["scores"] != 0).all()


def test_nothing_is_past_before_the_window_is_full() -> None:
    rows = wandering(EVERY + WINDOW - 1, 3)
    made = presence(3, quantile=0.5)
    assert made.run(rows, np.ones(len(rows), bool)).here.all()
    assert not made.arrays()


@pytest.mark.parametrize("columns", [3, 40])
def test_a_stream_that_asks_about_its_present_loses_no_more_than_the_quantile(columns: int) -> None:
    """Within three standard deviations of a share of 2,000 rows by a threshold read from 1,000."""
    rows = np.random.default_rng(0).normal(size=(4000, columns)).astype(np.float32)
    made = presence(columns, quantile=0.1, half_life=300, window=1000, every=25, directions=16)
    past = 1 - made.run(rows, np.ones(len(rows), bool)).here[2000:].mean()
    assert abs(past - 0.1) < 3 * np.sqrt(0.1 * 0.9 * (1 / 1000 + 1 / 2000))


@pytest.mark.parametrize("columns", [3, 40])
def test_rows_of_long_ago_are_told_from_those_of_now(columns: int) -> None:
    random = np.random.default_rng(0)
    old, new = (random.normal(size=(1500, columns)) + centre for centre in (-1.5, 1.5))
    made = presence(columns, half_life=200, directions=16)
    made.run(np.concatenate([old, new]).astype(np.float32), np.ones(3000, bool))
    asked = np.concatenate([old[:200], new[-200:]]).astype(np.float32)
    here = made.run(asked, np.zeros(400, bool)).here
    assert here[:200].mean() < 0.05
    assert here[200:].mean() > 0.8


def test_a_column_that_never_varies_is_no_evidence() -> None:
    rows = np.concatenate([wandering(200, 2), np.zeros((200, 1), np.float32)], axis=1)
    made = presence(3)
    made.run(rows, np.ones(200, bool))
    assert np.isfinite(made.state().arrays["scores"]).all()


def test_asking_changes_nothing_and_no_row_is_kept() -> None:
    rows = wandering(200, 40)
    made = presence(40, directions=8)
    made.run(rows, np.ones(200, bool))
    before = made.state().arrays
    made.run(rows + 3, np.zeros(200, bool))
    for name, array in made.state().arrays.items():
        np.testing.assert_array_equal(array, before[name])
        assert 40 not in array.shape
