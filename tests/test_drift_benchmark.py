"""The benchmark of drift detectors: its figures on runs made by hand, and runs on small streams."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks import drift
from benchmarks.changing import ABRUPT, Changing, still, thinned, turning
from benchmarks.drift_report import always, judged, table
from benchmarks.images import digits


def of(fired, *, points=(1000, 4000), rows=6000, horizon=1500, **more):
    return {"fired": fired, "points": list(points), "rows": rows, "horizon": horizon, **more}


def test_the_first_detection_within_the_horizon_counts_and_what_lies_outside_is_false():
    run = of({})
    found = judged([100, 600, 1200, 1300, 2600, 3999, 4000, 5600], run, first=500)
    assert found.delays == (200, 0)
    assert found.false == 4, "600, 2600, 3999 and 5600; what came in the warm-up counts for nothing"
    assert found.outside == 6000 - 500 - 2 * 1500
    assert np.isnan(judged([2600], run, first=500).delays).all()


def test_a_horizon_ends_at_the_next_point_and_a_point_in_the_warm_up_is_not_asked_for():
    found = judged([1900], of({}, points=(400, 1000, 1800)), first=500)
    assert np.isnan(found.delays[0])
    assert found.delays[1:] == (100,)


def test_the_detector_that_looks_at_nothing_fires_as_often_as_it_may():
    assert always({"rows": 3000}, "error") == [500, 1500, 2500]


def test_a_tenth_of_the_rows_is_left_out_and_points_stay_where_the_change_is():
    y = np.repeat([0, 1, 2], 1000)
    one, other = (thinned(Changing(y[:, None].astype(np.float32), y, (1000, 2000), 9), seed) for seed in (0, 1))
    assert 2600 < len(one.y) < 2800
    for each in (one, other):
        assert [(each.y[point - 1], each.y[point]) for point in each.points] == [(0, 1), (1, 2)]
    assert one.points != other.points


def test_a_still_stream_has_the_same_rows_and_no_points():
    y = np.repeat([0, 1, 2], 100)
    made = still(Changing(y[:, None].astype(np.float32), y, (100, 200), 9), 0)
    assert made.points == ()
    assert np.bincount(made.y).tolist() == [100, 100, 100]
    assert len(np.unique(made.x[:100])) == 3


@pytest.mark.parametrize("gradual", [False, True])
def test_images_turn_at_their_points(monkeypatch, gradual):
    monkeypatch.setattr("benchmarks.changing.TASK", 250)
    monkeypatch.setattr("benchmarks.changing.MIXED", 150)
    made = turning(gradual=gradual, source=digits())(0)
    assert made.points == tuple(250 * n - 150 * gradual for n in range(1, 5))
    middle = [made.x[250 * n + 20 : 250 * n + 90].mean(0) for n in range(5)]
    apart = [np.abs(a - b).mean() for a, b in pairwise(middle)]
    ahead = made.x[480:500].mean(0)  # the last rows of the second task
    assert min(apart) > 0.02
    assert (np.abs(ahead - middle[2]).mean() < np.abs(ahead - middle[1]).mean()) == gradual


def test_runs_on_a_small_stream_fill_every_table():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(6000, 4)).astype(np.float32), np.zeros(6000, np.int64)
    y[:] = x[:, 0] > 0
    y[4000:] = 1 - y[4000:]
    x[4000:, 2] += 3.0
    data = Changing(x, y, (4000,), ABRUPT)
    runs = {"changes/inputs/small/0": drift.inputs(data), "still/inputs/small/0": drift.inputs(still(data, 0))}
    runs |= {"changes/la-maml/small/0": drift.run("la-maml", data, 0), "changes/pool/small/0": drift.run("pool", data, 0)}
    runs["faster/la-maml/small/0"] = drift.run("la-maml", data, 0, drift.HASTENED)
    assert runs["changes/la-maml/small/0"]["accuracy"] != runs["faster/la-maml/small/0"]["accuracy"]
    for name in ("error/adwin", "error/page_hinkley"):
        assert 4000 <= min(runs["changes/la-maml/small/0"]["fired"][name]) < 5500
    assert [4000 <= row < 5000 for row in runs["changes/inputs/small/0"]["fired"]["inputs/adwin"]] == [True]
    text = table(runs, {"processor": "none"})
    assert "| `small` | `adwin` | 1 of 1 |" in text
    assert "| `la-maml` | `small` | `update_norm` |" in text
    assert "| `pool` | `small` | `gradient_alignment` |" in text
