"""Drift of the inputs, and what moved: features, projections, categories, missing values, classes."""

import json

import numpy as np
import pytest

from streamlearn.drift import Drift, Features, Mark
from streamlearn.records import State
from streamlearn.schema import Column, Schema

EVERY = pytest.mark.parametrize("detector", ["adwin", "page_hinkley", "kswin"])


def rows(n=9000, width=6, *, at=5000, feature=3, by=1.0, seed=0):
    """Normal rows of very different sizes, one feature of which moves by so many deviations from a row on."""
    x = np.random.default_rng(seed).normal(size=(n, width))
    x[at:, feature] += by
    return (x * 10.0 ** np.arange(width) + 7.0).astype(np.float32)


def watching(width=6, features=None, **inputs):
    settings = Drift.Settings(detectors=(), inputs=inputs)
    return Drift.of(settings, features or Features((width,)))


def found(drift, x, step=10**9):
    errors = [0.0] * len(x)
    parts = [slice(i, i + step) for i in range(0, len(x), step)]
    return [mark for part in parts for mark in drift.update(errors[part], x=x[part])]


@EVERY
def test_a_feature_that_moves_is_found_soon_and_named_with_how_far_it_moved(detector):
    (mark, *_) = found(watching(detectors=[detector]), rows())
    assert 5000 < mark.row < 6000
    assert (mark.detector, mark.on) == (detector, "inputs")
    most = mark.moved[0]
    assert most.which == 3
    assert 0.4 < most.size < 1.4, "of the last 200 rows, some may be from before"
    assert most.now - most.before == pytest.approx(most.size * 1000, rel=0.1)
    assert len(mark.moved) == 5


@EVERY
def test_inputs_that_stay_as_they_are_are_no_drift(detector):
    assert found(watching(detectors=[detector]), rows(20_000, by=0.0)) == []


@EVERY
def test_wide_inputs_are_watched_by_projections_and_their_features_named(detector):
    x = np.random.default_rng(0).normal(size=(9000, 300))
    x[5000:, 40:80] += 1.5
    drift = watching(300, detectors=[detector], projections=16)
    (mark, *_) = found(drift, x.astype(np.float32))
    assert 5000 < mark.row < 6000
    assert all(40 <= each.which < 80 for each in mark.moved)
    assert len(drift.inputs._watches[detector]._detectors) in {0, 32}, "mean and spread of each projection"


@pytest.mark.parametrize("step", [1, 7, 333])
def test_how_many_rows_come_in_one_call_changes_nothing(step):
    x = rows(7000)
    whole, parts = (watching(detectors=["adwin", "page_hinkley"]) for _ in range(2))
    assert found(whole, x) == found(parts, x, step)
    assert len(whole.marks) >= 2
    assert same(whole.state(), parts.state())


def same(one, other):
    assert json.dumps(one.values, allow_nan=False) == json.dumps(other.values)
    assert one.arrays.keys() == other.arrays.keys()
    return all(array.tobytes() == other.arrays[name].tobytes() for name, array in one.arrays.items())


@pytest.mark.parametrize("stop", [0, 13, 490, 1000, 4999, 5203, 6500])
def test_stopped_and_resumed_finds_the_same_and_ends_in_the_same_state(stop):
    x, detectors = rows(8000), ["adwin", "page_hinkley", "kswin"]
    straight, first, second = (watching(detectors=detectors) for _ in range(3))
    found(straight, x)
    found(first, x[:stop])
    saved = first.state()
    second.restore(State(saved.arrays, json.loads(json.dumps(saved.values, allow_nan=False))))
    found(second, x[stop:])
    assert second.marks == straight.marks
    assert len(straight.marks) >= 3
    assert all(isinstance(mark, Mark) for mark in second.marks)
    assert same(straight.state(), second.state())


def test_other_settings_than_those_of_the_checkpoint_begin_anew():
    x = rows(4000)
    old, new, fresh = watching(warm_up=500), watching(warm_up=1500), watching(warm_up=1500)
    found(old, x[:3000])
    new.restore(old.state())
    found(new, x[3000:])
    found(fresh, x[3000:])
    assert same(new.inputs._watches["adwin"].state(), fresh.inputs._watches["adwin"].state())


def test_after_a_detection_it_is_quiet_and_learns_anew_what_is_usual():
    x = np.concatenate([rows(4000, at=2000, by=3.0), rows(8000, at=10**6, by=0) + np.float32([0, 0, 0, 3000, 0, 0])])
    marks = found(watching(refractory=1000, warm_up=600), x)
    assert len(marks) == 1
    x[9000:, 0] += 2.0
    again = found(watching(refractory=1000, warm_up=600), x)
    assert [mark.moved[0].which for mark in again] == [3, 0]
    assert len(found(watching(refractory=10_000, warm_up=600), x)) == 1


def test_a_detection_at_a_label_that_comes_later_counts_the_rows_scored():
    drift, x = watching(), rows(9000)
    drift.update([0.0] * 5100, x=x[:5100])
    marks = [mark for row in x[5100:] for mark in drift.look(row[None])]
    assert [mark.row for mark in marks[:1]] == [5100]
    assert drift.input_counts == {"adwin": len(marks)}
    assert drift.update([0.0] * 10, x=x[:10], new=[]) == ()
    assert drift.inputs.rows == 9000


def wider(n=9000, width=6, *, at=5000, feature=3, by=2.0, seed=0):
    """The same rows, one feature of which is spread wider around the same mean from a row on."""
    x = np.random.default_rng(seed).normal(size=(n, width))
    x[at:, feature] *= by
    return (x * 10.0 ** np.arange(width) + 7.0).astype(np.float32)


@EVERY
@pytest.mark.parametrize("by", [0.4, 2.5])
def test_a_spread_that_changes_around_the_same_mean_is_found_and_named_where_spreads_are_watched(detector, by):
    x = wider(by=by)
    drift = watching(detectors=[detector])
    (mark, *_) = found(drift, x)
    assert 5000 < mark.row < 6000
    most = mark.moved[0]
    assert drift.inputs.names[most.which] == "3 spread"
    assert most.before == pytest.approx(1000, rel=0.15)
    assert most.size == pytest.approx((most.now - most.before) / 1000, rel=0.15)
    assert (most.size > 0) == (by > 1)
    blind = [mark.row for mark in found(watching(detectors=[detector], watch=["mean"]), x)]
    assert blind == [] if by < 1 else min(blind, default=9000) > 6000


def test_the_spread_that_is_named_is_the_one_within_the_newest_blocks_in_numbers_found_by_hand():
    """Blocks of two rows, one below and one above the mean: their deviation is the distance, 1, then 3 and 0.5."""
    x = np.where(np.arange(4000) % 2, 1.0, -1.0)[:, None] * np.ones(3)
    x[2000:] *= [1.0, 3.0, 0.5]
    drift = Drift.of(Drift.Settings(detectors=(), recent_rows=2, inputs={"block": 2, "warm_up": 400}), Features((3,)))
    (mark, *_) = found(drift, x)
    assert 2000 < mark.row < 2200
    assert [(drift.inputs.names[each.which], *each[1:]) for each in mark.moved] == [
        ("1 spread", 1.0, 3.0, 2.0),
        ("2 spread", 1.0, 0.5, -0.5),
    ]


def test_of_wide_inputs_the_spread_of_projections_is_watched_and_features_are_named():
    x = np.random.default_rng(0).normal(size=(9000, 300))
    x[5000:, 40:240] *= 0.3
    drift = watching(300, detectors=["page_hinkley"], projections=16)
    (mark, *_) = found(drift, x.astype(np.float32))
    assert 5000 < mark.row < 5500
    assert all(340 <= each.which < 540 for each in mark.moved), "features' means come first among the names"
    assert found(watching(300, detectors=["page_hinkley"], projections=16, watch=["mean"]), x.astype(np.float32)) == []


def test_what_is_watched_is_part_of_what_a_checkpoint_is_taken_over_for():
    x = rows(4000, by=0.0)
    old, new, fresh = watching(watch=["mean"]), watching(), watching()
    found(old, x[:3000])
    new.restore(old.state())
    found(new, x[3000:])
    found(fresh, x[3000:])
    assert same(new.inputs._watches["adwin"].state(), fresh.inputs._watches["adwin"].state())


COLUMNS = Schema((Column("amount"), Column("carrier", "categorical", True, 64), Column("sure", "numeric", False)))


def test_of_named_columns_categories_and_missing_values_are_watched_by_name():
    features = Features((3,), COLUMNS)
    assert features.names == ("amount", "carrier", "sure", "amount missing", "carrier missing")
    draw = np.random.default_rng(0)

    def stream(n=6000):
        return np.stack([draw.normal(size=n), draw.choice([3, 9, 40, 63], n), draw.normal(size=n)], 1).astype(np.float32)

    moved = {}
    for name, change in {
        "carrier": lambda x: x[4000:, 1].fill(9),
        "amount missing": lambda x: x[4000::3, 0].fill(np.nan),
        "sure": lambda x: x[4000:, 2].__iadd__(1.0),
    }.items():
        x = stream()
        change(x)
        drift = watching(features=features)
        (mark, *_) = found(drift, x)
        assert mark.row > 4000
        moved[name] = drift.inputs.names[mark.moved[0].which]
    assert moved == {name: name for name in moved}
    x = stream()
    x[4000:, 2] *= 3.0
    drift = watching(features=features)
    assert drift.inputs.names[found(drift, x)[0].moved[0].which] == "sure spread"
    names = {drift.inputs.names[i] for i in np.flatnonzero(features.numbers) + len(features)}
    assert names == {"amount spread", "sure spread"}, "a category's follows from its mean, and so does a gap's"
    assert found(watching(features=features), stream()) == []


def test_pixels_are_named_by_their_place():
    assert Features((2, 3)).names == ("0,0", "0,1", "0,2", "1,0", "1,1", "1,2")


def test_what_stood_still_in_the_warm_up_and_one_wild_value_are_no_drift():
    x = rows(6000, by=0.0)
    x[:, 2] = 5.0
    x[3000, 2] = 1e30
    x[3500, 0] = -1e30
    assert found(watching(), x) == []
    x[4000:, 2] = 6.0
    (mark,) = found(watching(), x)
    assert mark.moved[0].which == 2


def test_the_class_whose_error_rose_is_named_with_how_much():
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 4, 6000)
    errors = draw.random(6000) < 0.1
    errors[4000:] |= (labels[4000:] == 2) & (draw.random(2000) < 0.8)
    drift = Drift.of(Drift.Settings())
    marks = drift.update(errors.astype(float).tolist(), labels.tolist())
    assert {mark.detector for mark in marks} == {"adwin", "page_hinkley", "surprise"}
    for mark in marks:
        worst = mark.moved[0]
        assert worst.which == 2
        assert worst.before == pytest.approx(0.1, abs=0.07)
        assert worst.now > 0.5
        assert worst.size == worst.now - worst.before


def test_a_class_that_is_new_has_no_before_and_is_named():
    errors, labels = [0.0] * 3000 + [0.0, 1.0] * 300, [0] * 3000 + [0, 1] * 300
    marks = Drift.of(Drift.Settings(detectors=("adwin",))).update(errors, labels)
    assert [(each.which, each.before, each.now) for each in marks[0].moved] == [(1, None, 1.0)]


def test_no_more_is_named_than_was_asked_for():
    settings = Drift.Settings(detectors=(), most_moved=2)
    drift = Drift.of(settings, Features((6,)))
    assert len(found(drift, rows())[0].moved) == 2


def test_a_checkpoint_from_before_the_inputs_were_watched_is_gone_on_from():
    older = Drift.of(Drift.Settings(inputs={"detectors": ()}), Features((6,)))
    older.update([0.0] * 600)
    state = older.state()
    values = {name: state.values[name] for name in ("at_adwin", "at_page_hinkley")}
    values["found"] = {"rows": 600, "marks": [[550, "adwin"]], "counts": {"adwin": 1, "page_hinkley": 0}}
    arrays = {name: array for name, array in state.arrays.items() if name.startswith("at_")}
    newer = Drift.of(Drift.Settings(), Features((6,)))
    newer.restore(State(arrays, values))
    assert newer.marks == (Mark(550, "adwin"),)
    assert (newer.rows, newer.counts, newer.input_counts) == (600, {"adwin": 1, "page_hinkley": 0, "surprise": 0}, {"adwin": 0})
    assert 5600 < found(newer, rows())[0].row < 6600


def test_a_checkpoint_from_before_spreads_were_watched_begins_anew_with_what_is_usual():
    x = rows(4000, by=0.0)
    older, newer, fresh = watching(watch=["mean"]), watching(), watching()
    found(older, x[:3000])
    state = older.state()
    arrays = {name: array for name, array in state.arrays.items() if not name.endswith("newest_blocks")}
    arrays["inputs/own/newest"] = np.zeros((10, 6))  # means of blocks alone
    state.values["inputs"]["at_adwin"]["own"]["made_by"].pop()
    newer.restore(State(arrays, state.values))
    assert newer.rows == 3000
    found(newer, x[3000:])
    found(fresh, x[3000:])
    assert same(newer.inputs._watches["adwin"].state(), fresh.inputs._watches["adwin"].state())
