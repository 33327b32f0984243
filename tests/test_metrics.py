"""Metrics against river, scikit-learn and closed forms."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from river import dummy, utils
from river import metrics as river_metrics
from sklearn.metrics import cohen_kappa_score, recall_score
from sklearn.metrics import log_loss as sklearn_log_loss

from streamlearn.errors import CheckpointError
from streamlearn.metrics import (
    METRICS,
    NO_ANSWER,
    CohenKappa,
    FadingAccuracy,
    LogLoss,
    Majority,
    Metrics,
    NoChange,
    PerClassRecall,
    WindowedAccuracy,
    score,
)
from streamlearn.records import State

ROWS, CLASSES = 3000, 6


def stream(seed=0, rows=ROWS):
    """Labels that come in runs, and logits that know the label about half of the time."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(draw.integers(0, CLASSES, rows), draw.integers(1, 4, rows))[:rows]
    logits = draw.normal(size=(rows, CLASSES)).astype(np.float32)
    logits[np.arange(rows), labels] += 1.2
    return labels, logits


def fading_mean(values, fade):
    """Σ fade^(n-i) v_i / Σ fade^(n-i), by matrix product."""
    weights = fade ** np.arange(len(values))[::-1]
    return float(weights @ np.asarray(values, float) / weights.sum())


@pytest.mark.parametrize("fade", [1.0, 0.999, 0.5])
def test_fading_accuracy_is_the_exponentially_weighted_mean_of_hits(fade):
    labels, logits = stream()
    metric = FadingAccuracy(fade)
    metric.update(labels, logits)
    assert metric.values()["accuracy"] == pytest.approx(fading_mean(logits.argmax(1) == labels, fade), rel=1e-9)


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_windowed_accuracy_is_that_of_a_rolling_river_metric(window):
    labels, logits = stream()
    metric, oracle = WindowedAccuracy(window), utils.Rolling(river_metrics.Accuracy, window_size=window)
    for i in range(0, 1500, 100):
        metric.update(labels[i : i + 100], logits[i : i + 100])
        for label, guess in zip(labels[i : i + 100].tolist(), logits[i : i + 100].argmax(1).tolist(), strict=True):
            oracle.update(label, guess)
        assert metric.values()["windowed_accuracy"] == pytest.approx(oracle.get(), rel=1e-12)


@pytest.mark.parametrize("window", [50, 1000])
def test_kappa_is_that_of_sklearn_and_of_a_rolling_river_metric(window):
    labels, logits = stream()
    metric, oracle = CohenKappa(window), utils.Rolling(river_metrics.CohenKappa, window_size=window)
    for end in range(200, ROWS + 1, 200):
        metric.update(labels[end - 200 : end], logits[end - 200 : end])
        for label, guess in zip(labels[end - 200 : end].tolist(), logits[end - 200 : end].argmax(1).tolist(), strict=True):
            oracle.update(label, guess)
        last = slice(max(0, end - window), end)
        expected = cohen_kappa_score(labels[last], logits[last].argmax(1))
        assert metric.values()["kappa"] == pytest.approx(expected, rel=1e-9)
        assert metric.values()["kappa"] == pytest.approx(oracle.get(), rel=1e-9)


def test_kappa_is_undefined_where_every_row_is_one_label_and_every_guess_it():
    metric = CohenKappa(10)
    metric.update(np.zeros(5, np.int64), np.array([[1.0, 0.0]] * 5, np.float32))
    assert math.isnan(metric.values()["kappa"])


def test_recall_without_fading_is_that_of_sklearn():
    labels, logits = stream()
    metric = PerClassRecall(1.0, CLASSES)
    metric.update(labels, logits)
    expected = recall_score(labels, logits.argmax(1), average=None, labels=range(CLASSES))
    values = metric.values()
    assert [values[f"recall/{row}"] for row in range(CLASSES)] == pytest.approx(expected.tolist(), rel=1e-12)
    assert values["balanced_accuracy"] == pytest.approx(expected.mean(), rel=1e-12)
    assert "recall/other" not in values


def test_recall_fades_over_the_rows_of_the_class_itself():
    labels, logits = stream()
    metric = PerClassRecall(0.9, CLASSES)
    metric.update(labels, logits)
    for row in range(CLASSES):
        own = labels == row
        assert metric.values()[f"recall/{row}"] == pytest.approx(fading_mean(logits[own].argmax(1) == row, 0.9), rel=1e-9)


def test_recall_names_the_most_frequent_labels_and_pools_the_rest():
    labels = np.array([4] * 5 + [2] * 5 + [0] * 3 + [1] * 2 + [3])
    right = np.array([1] * 5 + [0] * 5 + [1] * 3 + [0, 1] + [0], bool)
    logits = np.zeros((len(labels), 6), np.float32)
    logits[np.arange(len(labels)), np.where(right, labels, 5)] = 1
    metric = PerClassRecall(1.0, 3)
    metric.update(labels, logits)
    values = metric.values()
    assert {name: values[name] for name in values if name.startswith("recall/")} == {
        "recall/0": 1.0,
        "recall/2": 0.0,
        "recall/4": 1.0,
        "recall/other": pytest.approx(1 / 3),
    }


def test_log_loss_without_fading_is_that_of_sklearn():
    labels, logits = stream()
    metric = LogLoss(1.0, 1e-12)
    metric.update(labels, logits)
    odds = np.exp(logits.astype(np.float64))
    expected = sklearn_log_loss(labels, odds / odds.sum(1, keepdims=True), labels=range(CLASSES))
    assert metric.values()["log_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("label", "logits"),
    [(0, np.zeros((1, 0))), (3, [[1.0, 2.0]]), (0, [[-np.inf, 2.0]]), (0, [[-np.inf, -np.inf]]), (0, [[0.0, 99.0]])],
    ids=["no label learned", "label above all columns", "label not learned", "nothing learned", "probability below floor"],
)
def test_a_label_that_had_no_probability_costs_the_floor(label, logits):
    metric = LogLoss(1.0, 1e-6)
    metric.update(np.array([label]), np.asarray(logits, np.float32))
    assert metric.values()["log_loss"] == pytest.approx(6 * math.log(10), rel=1e-12)


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_logits_without_a_finite_maximum_are_no_answer_and_touch_no_other_row(worst):
    logits = np.array([[0.0, worst, 3e38], [0.0, 1.0, -np.inf]], np.float32)
    answers = score(np.array([2, 1]), logits)
    assert answers.guesses == [NO_ANSWER, 1]
    assert answers.log_probabilities == [-math.inf, pytest.approx(1 - math.log(1 + math.e))]
    assert answers.errors == [1.0, 0.0]


def test_the_surprise_is_what_the_answer_left_to_other_labels():
    """Logits log 3 and 0 are probabilities 3/4 and 1/4; a label beyond the columns had none, and one of two is 0."""
    logits = np.array([[np.log(3), 0.0], [np.log(3), 0.0], [0.0, 0.0], [5.0, -np.inf]], np.float32)
    found = score(np.array([0, 1, 2, 0]), logits).surprises
    assert found == [pytest.approx(0.25), pytest.approx(0.75), 1.0, 0.0]
    assert math.copysign(1.0, found[3]) == 1.0
    assert score(np.array([0]), np.zeros((1, 0), np.float32)).surprises == [1.0]


def test_no_change_is_right_where_a_label_repeats():
    labels, logits = stream()
    metric = NoChange(1.0)
    metric.update(labels, logits)
    repeats = sum(a == b for a, b in pairwise(labels.tolist()))
    assert metric.values()["no_change_accuracy"] == pytest.approx(repeats / ROWS, rel=1e-12)


def test_majority_answers_as_river_does():
    labels, logits = stream()
    metric, oracle = Majority(1.0), dummy.PriorClassifier()
    hits = 0
    for label in labels.tolist():
        hits += oracle.predict_one({}) == label
        oracle.learn_one({}, label)
    metric.update(labels, logits)
    assert metric.values()["majority_accuracy"] == pytest.approx(hits / ROWS, abs=0.01)  # ties are broken differently


def test_majority_keeps_to_the_label_that_got_there_first():
    metric = Majority(1.0)
    metric.update(np.array([1, 0, 0, 1, 1]), np.zeros((5, 0)))  # answers: none, 1, 1 (of equals), 0, 0 (of equals)
    assert metric.values()["majority_accuracy"] == 0.0
    metric.update(np.array([1]), np.zeros((1, 0)))
    assert metric.values()["majority_accuracy"] == pytest.approx(1 / 6)


def test_the_bundle_says_what_each_metric_says_alone():
    labels, logits = stream()
    bundle, alone = Metrics.of(Metrics.Settings()), Metrics.of(Metrics.Settings())
    answers = bundle.update(labels, logits)
    for part in alone.parts.values():
        part.update(labels, logits)
    expected = {name: value for part in alone.parts.values() for name, value in part.values().items()}
    assert bundle.values() == expected
    assert answers.errors == (logits.argmax(1) != labels).astype(float).tolist()
    assert list(bundle.parts) == list(METRICS)


def test_settings_reach_the_metrics():
    settings = Metrics.Settings(fade=0.5, window=3, class_fade=0.25, top_labels=1, loss_floor=0.1)
    labels, logits = stream()
    bundle = Metrics.of(settings)
    bundle.update(labels, logits)
    values, hits = bundle.values(), logits.argmax(1) == labels
    assert values["accuracy"] == pytest.approx(fading_mean(hits, 0.5))
    assert values["windowed_accuracy"] == pytest.approx(hits[-3:].mean())
    assert values["no_change_accuracy"] == pytest.approx(fading_mean(labels == np.roll(labels, 1), 0.5), abs=1e-9)
    top = int(np.bincount(labels).argmax())
    assert values[f"recall/{top}"] == pytest.approx(fading_mean(hits[labels == top], 0.25))
    assert sorted(name for name in values if name.startswith("recall/")) == sorted([f"recall/{top}", "recall/other"])
    assert values["log_loss"] <= -math.log(0.1)


def test_a_narrower_window_keeps_the_newest_rows_of_a_wider_one():
    labels, logits = stream()
    hits = logits.argmax(1) == labels
    for wide, narrow, name in [
        (WindowedAccuracy(100), WindowedAccuracy(10), "windowed_accuracy"),
        (CohenKappa(100), CohenKappa(10), "kappa"),
    ]:
        wide.update(labels, logits)
        narrow.restore(wide.state())
        expected = hits[-10:].mean() if name == "windowed_accuracy" else cohen_kappa_score(labels[-10:], logits[-10:].argmax(1))
        assert narrow.values()[name] == pytest.approx(expected)


def test_the_bundles_state_goes_through_json_and_arrays_unchanged():
    labels, logits = stream()
    one, other = Metrics.of(Metrics.Settings()), Metrics.of(Metrics.Settings())
    one.update(labels, logits)
    saved = one.state()
    other.restore(State(saved.arrays, json.loads(json.dumps(saved.values, allow_nan=False))))
    for bundle in (one, other):
        bundle.update(labels[::-1].copy(), logits[::-1].copy())
    assert one.values() == other.values()


def test_a_state_without_a_metric_is_refused_by_its_name():
    bundle = Metrics.of(Metrics.Settings())
    saved = State.nest({name: part.state() for name, part in bundle.parts.items() if name != "log_loss"})
    with pytest.raises(CheckpointError, match="metric 'log_loss': the checkpoint lacks 'total'"):
        bundle.restore(saved)


def test_columns_of_labels_not_learned_change_no_bit_wherever_they_stand():
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(0, 5, 5000), draw.normal(size=(5000, 11)).astype(np.float32) / 8
    wide = np.full((5000, 300), -np.inf, np.float32)
    wide[:, :5], wide[:, 200:206] = logits[:, :5], logits[:, 5:]
    assert score(labels, wide).log_probabilities == score(labels, logits).log_probabilities
