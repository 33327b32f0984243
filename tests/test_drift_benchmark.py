"""The benchmark of drift detectors: its figures on runs made by hand, and runs on small streams."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks import drift, drift_choice
from benchmarks.changing import ABRUPT, BLUR, GRADUAL, SPREADS, TUNING, Changing, blurred, still, thinned, turning
from benchmarks.drift_report import always, judged, table
from benchmarks.drift_signs import Replay, doubts, watched
from benchmarks.images import digits
from streamlearn.records import Batch


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


def test_a_blurred_change_comes_gradually_around_where_it_was():
    y = np.repeat([0, 1], 5000)
    sharp = Changing(y[:, None].astype(np.float32), y, (5000,), ABRUPT)
    made = blurred(lambda _: sharp)(0)
    assert (made.points, made.horizon) == ((5000 - BLUR // 2,), GRADUAL)
    assert (made.x[:, 0] == made.y).all()
    assert np.bincount(made.y).tolist() == [5000, 5000]
    shares = [made.y[row : row + 100].mean() for row in (4300, 4750, 4950, 5150, 5600)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 0.3 < shares[2] < 0.7
    assert shares[-1] == 1


def test_a_spread_changes_half_way_and_no_mean_does():
    made = SPREADS["spread doubled"](1)
    assert made.points == (4000,)
    halves = made.x[:4000], made.x[4000:]
    ratios = halves[1].std(0) / halves[0].std(0)
    assert 1.8 < ratios[3] < 2.2
    assert np.delete(ratios, 3).min() > 0.6
    assert np.delete(ratios, 3).max() < 1.6, "of columns with heavy tails it is uncertain"
    assert np.abs(halves[1].mean(0) - halves[0].mean(0)).max() < 0.15


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
    runs = {}
    for name, parts in drift.WATCHED.items():
        runs[f"changes/{name}/small/0"] = drift.inputs(data, parts)
        runs[f"still/{name}/small/0"] = drift.inputs(still(data, 0), parts)
    runs |= {"changes/la-maml/small/0": drift.run("la-maml", data, 0), "changes/pool/small/0": drift.run("pool", data, 0)}
    runs["faster/la-maml/small/0"] = drift.run("la-maml", data, 0, drift.HASTENED)
    assert runs["changes/la-maml/small/0"]["accuracy"] != runs["faster/la-maml/small/0"]["accuracy"]
    for name in ("error/adwin", "error/page_hinkley"):
        assert 4000 <= min(runs["changes/la-maml/small/0"]["fired"][name]) < 5500
    assert [4000 <= row < 5000 for row in runs["changes/inputs/small/0"]["fired"]["inputs/adwin"]] == [True]
    text = table(runs, {"processor": "none"})
    assert "| `small` | `adwin` | 1 of 1 |" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| `la-maml` | abrupt", "| `pool` | abrupt"))]
    told = {(row[0].strip("| `"), row[2].strip("`")): row[3:] for row in rows}
    for name in ("gradient_alignment", "update_norm", "replay_loss", "replay_changed", "doubt", "inputs/adwin", "always"):
        assert ("la-maml", name) in told
    assert ("pool", "members_moved") in told
    assert told["pool", "error/surprise"][0] == told["la-maml", "error/surprise"][0] == "1 of 1"
    first = {name: min(runs["changes/pool/small/0"]["fired"][f"error/{name}"]) for name in ("adwin", "surprise")}
    assert told["pool", "error/surprise"][4] == f"{first['adwin'] - first['surprise']} (1)"
    assert told["pool", "error/adwin"][4:7] == ["0 (1)", "0", "0"]


def test_a_lead_is_counted_over_points_that_both_found_and_sooner_over_all():
    """Points at 1,000 and 4,000. The sign finds both, after 100 and 50; the error the first, after 300."""
    told = {"error/adwin": [1300], "error/surprise": [], "sign/update_norm": [1100, 4050], "forgetting": [1050, 4500]}
    text = table({"changes/pool/small/0": of(told), "still/pool/small/0": of({"error/adwin": [2000]}, points=())}, {})
    (row,) = [line for line in text.splitlines() if line.startswith("| `pool` | abrupt | `update_norm` |")]
    assert row.endswith("| 2 of 2 | 75 ± 35 | 0.0 | 0.0 | 200 (1) | 2 | 0 | 200 ± 354 (2) |")
    (row,) = [line for line in text.splitlines() if line.startswith("| `pool` | abrupt | `error/surprise` |")]
    assert row.endswith("| 0 of 2 | – | 0.0 | 0.0 | – | 0 | 1 | – |")
    (row,) = [line for line in text.splitlines() if line.startswith("| `pool` | abrupt | `error/adwin` |")]
    assert row.endswith("| 1 of 2 | 300 | 0.0 | 2.0 | 0 (1) | 0 | 0 | -250 (1) |")


def test_what_is_asked_again_is_a_sample_of_what_was_learned_and_tells_which_answers_changed():
    class Says:
        says = 0

        def predict(self, x, *, about):
            assert about == "auto"
            assert set(x[:, 0]) <= set(range(120))
            return np.log(np.where(np.arange(2) == self.says, 0.75, 0.25)) * np.ones((len(x), 1))

    replay, learner = Replay(0), Says()
    x = np.arange(120, dtype=np.float32)[:, None]
    replay.take(Batch.of(x[:90], np.zeros(90, np.int64)))
    assert replay.asked(learner) == {}
    replay.take(Batch.of(x[90:], np.zeros(30, np.int64)))
    first, again = replay.asked(learner), replay.asked(learner)
    assert first["replay_loss"] == pytest.approx(-np.log(0.75))
    assert np.isnan(first["replay_changed"])
    assert again["replay_changed"] == 0.0
    learner.says = 1
    assert replay.asked(learner) == {"replay_loss": pytest.approx(-np.log(0.25)), "replay_changed": 1.0}


def test_a_doubt_is_what_the_likeliest_label_lacks():
    logits = np.array([[np.log(3), 0.0], [5.0, -np.inf], [-np.inf, -np.inf]], np.float32)
    assert doubts(logits) == [pytest.approx(0.25), 0.0, 1.0]
    assert doubts(np.zeros((2, 0), np.float32)) == [1.0, 1.0]


def test_a_sign_that_changes_is_noticed_and_one_that_stays_is_not():
    draw = np.random.default_rng(0).normal(size=300)
    rows = range(19, 6000, 20)
    assert watched(list(zip(rows, draw.tolist(), strict=True))) == []
    for by in (3.0, -3.0):
        (first, *_) = watched(list(zip(rows, (draw + by * (np.arange(300) >= 200)).tolist(), strict=True)))
        assert 4000 < first < 4400


def test_candidates_watch_what_a_learner_answered(monkeypatch):
    monkeypatch.setattr(drift_choice, "CANDIDATES", ((0.002, 32), (0.1, 8)))
    monkeypatch.setattr(drift_choice, "DRAWS", 3000)
    runs = {f"never/{law}": drift_choice.never(law) for law in ("0.2", "beta")}
    made = TUNING["sine"](0)
    data = made._replace(x=made.x[:4000], y=made.y[:4000], points=(2000,))
    found = drift_choice.run("pool", data, 0)
    for what in ("error", "surprise"):
        assert 2000 < found["fired"][f"{what}/0.1/8"][0] < 2200
    runs |= {f"{learner}/{kind}/sine/0": found for learner in ("pool", "la-maml") for kind in ("abrupt", "blurred", "still")}
    text = drift_choice.table(runs, {"processor": "none"})
    assert "| `pool` | `surprise` | 0.1 | 8 | 1 of 1 |" in text
