"""The probe: what it takes, what it holds, what it says; against counts and formulas made by hand."""

import math
import random
from collections import Counter

import msgspec
import numpy as np
import pytest

from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.errors import CheckpointError
from streamlearn.probe import Probe, Settings
from tests.late import LateDecoder
from tests.late import stream as late_stream


def probe(**settings):
    return Probe(Settings(**{"share": 0.5, "first_rows": 0} | settings), seed=3)


def fed(made, labels, *, marks=None):
    """Offers x = its own number, one class after the other as told; the numbers that were taken."""
    taken = []
    for i, label in enumerate(labels):
        if made.offer(np.array([i], np.float32), label):
            taken.append(i)
        if made.is_due and marks is not None:
            made.score(marks)
    return taken


def test_it_takes_its_share_and_none_of_the_first_rows_of_a_label():
    made = probe(share=0.1, first_rows=5)
    labels = [0] * 5 + [1] * 5 + [0, 1] * 10_000
    taken = fed(made, labels)
    assert min(taken) >= 10
    assert made.taken == len(taken)
    assert abs(len(taken) / 20_000 - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 20_000)
    assert fed(probe(share=0.1, first_rows=5), labels) == taken, "the draw is seeded"
    assert fed(Probe(Settings(share=0.1, first_rows=5), seed=4), labels) != taken
    assert fed(probe(share=0.0), labels) == []


def test_room_is_bounded_and_shared_by_eras_and_classes():
    made = probe(max_rows=200, max_eras=4, era_records=1000, score_every=10**9)
    draw = random.Random(1)
    fed(made, [0 if draw.random() < 0.9 else draw.randint(1, 4) for _ in range(4000)])
    for era in made.eras:
        held = {label: len(rows) for label, rows in era.rows.items()}
        assert sum(held.values()) == 50
        assert all(n >= min(9, era.offered[label]) for label, n in held.items()), (
            "rare classes are held as much as the frequent one"
        )
        assert era.offered.total() > 400
    made = probe(max_rows=10**6, max_bytes=400, max_eras=2, era_records=300, score_every=10**9)
    fed(made, [0, 1] * 300)
    assert [len(era) for era in made.eras] == [50, 50]


def test_within_a_class_every_row_is_as_likely_to_be_held():
    """Over many seeds, rows from each tenth of an era are held equally often."""
    held = Counter()
    for seed in range(200):
        made = Probe(Settings(share=0.5, first_rows=0, max_rows=40, max_eras=2, era_records=400, score_every=10**9), seed=seed)
        fed(made, [0] * 400)
        held.update(int(x[0]) // 40 for x in made.eras[0].rows[0])
    expected = 200 * 20 / 10
    assert sum(held.values()) == 200 * 20
    assert sum((held[i] - expected) ** 2 / expected for i in range(10)) < 27.9  # chi-square of 9 degrees, 0.1 %


def knows(fade):
    """A model that answers right on rows by their number: `fade(number, seen)` says whether, after `seen` rows."""

    def predict(x, about):
        right = np.array([fade(int(number), about) for number in x[:, 0]])
        logits = np.zeros((len(x), 2), np.float32)
        logits[np.arange(len(x)), np.where(right, x[:, 0].astype(int) % 2, 1 - x[:, 0].astype(int) % 2)] = 1.0
        return logits

    return predict


def test_retention_forgetting_and_backward_transfer_are_the_formulas_of_the_papers():
    """Three eras of 100 rows. The model knows all of the newest era, half of the one before, nothing older."""
    made = probe(share=0.5, max_rows=4000, max_eras=4, era_records=100, score_every=10**9)
    seen = [0]

    def fade(number, about):
        age = (seen[0] - 1) // 100 - number // 100
        return age == 0 or (age == 1 and number % 4 < 2) or about == "ever"

    matrix = []
    for i in range(300):
        seen[0] = i + 1
        made.offer(np.array([i], np.float32), i % 2)
        if made.is_due:
            made.score(knows(fade))
            held = [[int(x[0]) for rows in era.rows.values() for x in rows] for era in made.eras]
            shares = []
            for era, numbers in zip(made.eras, held, strict=True):
                by_class = {c: [fade(n, "auto") for n in numbers if n % 2 == c] for c in (0, 1)}
                shares.append(sum(np.mean(v) * era.offered[c] for c, v in by_class.items()) / era.offered.total())
            matrix.append(shares)
    assert made.scores == 3
    assert made.now["ever"] == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(made.now["auto"], matrix[2])
    values = made.values()
    assert values["retention/auto"] == pytest.approx(np.mean(matrix[2]))
    best = [max(row[e] for row in matrix[e:]) for e in range(3)]
    assert values["forgetting/auto"] == pytest.approx(np.mean([b - n for b, n in zip(best, matrix[2], strict=True)]))
    assert values["backward_transfer/auto"] == pytest.approx(np.mean([matrix[2][e] - matrix[e][e] for e in range(3)]))
    assert values["forgetting/auto"] > 0.4
    assert values["forgetting/ever"] == values["backward_transfer/ever"] == 0.0
    assert [value for value, _ in made.best_of_eras()] == pytest.approx(best)
    assert [at for _, at in made.best_of_eras()] == [100, 200, 300], "each was known best at its own end"
    assert made.accuracy_matrix() == [*matrix, matrix[2]] or made.accuracy_matrix()[-1] == pytest.approx(matrix[2])


def test_each_class_counts_by_how_often_it_came_and_the_worst_is_named():
    made = probe(max_rows=400, max_eras=2, era_records=1000, score_every=10**9)
    draw = random.Random(5)
    labels = [int(draw.random() < 0.1) for _ in range(1000)]

    def zero(x, about):
        return np.tile(np.array([1.0, 0.0], np.float32), (len(x), 1))

    fed(made, labels, marks=zero)
    offered = made.eras[0].offered
    assert made.now["auto"] == [offered[0] / offered.total()]
    assert made.classes == {0: 1.0, 1: 0.0}
    assert made.values()["worst_class"] == 0.0
    made.score(lambda x, about: 1.0 - zero(x, about))
    assert made.values()["worst_drop"] == 1.0
    assert made.best[0] == (1.0, 1000)
    assert made.values()["worst_best_age"] == 0.0


def test_the_time_of_the_best_is_told_of_eras_and_of_the_class_that_fell_furthest():
    """Four eras of 100 rows. Label 0 is known at the first two ends, label 1 at the second alone, both not from then on."""
    made = probe(share=0.5, max_rows=4000, max_eras=4, era_records=100, score_every=50)
    known_at = {100: {0}, 200: {0, 1}, 250: {0, 1}, 300: {1}, 350: set(), 400: {0}}

    def predict(x, about):
        numbers = x[:, 0].astype(int)
        right = [int(number % 2) in known_at.get(made.records, set()) for number in numbers]
        return np.eye(2, dtype=np.float32)[np.where(right, numbers % 2, 1 - numbers % 2)]

    fed(made, [0, 1] * 125, marks=predict)
    assert [at for _, at in made.best_of_eras()[:2]] == [200, 200]
    assert made.best_of_eras()[2] is None, "its end is not yet"
    fed(made, [0, 1] * 50, marks=predict)  # up to 350 of them: nothing is known
    assert {label: at for label, (_, at) in made.best.items()} == {0: 100, 1: 200}, "the first of equals"
    values = made.values()
    assert (values["worst_drop"], values["worst_best_age"]) == (1.0, 250.0), "label 0, the first of those that lost all"
    assert [at for _, at in made.best_of_eras()[:3]] == [200, 200, 300]
    best = [value for value, _ in made.best_of_eras()[:2]]
    assert best == [1.0, 1.0]


def test_eras_become_longer_and_their_number_stays_bounded():
    made = probe(max_rows=400, max_eras=4, era_records=100, score_every=10**9)
    fed(made, [0, 1] * 1500, marks=knows(lambda number, _: number >= 400))
    assert made.era_records == 800
    assert len(made.eras) == 4
    assert all(len(era) <= 100 for era in made.eras)
    assert sum(era.offered.total() for era in made.eras) == made.taken
    first = [int(x[0]) for rows in made.eras[0].rows.values() for x in rows]
    assert max(first) < 800
    assert abs(np.mean(first) - 400) < 4 * 231 / math.sqrt(len(first)), "all parts of a joined era are still there"
    assert made.now["auto"][0] == pytest.approx(np.mean([n >= 400 for n in first]), abs=0.02)
    assert [len(row) for row in made.matrix["auto"]] == [1, 2, 3]


def test_a_state_goes_round_and_goes_on_as_if_nothing_had_been():
    draw = random.Random(6)
    labels = [draw.randint(0, 3) for _ in range(2500)]
    marks = knows(lambda number, _: number % 3 > 0)
    straight = probe(max_rows=80, max_eras=4, era_records=100, score_every=70)
    fed(straight, labels, marks=marks)
    halted = probe(max_rows=80, max_eras=4, era_records=100, score_every=70)
    fed(halted, labels[:1234], marks=marks)
    again = probe(max_rows=80, max_eras=4, era_records=100, score_every=70)
    again.restore(halted.state())
    for i, label in enumerate(labels[1234:], start=1234):
        again.offer(np.array([i], np.float32), label)
        if again.is_due:
            again.score(marks)
    one, other = straight.state(), again.state()
    assert one.values == other.values
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])
    msgspec.json.encode(one.values)  # no NaN
    with pytest.raises(CheckpointError, match="max_eras"):
        probe(max_eras=2).restore(one)
    fresh = probe()
    fresh.restore(one.under("nothing"))
    assert fresh.records == 0


def test_records_go_to_the_learner_or_to_the_probe_and_the_digest_does_not_depend_on_polls(tmp_path):
    values, digests = late_stream(400, 4), set()
    for seed in range(5):
        draw = random.Random(seed)
        source = MemorySource({"a[0]": values}, poll_size=lambda draw=draw: draw.randint(1, 30))
        made = probe(share=0.3, era_records=40, score_every=7, max_eras=4, max_rows=40)
        with started(tmp_path / str(seed), source, decoder=LateDecoder(), probe=made, seed=seed) as loop:
            drain(loop)
            digests.add(loop.checkpoint().state_digest)
            outcomes = loop.outcomes()
            assert sum(outcomes.values()) + sum(loop.waiting().values()) == 400
            assert outcomes["probe"] == made.taken > 20
            held = {float(x[0]) for era in made.eras for rows in era.rows.values() for x in rows}
            assert held
            assert not held & set(loop.learner.seen), "what is tested was never learned"
            assert made.scores > 10
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_turns_the_probe_ends_as_undisturbed(tmp_path, seed):
    draw, values = random.Random(seed), late_stream(200, seed)

    def life(folder):
        source = MemorySource({"a[0]": values}, poll_size=lambda: draw.randint(1, 9))
        made = probe(share=0.3, era_records=40, score_every=7, max_eras=4, max_rows=40)
        return started(tmp_path / folder, source, decoder=LateDecoder(), probe=made, seed=draw.random())

    kills = 0
    while True:
        with life("killed") as loop:
            for _ in range(draw.randint(1, 12)):
                if not loop.intake.drained:
                    loop.turn(1.0)
            if loop.intake.drained:
                killed = loop.checkpoint().state_digest
                break
            kills += 1
    with life("straight") as loop:
        drain(loop)
        assert loop.checkpoint().state_digest == killed
    assert kills > 0
