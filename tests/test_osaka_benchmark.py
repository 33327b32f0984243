"""The stream after OSAKA is what it says, and what is asked was not learned yet."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import osaka
from benchmarks.osaka import World, make, run, score, stream
from benchmarks.osaka_plan import ROWS, SHARES, WAYS
from benchmarks.osaka_report import table
from streamlearn.learners.continual_maml import ContinualMAML
from streamlearn.records import Batch


def world(classes: int, seed: int) -> World:
    """Twelve noisy copies of a pattern for each class."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), 12)
    patterns = random.integers(0, 200, (classes, 28, 28))
    return osaka._world((patterns[y] + random.integers(0, 55, (len(y), 28, 28))).astype(np.uint8), y)


WORLDS = {
    name: world(classes, seed)
    for seed, (name, classes) in enumerate({"Omniglot": 30, "MNIST": 10, "Fashion-MNIST": 10}.items())
}


def test_tasks_last_as_long_and_come_from_where_they_should():
    chunks = list(stream(WORLDS, stays=0.9, steps=3000, seed=0))
    first = [chunk for chunk in chunks if chunk.is_new]
    assert len(first) / len(chunks) == pytest.approx(0.1, abs=0.02)
    for name, share in SHARES.items():
        assert np.mean([chunk.world == name for chunk in first]) == pytest.approx(share, abs=0.07)
    assert all(sorted(chunk.y.tolist()) == sorted([*range(WAYS)] * 5) for chunk in chunks)


def test_within_a_task_a_label_is_one_class_and_another_task_orders_them_anew():
    chunks = list(stream(WORLDS, stays=0.5, steps=40, seed=1))
    patterns = {(name, c): w.x[rows].astype(float).mean(0) for name, w in WORLDS.items() for c, rows in enumerate(w.by_class)}
    keys, means = list(patterns), np.stack(list(patterns.values())).reshape(len(patterns), -1)
    orders, task = [], None
    for chunk in chunks:
        nearest = ((chunk.x.reshape(50, 1, -1) - means[None]) ** 2).sum(2).argmin(1)
        order = [{keys[n] for n in nearest[chunk.y == label]} for label in range(WAYS)]
        assert all(len(found) == 1 and next(iter(found))[0] == chunk.world for found in order)
        assert len(set.union(*order)) == WAYS
        assert chunk.is_new or order == task
        if chunk.is_new:
            orders.append((chunk.world, order))
        task = order
    digits = [order for name, order in orders if name == "MNIST"]
    assert len(digits) > 1
    assert digits[0] != digits[1]


def test_answers_count_before_their_labels_are_learned_and_switches_where_they_are():
    """A stand-in that repeats the labels of the chunk before, and calls every third chunk a switch."""

    class Parrot:
        said, number = None, 0

        def learn(self, batch: Batch) -> object:
            answers = np.zeros((len(batch), 0)) if self.said is None else np.eye(WAYS)[self.said]
            self.said, self.number = batch.labels, self.number + 1
            return type("Report", (), {"logits": answers, "measures": {"context_switch": float(self.number % 3 == 0)}})

    chunks = list(stream(WORLDS, stays=0.5, steps=30, seed=2))
    found = score(Parrot(), chunks)
    hits = [0.0, *(100 * float((a.y == b.y).mean()) for a, b in pairwise(chunks))]
    assert found["all"] == pytest.approx(np.mean(hits))
    assert found["later"] == pytest.approx(np.mean([h for h, c in zip(hits, chunks, strict=True) if not c.is_new]))
    said = [(n + 1) % 3 == 0 for n in range(30)]
    new = [n for n, c in enumerate(chunks) if c.is_new and n]
    assert found["found"] == pytest.approx(100 * np.mean([said[n] for n in new]))


def test_settings_are_chosen_on_a_stream_of_another_seed(monkeypatch):
    asked = []
    drawn = osaka.stream
    monkeypatch.setattr(osaka, "stream", lambda *a, **k: asked.append(k["seed"]) or drawn(*a, **k))
    found = run(WORLDS, ROWS["sgd"], stays=0.9, seed=3, start=None, steps=4)
    assert asked == [1003, 3]
    assert found["chosen"] == dict(ROWS["sgd"].tried[int(np.argmax(found["tried"]))])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_learner_of_these_chunks(row, monkeypatch):
    monkeypatch.setattr(osaka, "PRE_STEPS", 2)
    start = osaka.pre_trained(world(110, 9), 0) if ROWS[row].is_warm else None
    for own in ROWS[row].tried:
        learner = make(ROWS[row], own, start, 0)
    assert score(learner, stream(WORLDS, stays=0.9, steps=3, seed=0))["all"] >= 0
    detects = isinstance(learner, ContinualMAML) and learner.settings.switch_share is not None
    assert detects == (row in ("continual-maml", "pre-trained"))


def test_what_was_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(osaka, "worlds", lambda: (WORLDS, world(20, 9)))
    ran = []
    monkeypatch.setattr(osaka, "run", lambda _, row, **__: ran.append(row.learner) or cell(50.0 + len(ran)))

    def start(*rows: str) -> dict:
        path = tmp_path / "o.json"
        monkeypatch.setattr(
            sys, "argv", ["osaka", "--results", str(path), "--stays", "0.9", "--seeds", "0", "1", "--rows", *rows]
        )
        osaka.main()
        return json.loads(path.read_text())["runs"]

    first = start("sgd")
    assert ran == ["sgd", "sgd"]
    again = start("sgd", "er")
    assert ran == ["sgd", "sgd", "er", "er"]
    assert first.items() <= again.items()
    text = (tmp_path / "o.md").read_text()
    assert "| `sgd` | 2 | 51.5 ± 0.7 |" in text
    assert "| `la-maml` | 0 | not run |" in text
    assert "Ahead: `er`, 53.5 (mean of the 2 seeds" in text


def cell(right: float) -> dict:
    worlds, said = dict.fromkeys(SHARES, right), {"found": None, "false": None, "cpu_s": 1.0}
    return {"all": right, "first of a task": 10.0, "later": 60.0, **worlds, **said, "chosen": {"learning_rate": 0.1}}


def test_the_table_says_what_detection_is_worth():
    text = table({"0.98/continual-maml/0": cell(40.0), "0.98/no-detection/0": cell(42.5)}, {})
    assert "Ahead: `no-detection`, 42.5 (mean of the 1 seeds that all rows above have that were run)" in text
    assert "Detection is worth -2.5 points." in text


def test_rows_are_compared_on_seeds_that_both_have():
    text = table({"0.9/sgd/0": cell(40.0), "0.9/sgd/1": cell(90.0), "0.9/er/0": cell(50.0)}, {})
    assert "Ahead: `er`, 50.0 (mean of the 1 seeds" in text
