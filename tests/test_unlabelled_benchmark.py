"""The benchmark of accuracy before the labels come: against truths that are made here."""

import json
import sys

import numpy as np
import pytest

from benchmarks import unlabelled
from benchmarks.stream_data import Stream
from benchmarks.unlabelled import Look, looks, said_of, table
from streamlearn.confidence import Estimate
from streamlearn.records import Answer


def clusters(count=4000, noise=0.3):
    """Two clusters; `noise` of the labels are thrown, so nobody can be right in more than 1 − noise / 2."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, count)
    x = (4 * y[:, None] + random.normal(size=(count, 3))).astype(np.float32)
    thrown = np.where(random.random(count) < noise, random.integers(0, 2, count), y)
    return Stream("clusters", x, thrown.astype(np.int64), whole=True)


def test_on_a_stream_that_stays_as_it_is_the_interval_holds_the_truth():
    made = looks(clusters(), 200, seed=0)
    found = said_of(made)
    assert all(look.waiting >= 200 for look in made)
    assert 80 < found["accuracy"] < 90  # 85 at most
    assert found["within"] >= 80
    assert abs(found["bias"]) < 3
    assert found["error"] < 2 * found["chance"]
    assert found["half_width"] < 10


class Silent:
    """Knows one label, is always as sure, and right in as many of the rows as the label is met."""

    def __init__(self):
        self.learned = []

    def learn(self, batch):
        self.learned += batch.labels.tolist()

    def answer(self, x):
        return Answer(np.tile(np.float32([2.0, 0.0]), (len(x), 1)), np.zeros((len(x), 0), np.float32))


def test_what_waits_is_what_was_answered_and_not_yet_learned(monkeypatch):
    """The label changes at row 500: soon the answers that wait are all wrong, and those whose labels came last all right."""
    model = Silent()
    monkeypatch.setattr(unlabelled, "learner", lambda *_, **__: model)
    y = np.array([0] * 500 + [1] * 300)
    made = looks(Stream("turn", np.zeros((800, 1), np.float32), y, whole=True), 100, seed=0)
    assert model.learned == y[: len(model.learned)].tolist()
    first = next(look for look in made if look.truth == 0)
    assert first.last_known == 1
    assert first.estimate.value > 0.9
    assert made[-1].truth == made[-1].last_known == 0
    assert made[0].estimate.value > 0.9
    assert made[-1].estimate.value < first.estimate.value


def test_figures_by_hand():
    made = [
        Look(Estimate(0.5, 0.6, 0.7), truth=0.8, last_known=0.9, waiting=50),
        Look(Estimate(0.7, 0.8, 0.9), truth=0.75, last_known=0.75, waiting=50),
    ]
    found = said_of(made)
    assert found == {
        "looks": 2,
        "accuracy": 77.5,
        "error": 12.5,
        "last_known": 5.0,
        "chance": pytest.approx(100 * np.sqrt(2 / np.pi) * (np.sqrt(0.16 / 50) + np.sqrt(0.1875 / 50)) / 2, abs=1e-3),
        "bias": -7.5,
        "within": 50.0,
        "half_width": 10.0,
    }
    line = "| made | 1,000 | 2 | 2 | 77.5 ± 0.0 | 12.5 ± 0.0 | 5.0 ± 0.0 |"
    assert line in table({"made/1000/0": found, "made/1000/1": found}, {"python": "3"})


def test_what_was_made_is_not_made_again_and_the_table_is(tmp_path, monkeypatch):
    results = tmp_path / "unlabelled.json"
    monkeypatch.setattr(unlabelled, "stream", lambda _, rows: clusters(rows))
    arguments = ["", "--streams", "clusters", "--delays", "50", "--rows", "600", "--seeds", "0", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", arguments)
    unlabelled.main()
    cells = json.loads(results.read_text())["runs"]
    assert list(cells) == ["clusters/50/0"]
    monkeypatch.setattr(unlabelled, "looks", lambda *_, **__: pytest.fail("made again"))
    unlabelled.main()
    assert "| clusters | 50 | 1 | " in results.with_suffix(".md").read_text()
