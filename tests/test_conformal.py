"""Adaptive conformal sets: the paper's equation, slow and obvious; its bound, against an adversary; and checkpoints."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.testbed.small import keys, samples
from streamlearn import assemble
from streamlearn.config import configure
from streamlearn.conformal import EVERY_LABEL, NO_LABEL, SLACK, Conformal
from streamlearn.daemon import recover
from streamlearn.metrics import score
from streamlearn.serving.forms import form_named
from streamlearn.serving.open_inference import Question
from streamlearn.serving.served import Served
from streamlearn.snapshot import Reference

CLASSES = 6


def fed(conformal, labels, logits):
    conformal.update(score(labels, logits), logits)


def draws(rows, seed=0):
    random = np.random.default_rng(seed)
    logits = (2.0 * random.normal(size=(rows, CLASSES))).astype(np.float32)
    return random.integers(0, CLASSES, rows), logits


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


class Slow:
    """Eq. 2, word by word, from numpy's quantile of the last scores."""

    def __init__(self, coverage, rate, window):
        self.wanted, self.rate, self.window = 1 - coverage, rate, window
        self.alpha, self.scores, self.errors = 1 - coverage, [], []

    def threshold(self):
        scores = np.sort(self.scores[-self.window :])
        level = (1 - self.alpha) * (len(scores) + 1)
        if self.alpha >= 1:
            return NO_LABEL
        return EVERY_LABEL if level > len(scores) else scores[math.ceil(level) - 1] + SLACK

    def step(self, p):
        error = float(1 - p > self.threshold())
        self.errors.append(error)
        self.alpha += self.rate * (self.wanted - error)
        self.scores.append(1 - p)


@pytest.mark.parametrize(("coverage", "rate", "window"), [(0.9, 0.005, 1000), (0.5, 0.1, 20), (0.99, 0.05, 100)])
def test_it_follows_the_papers_equation_row_by_row(coverage, rate, window):
    conformal = Conformal(Conformal.Settings(coverages=(coverage,), rate=rate, window=window))
    slow, (labels, logits) = Slow(coverage, rate, window), draws(500)
    for i, p in enumerate(softmax(logits)[np.arange(500), labels]):
        assert conformal.thresholds()[coverage] == pytest.approx(slow.threshold(), abs=1e-12)
        fed(conformal, labels[i : i + 1], logits[i : i + 1])
        slow.step(p)
    found, _ = conformal.values()[coverage]
    assert found == pytest.approx(1 - np.mean(slow.errors[-window:]))


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.99])
def test_against_an_adversary_coverage_is_within_the_papers_bound(coverage):
    """Who sees each threshold first makes a label miss whenever that can be: just beyond it, or hit where no label can miss."""
    rate, rows = 0.01, 4000
    conformal = Conformal(Conformal.Settings(coverages=(coverage,), rate=rate, window=rows))
    for _ in range(rows):
        threshold = conformal.thresholds()[coverage]
        p = 0.0005 if threshold >= 1 else max(1e-9, 1 - threshold - 1e-6 if threshold >= 0 else 1.0)
        fed(conformal, np.array([0]), np.log(np.array([[p, 1 - min(p, 1 - 1e-12)]], np.float64)))
    found, _ = conformal.values()[coverage]
    alpha = 1 - coverage
    assert abs((1 - found) - alpha) <= (max(alpha, 1 - alpha) + rate) / (rate * rows)


def test_when_the_model_turns_bad_sets_grow_until_they_hold_the_label_again():
    conformal = Conformal(Conformal.Settings(coverages=(0.9,), rate=0.02, window=200))
    good = np.full((1000, CLASSES), -3.0, np.float32)
    good[np.arange(1000), np.arange(1000) % CLASSES] = 3.0
    fed(conformal, np.arange(1000) % CLASSES, good)
    (before, small), labels = conformal.values()[0.9], (np.arange(1000) + 1) % CLASSES
    fed(conformal, labels, good)
    after, large = conformal.values()[0.9]
    assert before >= 0.9
    assert after == pytest.approx(0.9, abs=0.05)
    assert large > small + 1


def test_a_label_that_was_never_learned_is_a_miss_and_does_not_break_what_follows():
    conformal = Conformal(Conformal.Settings(coverages=(0.9,), rate=0.05, window=50))
    empty = np.zeros((3, 0), np.float32)
    fed(conformal, np.zeros(3, np.int64), empty)
    assert conformal.values()[0.9] == (0.0, 0.0)
    fed(conformal, np.full(500, 9), draws(500)[1])
    assert conformal.values()[0.9][0] == 0.0
    labels, logits = draws(200, seed=1)
    fed(conformal, labels, logits)
    assert 0.8 <= conformal.values()[0.9][0] < 1.0, "sets do not stay as large as they can be"


@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), max_size=5), st.sampled_from([20, 100]))
def test_how_rows_are_cut_and_a_checkpoint_between_them_change_nothing(seed, cuts, window):
    labels, logits = draws(60, seed)
    logits[:10, 3:] = -np.inf
    settings = Conformal.Settings(coverages=(0.7, 0.9), rate=0.05, window=window)
    whole, cut = Conformal(settings), Conformal(settings)
    fed(whole, labels, logits)
    edges = [0, *sorted(cuts), 60]
    for begin, end in pairwise(edges):
        width = int(np.isfinite(logits[begin:end]).any(0).sum())  # as many columns as the rows of a call need
        fed(cut, labels[begin:end], logits[begin:end, :width])
        state = cut.state()
        cut = Conformal(settings)
        cut.restore(type(state)(state.arrays, json.loads(json.dumps(state.values))))
    one, other = whole.state(), cut.state()
    assert one.values == other.values
    assert all(one.arrays[name].tobytes() == other.arrays[name].tobytes() for name in one.arrays)


def test_what_an_older_program_wrote_begins_anew():
    conformal = Conformal(Conformal.Settings())
    fed(conformal, *draws(50))
    conformal.restore(type(conformal.state())())
    assert conformal.thresholds() == {0.9: EVERY_LABEL, 0.95: EVERY_LABEL}
    assert all(math.isnan(each) for values in conformal.values().values() for each in values)


@pytest.mark.parametrize("coverages", [(0.0,), (1.0,), (0.9, 0.9), tuple(i / 10 for i in range(1, 10))])
def test_coverages_that_cannot_be_promised_are_refused(coverages):
    with pytest.raises(ValueError, match="expected at most 8 between 0 and 1, none of them twice"):
        Conformal.Settings(coverages=coverages)


def test_a_set_that_is_served_is_one_whose_coverage_was_counted_and_asking_changes_nothing(tmp_path):
    (tmp_path / "samples.jsonl").write_bytes(b"".join(each + b"\n" for each in samples(600)))
    state = tmp_path / "state"
    state.mkdir()
    values = keys(state, {"type": "file", "path": str(tmp_path / "samples.jsonl")})
    values["learner"] = {"name": "sgd"}
    values["conformal"] = {"coverages": [0.8], "rate": 0.02, "window": 500}
    config = configure(values)
    loop = assemble.prequential(config, state_dir=state, publisher=Reference())
    recover(loop)
    prefetch = assemble.prefetch(config, loop.intake, {})
    prefetch.start()
    while not loop.intake.drained:
        loop.turn(1.0)
    prefetch.stop(5.0)
    coverage, size = loop.conformal.values()[0.8]
    assert coverage == pytest.approx(0.8, abs=0.06)
    assert 0.8 <= size < 4
    snapshot, before = loop.snapshot(), loop.checkpoint()
    assert snapshot.sets == loop.conformal.thresholds()
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    answer = Served.of(snapshot, form_named).answer(Question(x, (), None, "auto", sets=0.8))
    assert (answer.members(0.8) == (1 - softmax(loop.learner.predict(x)) <= snapshot.sets[0.8])).all()
    assert loop.checkpoint().model_digest == before.model_digest
    again = assemble.prequential(config, state_dir=state, publisher=Reference())
    again.restore(before)
    assert again.conformal.values() == loop.conformal.values()
    assert again.snapshot().sets == snapshot.sets
    for each in (loop, again):
        each.writer.close()
        each.journal.close()
        each.close()
