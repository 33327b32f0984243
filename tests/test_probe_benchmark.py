"""The benchmark of the probe: its figures on matrices made by hand, and a run on small images."""

import numpy as np
import pytest

from benchmarks import probe, visits
from benchmarks.images import digits
from benchmarks.probe_report import judged, table


def of(shown, true, rows):
    return {"probe": {"auto": shown, "ever": shown}, "true": {"auto": true, "ever": true}, "rows": rows}


def test_error_bias_and_forgetting_are_those_of_the_matrices():
    found = judged(of([[0.9], [0.5, 0.8]], [[0.8], [0.6, 0.8]], [100, 50]), "auto")
    assert found.error == pytest.approx(0.2 / 3)
    assert found.bias == pytest.approx(0.0)
    assert (found.forgetting, found.forgotten) == pytest.approx((0.4, 0.2))
    assert found.kept == pytest.approx(0.7)
    assert found.correlation == pytest.approx(np.corrcoef([0.9, 0.5, 0.8], [0.8, 0.6, 0.8])[0, 1])
    spread = [0.4 / 10, np.sqrt(0.24) / 10, 0.4 / np.sqrt(50)]
    assert found.chance == pytest.approx(np.sqrt(2 / np.pi) * np.mean(spread))


def test_a_small_run_fills_both_matrices_and_the_table(monkeypatch):
    source = digits()
    monkeypatch.setattr(probe, "RECORDS", 200)
    monkeypatch.setattr(probe, "PIXELS", 64)
    runs = {f"split/er/{share:g}/0": probe.run(probe.split(0, source), "er", share, 0) for share in (0.3, 0.0)}
    shown, true = runs["split/er/0.3/0"]["probe"]["auto"], runs["split/er/0.3/0"]["true"]["auto"]
    assert [len(line) for line in shown] == [len(line) for line in true] == [1, 2, 3, 4, 5]
    found = judged(runs["split/er/0.3/0"], "auto")
    assert found.error < 3 * found.chance
    assert "| split | `er` | 0.3 | 1 |" in table(runs, {})


def test_visits_are_told_by_median_and_what_did_not_come_is_counted():
    one = {"visits": [[True, 40, 10], [True, 60, 30], [False, None, 20], [False, 10, 40]], "forward": 0.5, "forward_true": 0.25}
    other = {"visits": [[True, 70, 20], [False, 30, None], [False, None, None]], "forward": 0.3, "forward_true": 0.15}
    (row,) = [line for line in visits.table({"er/0/0": one, "er/0/1": other}).splitlines() if line.startswith("| `er`")]
    reached, regained = "60 ± 14 (0 of 3 did not) | 20 ± 0 (0 of 3 did not)", "20 ± 14 (2 of 4 did not) | 30 (2 of 4 did not)"
    assert row == f"| `er` | 2 | {reached} | {regained} | 40.0 ± 14.1 | 20.0 ± 7.1 |"


def test_angles_come_back_and_what_is_told_is_near_the_test_images(monkeypatch):
    monkeypatch.setattr(visits, "ANGLES", 2)
    monkeypatch.setattr(visits, "ROUNDS", 3)
    monkeypatch.setattr(visits, "ROWS", 200)
    shown = list(visits.returning(digits(), 0))
    assert [visit.context for visit in shown] == [0, 1, 0, 1, 0, 1]
    rows = np.concatenate([visit.x for visit in shown[::2]])
    assert len(np.unique(rows, axis=0)) > 0.99 * len(rows), "records of its own each time"
    found = visits.run(digits(), "er", 0)
    assert [is_new for is_new, *_ in found["visits"]] == [True, False, False, False, False]
    told, true = zip(*[took for _, *took in found["visits"][1:]], strict=True)
    assert all(rows is not None and 10 <= rows <= 200 for rows in [*told, *true])
    assert found["forward_true"] < 0.9
    page = table({"returning/er/0/0": found}, {})
    assert "| `er` | 1 |" in page
    assert "learned again?" in page
