"""Every registered learner keeps its promises on named columns: categories, gaps, heavy tails, a column that is gone."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamlearn.layout import HASHES, Layout
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch
from streamlearn.schema import Column, Schema, bucket
from streamlearn.serving.forms import form_named
from tests.contracts.test_learners import NO_EYES, SMALL, digest

BUCKETS = 64
SCHEMA = Schema(
    (
        Column("heavy", "numeric"),
        Column("colour", "categorical", True, BUCKETS),
        Column("constant", "numeric"),
        Column("must", "numeric", False),
    ),
    slots=16,
)
WHOLE: dict[str, dict[str, Any]] = {"gradient-flow": {"duration": 30.0}, "continual-maml": {"outer_lr": 0.03}}
"""What learners need beside their defaults to learn from a few hundred rows."""
COLOURS = ("red", "green", "blue", "white")
HEAVY, COLOUR, CONSTANT, MUST = range(4)
MISSING = np.nan


def make(name: str, schema: Schema = SCHEMA, *, whole_size: bool = False, **changes: Any) -> Learner:
    module, _, attribute = LEARNERS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    shape, model = (len(schema.columns),), ModelSettings(hidden=(7, 5))
    options = WHOLE.get(name, {}) if whole_size else SMALL.get(name, {})
    return kind(kind.Settings(**options), Task(shape, max_labels=40, model=model, schema=schema, **changes))


def rows(count: int, *, seed: int = 0, gone: bool = False) -> Batch:
    """What colour it is decides the label, mostly; a value in ten is missing."""
    random = np.random.default_rng(seed)
    which = random.integers(0, len(COLOURS), count)
    x = np.zeros((count, 4), np.float32)
    x[:, HEAVY] = random.standard_t(1, count) * 100
    x[:, COLOUR] = [bucket(COLOURS[c], BUCKETS) for c in which]
    x[:, CONSTANT] = 3.0
    x[:, MUST] = random.normal(size=count)
    x[:, :MUST][random.random((count, 3)) < 0.1] = MISSING
    if gone:
        x[:, HEAVY] = MISSING
    return Batch.of(x, which % 3)


def whole(learner: Learner, chunks: int, **options: Any) -> Batch:
    return rows(learner.chunk * chunks, **options)


def check_resuming_equals_a_straight_run_in_other_pieces(make_learner: Callable[..., Learner]) -> None:
    straight, first, second = make_learner(), make_learner(), make_learner()
    batch, chunk = whole(straight, 8), straight.chunk
    expected = straight.learn(batch)
    first.learn(batch[:chunk])
    first.learn(batch[chunk : 4 * chunk])
    second.restore(first.state())
    report = second.learn(batch[4 * chunk :])
    assert digest(second) == digest(straight)
    np.testing.assert_array_equal(report.logits, expected.logits[4 * chunk :])
    assert not expected.rejected.any()


def check_what_is_served_equals_what_is_predicted(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 6))
    x = rows(40, seed=7).x
    x[0, HEAVY], x[1, CONSTANT], x[2, COLOUR] = 1e30, -1e30, bucket("never seen", BUCKETS)
    served = learner.answering()
    answer = form_named(served.form)(served.arrays, served.settings, x)
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(answer, learner.predict(x), rtol=1e-5, atol=1e-5)
    for about in ("now", "ever"):
        named = form_named(served.form)(served.arrays, {**served.settings, "about": about}, x)
        np.testing.assert_allclose(named, learner.predict(x, about=about), rtol=1e-5, atol=1e-5)


def check_asking_about_a_category_never_seen_changes_nothing(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 4))
    x, before = rows(9, seed=5).x, digest(learner)
    answers = learner.predict(x)
    strange = np.concatenate([x, x[:1]])
    strange[-1, COLOUR] = bucket("never seen", BUCKETS)
    np.testing.assert_allclose(learner.predict(strange)[:-1], answers, rtol=1e-6, atol=1e-6)
    assert np.isfinite(learner.predict(strange)).all()
    assert digest(learner) == before


def check_a_column_may_be_gone_for_long_and_come_back(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 4))
    report = learner.learn(rows(1000, seed=1, gone=True))
    assert not report.rejected.any()
    assert np.isfinite(report.logits).all()
    back = learner.learn(whole(learner, 4, seed=2))
    assert not back.rejected.any()
    assert np.isfinite(back.logits).all()


def check_a_row_without_what_must_be_there_is_rejected_alone(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner()
    learner.learn(whole(learner, 3))
    before = learner.predict(rows(6, seed=9).x)
    bad = whole(learner, 1, seed=2)
    bad.x[0, MUST] = MISSING
    bad.labels[-1] = 30
    assert learner.learn(bad).rejected.all()
    np.testing.assert_array_equal(learner.predict(rows(6, seed=9).x), before)


def check_it_learns_from_categories(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner(whole_size=True)
    learner.learn(whole(learner, 600 // learner.chunk))
    test = rows(300, seed=11)
    told = ~np.isnan(test.x[:, COLOUR])
    accuracy = (learner.predict(test.x).argmax(1) == test.labels)[told].mean()
    assert accuracy > 0.75  # of numbers alone it would be a half


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_learner(check: Callable[..., None], name: str) -> None:
    if check is check_it_learns_from_categories and name in NO_EYES:
        pytest.skip(f"{name} does not look at inputs")
    check(lambda **changes: make(name, **changes))


@pytest.mark.parametrize("name", ["pool", "sgd", "nearest-mean"])
def test_rows_of_categories_alone_are_learned(name: str) -> None:
    schema = Schema((Column("colour", "categorical", True, BUCKETS),), slots=16)
    learner, batch = make(name, schema), rows(600)
    learner.learn(Batch.of(batch.x[:, COLOUR : COLOUR + 1], batch.labels))
    test = rows(200, seed=1)
    told = ~np.isnan(test.x[:, COLOUR])
    assert (learner.predict(test.x[:, COLOUR : COLOUR + 1]).argmax(1) == test.labels)[told].mean() > 0.95


LAYOUT = Layout.of(SCHEMA)


def test_a_layout_has_numbers_then_gaps_then_categories() -> None:
    expected = Layout((HEAVY, CONSTANT, MUST), (HEAVY, COLOUR, CONSTANT), (COLOUR,), (BUCKETS,), 16)
    assert expected == LAYOUT
    assert (LAYOUT.features, LAYOUT.dense, LAYOUT.width, LAYOUT.lines) == (4, 6, 22, BUCKETS)
    assert Layout.read(LAYOUT.values()) == LAYOUT


def mixed(code: int, column: int) -> int:
    """SplitMix64 with Python's integers."""
    mask = (1 << 64) - 1
    state = ((code + (column << 32) + 1) * 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_categories_appear_as_a_slow_version_has_them() -> None:
    layout = Layout((), (0, 1), (0, 1), (50, 7), 16)
    codes = np.array([[3, 6], [49, -1], [-1, 0]])
    x = np.where(codes < 0, np.nan, codes).astype(np.float32)
    embedded, places = np.zeros((3, 2, 16)), np.full((3, 2), 0.5)
    for n, j in np.ndindex(3, 2):
        if codes[n, j] >= 0:
            bits = mixed(int(codes[n, j]), j)
            places[n, j] = (bits >> 40) / 2**24
            for k in range(HASHES):
                embedded[n, j, (bits >> (16 * k)) % 16] += 3**-0.5
    np.testing.assert_array_equal(layout.codes(x), codes)
    np.testing.assert_array_equal(layout.table_lines(codes), [[3, 56], [49, -1], [-1, 50]])
    np.testing.assert_allclose(layout.embedded(codes), embedded.reshape(3, 32), rtol=1e-6)
    np.testing.assert_allclose(layout.places(codes), places, rtol=1e-6)
    np.testing.assert_array_equal(layout.missing(x), np.isnan(x))


@pytest.mark.parametrize("found", [50.0, -1.0, np.inf, np.nan, 1e30])
def test_what_is_no_bucket_is_no_category(found: float) -> None:
    layout = Layout((), (0,), (0,), (50,), 16)
    codes = layout.codes(np.array([[found]], np.float32))
    assert codes.tolist() == [[-1]]
    assert not layout.embedded(codes).any()


def slow_statistics(values: Array) -> tuple[float, float]:
    """Mean and deviation, a far value counted as ten deviations, one by one and with every past value at hand."""
    kept: list[float] = []
    for value in values[~np.isnan(values)].astype(np.float64):
        far = len(kept) >= 100 and np.std(kept) > 0
        reach = 10 * np.std(kept) if far else np.inf
        middle = np.mean(kept) if kept else 0.0
        kept.append(float(middle + np.clip(value - middle, -reach, reach)))
    return float(np.mean(kept)), float(np.std(kept))


@pytest.mark.parametrize("name", ["sgd", "pool"])
def test_numbers_are_standardised_as_a_slow_version_does_it(name: str) -> None:
    learner, batch = make(name), rows(400)
    learner.learn(batch)
    arrays = learner.answering().arrays
    part = "input" if name == "sgd" else "columns"
    for j, column in enumerate(LAYOUT.numeric):
        mean, deviation = slow_statistics(batch.x[:, column])
        np.testing.assert_allclose(arrays[f"{part}.mean"][j], mean, rtol=1e-9)
        expected = 0.0 if column == CONSTANT else 1.0 / deviation
        np.testing.assert_allclose(arrays[f"{part}.gain"][j], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["sgd", "pool"])
def test_one_reading_of_a_broken_sensor_flattens_no_column(name: str) -> None:
    learner = make(name)
    batch = rows(400)
    batch.x[:, MUST] = np.random.default_rng(1).normal(size=400)
    batch.x[200, MUST] = 1e30
    learner.learn(batch)
    gain = learner.answering().arrays["input.gain" if name == "sgd" else "columns.gain"][LAYOUT.numeric.index(MUST)]
    assert 0.8 < gain < 1.2
