"""The worked example runs the real programs, asks what it says it asks, and tells when a goal was never reached."""

import argparse
import json
import os
import sys

import numpy as np
import pytest
import yaml

from benchmarks import process, worked_example
from benchmarks.images import Images
from benchmarks.omniglot_plan import HEADS, VIEWS, Width
from benchmarks.omniglot_trunks import corpus, trunk
from benchmarks.worked_example_report import table
from streamlearn.meta import warm_start
from tests.test_omniglot_benchmark import drawings

SMALL = {
    "steps": 2,
    "drawings": 4,
    "remember": 6,
    "further": 0,
    "validate_every": 2,
    "validation_shots": 4,
    "validation_classes": 2,
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Patterns in noise, which the mean of their own drawings tells apart: from pixels, and after a few meta-steps too."""
    parts = Images("patterns", *drawings(20, 0), *drawings(7, 1))
    np.savez(tmp_path / "omniglot28.npz", **parts._asdict())
    monkeypatch.setenv("STREAMLEARN_DATA", str(tmp_path))
    return parts


@pytest.mark.parametrize("kind", worked_example.STARTS)
def test_a_daemon_learns_characters_from_a_warm_start(source, tmp_path, monkeypatch, kind):
    arguments = ["--arms", f"{kind}/nearest-mean", "--characters", "3", "--channels", "4"]
    kept = ["--folder", str(tmp_path / "starts"), "--results", str(tmp_path / "found.json")]
    meta = ["--meta", json.dumps(SMALL)]
    monkeypatch.setattr(worked_example, "ASKED_AFTER", (5, 15))
    monkeypatch.setattr("benchmarks.worked_example_report.ASKED_AFTER", (5, 15))
    monkeypatch.setattr(sys, "argv", ["worked_example", *arguments, *kept, *meta])
    worked_example.main()
    (found,) = json.loads((tmp_path / "found.json").read_text())["runs"].items()
    name, run = found
    assert name == f"log/3/{kind}/nearest-mean/0"
    start = warm_start.load(tmp_path / "starts" / f"{kind}-0.safetensors")
    assert run["start"] == {"steps": start.steps, "fingerprint": start.fingerprint}
    assert start.algorithm == kind.partition("-")[0]
    config = yaml.safe_load((tmp_path / "starts" / f"{kind}-0.yaml").read_text())
    assert config["corpus"]["views"] == (VIEWS if kind == "supervised-views" else {})
    assert len(run["new"]) == 2
    assert len(run["met"]) == 3
    assert run["met"][0] == 100, "one label alone"
    assert run["met"][-1] > 90, "noise is a fifth of the pattern"
    assert 0 <= run["probe_rows"] <= 3 * 5, "of the drawings after a character's tenth alone"
    assert run["checkpoint_bytes"] > 3 * 36 * 8, "means of 36 features at least"
    assert f"| `{kind}/nearest-mean` | 2 | 1 |" in (tmp_path / "found.md").read_text()


def test_a_warm_start_that_is_there_is_taken_unless_it_held_other_characters_out(source, tmp_path):
    asked = argparse.Namespace(characters=3, channels=4, folder=tmp_path, meta={})
    example = worked_example.Example(asked, source, seed=0, folder=tmp_path, address="")
    file = tmp_path / "supervised-views-0.safetensors"
    made = {seed: trunk("random", Width("", 4, 4, {}), seed=seed, folder=tmp_path, device="cpu").start for seed in (0, 1)}
    warm_start.save(made[0], file)
    before = file.read_bytes()
    assert example._meta_trained("supervised-views") == file
    assert file.read_bytes() == before
    warm_start.save(made[1], file)
    with pytest.raises(SystemExit, match="other characters held out than those of seed 0"):
        example._meta_trained("supervised-views")


@pytest.mark.parametrize("kind", ["oml", "cold"])
def test_step_sizes_are_compared_on_characters_held_out_of_meta_training(source, tmp_path, monkeypatch, kind):
    asked = argparse.Namespace(characters=3, channels=4)
    example = worked_example.Example(asked, source, seed=0, folder=tmp_path, address="")
    start = trunk("random", Width("", 4, 4, {}), seed=0, folder=tmp_path, device="cpu").start
    seen = []
    monkeypatch.setattr(worked_example, "learned", lambda *given, **_: seen.append(given) or {"test": {"2": 50.0}})
    assert set(example.rates("sgd", start if kind == "oml" else None)) == {f"{rate:g}" for rate in HEADS["sgd"].rates}
    held = np.concatenate(corpus(source, 0).held_out)
    assert all(np.isin(near.taught, held).all() for _, _, near in seen)
    assert all((made.task.start is not None) == (kind == "oml") for made, _, _ in seen)


def test_a_daemon_that_is_too_slow_to_start_does_not_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PROGRAM", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setitem(process.Daemon.start.__kwdefaults__, "within_s", 0.2)
    daemon = process.Daemon({}, tmp_path)
    with pytest.raises(RuntimeError, match="not ready"), daemon:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(daemon.pid, 0)


def cell(met, new, **changes):
    costs = {"learn_ms": 1.0, "answer_ms": 0.5, "resident_bytes": 7e8, "checkpoint_bytes": 2e5, "retention": 50.0}
    return {"met": met, "new": new, "rate": "0.1", "channels": 64, "start": {"steps": 8000}, **costs, **changes}


@pytest.mark.parametrize(
    ("met", "new", "enough", "of_all"),
    [
        ([100, 80, 70, 60], [20, 40, 60, 70, 80], "5", "60"),
        ([100, 90, 80, 59], [20, 40, 50, 55, 59], "never", "45"),
        ([100, 70, 60, 50], [60, 0, 0, 0, 0], "1", "never"),
    ],
)
def test_sixty_per_cent_is_reached_when_it_is(met, new, enough, of_all):
    lines = table({"log/4/oml/sgd/0": cell(met, new)}, {}).splitlines()
    (head,) = [line.split(" | ") for line in lines if line.startswith("| row")]
    (row,) = [line.split(" | ") for line in lines if line.startswith("| `oml/sgd`")]
    found = dict(zip(head, row, strict=True))
    assert found["to reach 60 %"] == enough
    assert found["60 % of all"] == of_all
    assert found["so far, 4"] == f"{met[-1]:.1f}"
    assert found["meta-steps"] == "8,000"
