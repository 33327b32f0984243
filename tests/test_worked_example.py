"""The worked example runs the real programs, asks what it says it asks, and tells when a goal was never reached."""

import argparse
import json
import sys

import numpy as np
import pytest

from benchmarks import worked_example
from benchmarks.images import Images
from benchmarks.omniglot_plan import HEADS, Width
from benchmarks.omniglot_trunks import corpus, trunk
from benchmarks.worked_example_report import table
from tests.test_omniglot_benchmark import drawings

SMALL = {"drawings": 4, "remember": 6, "further": 0, "validate_every": 2, "validation_shots": 4, "validation_classes": 2}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Patterns in noise, which the mean of their own drawings tells apart: from pixels, and after a few meta-steps too."""
    parts = Images("patterns", *drawings(20, 0), *drawings(7, 1))
    np.savez(tmp_path / "omniglot28.npz", **parts._asdict())
    monkeypatch.setenv("STREAMLEARN_DATA", str(tmp_path))
    return parts


def test_a_daemon_learns_characters_from_a_warm_start(source, tmp_path, monkeypatch):
    arguments = ["--arms", "warm/nearest-mean", "--characters", "3", "--channels", "4"]
    kept = ["--folder", str(tmp_path / "starts"), "--results", str(tmp_path / "found.json")]
    meta = ["--meta-steps", "2", "--meta", json.dumps(SMALL)]
    monkeypatch.setattr(worked_example, "ASKED_AFTER", (5, 15))
    monkeypatch.setattr("benchmarks.worked_example_report.ASKED_AFTER", (5, 15))
    monkeypatch.setattr(sys, "argv", ["worked_example", *arguments, *kept, *meta])
    worked_example.main()
    (found,) = json.loads((tmp_path / "found.json").read_text())["runs"].items()
    name, run = found
    assert name == "log/3/warm/nearest-mean/0"
    assert len(run["new"]) == 2
    assert len(run["met"]) == 3
    assert run["met"][0] == 100, "one label alone"
    assert run["met"][-1] > 90, "noise is a fifth of the pattern"
    assert 0 <= run["probe_rows"] <= 3 * 5, "of the drawings after a character's tenth alone"
    assert run["checkpoint_bytes"] > 3 * 36 * 8, "means of 36 features at least"
    assert "| `warm/nearest-mean` | 1 |" in (tmp_path / "found.md").read_text()


@pytest.mark.parametrize("kind", ["warm", "cold"])
def test_step_sizes_are_compared_on_characters_held_out_of_meta_training(source, tmp_path, monkeypatch, kind):
    asked = argparse.Namespace(characters=3, channels=4)
    example = worked_example.Example(asked, source, seed=0, folder=tmp_path, address="")
    start = trunk("random", Width("", 4, 4, {}), seed=0, folder=tmp_path, device="cpu").start
    seen = []
    monkeypatch.setattr(worked_example, "learned", lambda *given, **_: seen.append(given) or {"test": {"2": 50.0}})
    assert set(example.rates("sgd", start if kind == "warm" else None)) == {f"{rate:g}" for rate in HEADS["sgd"].rates}
    held = np.concatenate(corpus(source, 0).held_out)
    assert all(np.isin(near.taught, held).all() for _, _, near in seen)
    assert all((made.task.start is not None) == (kind == "warm") for made, _, _ in seen)


def cell(met, new, **changes):
    costs = {"learn_ms": 1.0, "answer_ms": 0.5, "resident_bytes": 7e8, "checkpoint_bytes": 2e5, "retention": 50.0}
    return {"met": met, "new": new, "rate": "0.1", "channels": 64, "meta_steps": 8000, **costs, **changes}


@pytest.mark.parametrize(
    ("met", "new", "enough", "of_all"),
    [
        ([100, 80, 70, 60], [20, 40, 60, 70, 80], "5", "60"),
        ([100, 90, 80, 59], [20, 40, 50, 55, 59], "never", "45"),
        ([100, 70, 60, 50], [60, 0, 0, 0, 0], "1", "never"),
    ],
)
def test_sixty_per_cent_is_reached_when_it_is(met, new, enough, of_all):
    lines = table({"log/4/warm/sgd/0": cell(met, new)}, {}).splitlines()
    (head,) = [line.split(" | ") for line in lines if line.startswith("| row")]
    (row,) = [line.split(" | ") for line in lines if line.startswith("| `warm/sgd`")]
    found = dict(zip(head, row, strict=True))
    assert found["to reach 60 %"] == enough
    assert found["60 % of all"] == of_all
    assert found["so far, 4"] == f"{met[-1]:.1f}"
