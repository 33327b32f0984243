"""The presence gate against densities and spreads computed from all rows at once, and its cost to a stream of the present."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from streamlearn.kernels.presence import LEAST, LEAST_SPREAD, RIDGE, Verdicts
from streamlearn.learners.members.presence import GateSettings, Presence
from streamlearn.records import Array, State

HALF_LIFE, EVERY, WINDOW = 40.0, 10, 50


def presence(columns: int, **options: Any) -> Presence:
    settings = GateSettings(**{"half_life": HALF_LIFE, "every": EVERY, "window": WINDOW, **options})
    return Presence(settings, columns=columns, seed=7)


def run(made: Presence, rows: Array, *, learned: bool = True, leads: Array | None = None) -> Verdicts:
    """All rows learned or none; without leads, those of pools that are always as sure as each other."""
    count = len(rows)
    return made.run(rows, np.zeros(count) if leads is None else leads, np.full(count, learned))


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


def spreads(values: Array, window: int) -> Array:
    """Of the columns of `values`, each row weighed by its age."""
    weights = (1 - 1 / window) ** np.arange(len(values))[::-1]
    mean = np.average(values, 0, weights)
    found: Array = np.sqrt(np.average((values - mean) ** 2, 0, weights))
    return found


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_scores_are_those_of_densities_and_spreads_computed_from_all_rows_at_once(shrinkage: float) -> None:
    rows = wandering(EVERY + WINDOW, 4)
    leads = np.random.default_rng(1).normal(size=len(rows))
    made = presence(4, shrinkage=shrinkage, lead=0.7)
    run(made, rows, leads=leads)
    kept = made.state().arrays["scores"]
    likelihoods = np.zeros(len(rows))
    for n in range(EVERY, len(rows)):
        read = n - n % EVERY
        likelihoods[n : n + 1] = scores(rows[:read].astype(np.float64), rows[n : n + 1], shrinkage)
        made_of = np.stack([likelihoods, leads], axis=1)
        spread = spreads(made_of[EVERY:read], WINDOW) if read > EVERY else np.ones(2)
        expected = made_of[n] / np.maximum(spread, LEAST_SPREAD) @ [1.0, 0.7]
        np.testing.assert_allclose(kept[n - EVERY], expected, rtol=1e-8, atol=1e-8)


def test_of_rows_alike_those_of_which_the_present_pool_is_less_sure_are_past() -> None:
    random = np.random.default_rng(0)
    rows, leads = random.normal(size=(3000, 3)).astype(np.float32), random.normal(size=3000)
    made = presence(3, quantile=0.1, window=500, half_life=200)
    run(made, rows, leads=leads)
    asked = np.zeros((3, 3), np.float32)
    found = run(made, asked, learned=False, leads=np.array([4.0, 0.0, -8.0]))
    np.testing.assert_allclose(np.diff(found.scores), np.diff([4.0, 0.0, -8.0]) * 0.5 / leads.std(), rtol=0.15)
    assert found.here.tolist() == [True, True, False]


def test_pools_that_are_always_as_sure_as_each_other_are_told_apart_by_likelihood_alone() -> None:
    """A lead within a hair of what it always was is no evidence."""
    rows = wandering(200, 3)
    made = presence(3)
    run(made, rows, leads=np.full(200, 0.25))
    asked = run(made, rows[-2:], learned=False, leads=np.array([0.25, 0.2501])).scores
    plain = presence(3, lead=0.0)
    run(plain, rows)
    likelihood = run(plain, rows[-2:], learned=False).scores
    np.testing.assert_allclose(np.diff(asked), np.diff(likelihood), atol=0.006)


def test_the_threshold_is_the_quantile_of_the_last_scores() -> None:
    rows = wandering(EVERY + 2 * WINDOW, 3)
    made = presence(3, quantile=0.2)
    run(made, rows)
    arrays = made.state().arrays
    assert arrays["threshold"][0] == np.sort(arrays["scores"])[int(0.2 * WINDOW)]
    assert (arrays["scores"] != 0).all()


def test_nothing_is_past_before_the_window_is_full() -> None:
    rows = wandering(EVERY + WINDOW - 1, 3)
    made = presence(3, quantile=0.5)
    assert run(made, rows).here.all()
    assert not made.arrays()


@pytest.mark.parametrize("columns", [3, 40])
def test_a_stream_that_asks_about_its_present_loses_no_more_than_the_quantile(columns: int) -> None:
    """Within three standard deviations of a share of 2,000 rows by a threshold read from 1,000."""
    rows = np.random.default_rng(0).normal(size=(4000, columns)).astype(np.float32)
    made = presence(columns, quantile=0.1, half_life=300, window=1000, every=25, directions=16)
    past = 1 - run(made, rows).here[2000:].mean()
    assert abs(past - 0.1) < 3 * np.sqrt(0.1 * 0.9 * (1 / 1000 + 1 / 2000))


@pytest.mark.parametrize("columns", [3, 40])
def test_rows_of_long_ago_are_told_from_those_of_now(columns: int) -> None:
    random = np.random.default_rng(0)
    old, new = (random.normal(size=(1500, columns)) + centre for centre in (-1.5, 1.5))
    made = presence(columns, half_life=200, directions=16)
    run(made, np.concatenate([old, new]).astype(np.float32))
    asked = np.concatenate([old[:200], new[-200:]]).astype(np.float32)
    here = run(made, asked, learned=False).here
    assert here[:200].mean() < 0.05
    assert here[200:].mean() > 0.8


def test_a_state_from_before_leads_counted_keeps_what_was_seen_and_scores_anew() -> None:
    rows = wandering(EVERY + 2 * WINDOW, 3)
    made, later = presence(3), presence(3)
    run(made, rows)
    arrays = made.state().arrays
    later.restore(State({name: array for name, array in arrays.items() if name != "per" and not name.startswith("spread_")}))
    np.testing.assert_array_equal(later.state().arrays["scatter"], arrays["scatter"])
    assert not later.arrays()
    run(later, rows[: EVERY + WINDOW])
    assert later.arrays()


def test_a_column_that_never_varies_is_no_evidence() -> None:
    rows = np.concatenate([wandering(200, 2), np.zeros((200, 1), np.float32)], axis=1)
    made = presence(3)
    run(made, rows)
    assert np.isfinite(made.state().arrays["scores"]).all()


def test_asking_changes_nothing_and_no_row_is_kept() -> None:
    rows = wandering(200, 40)
    made = presence(40, directions=8)
    run(made, rows)
    before = made.state().arrays
    run(made, rows + 3, learned=False)
    for name, array in made.state().arrays.items():
        np.testing.assert_array_equal(array, before[name])
        assert 40 not in array.shape
