"""The benchmark of the probe: its figures on matrices made by hand, and a run on small images."""

import numpy as np
import pytest

from benchmarks import probe
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
