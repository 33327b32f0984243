"""Settings of the sliding look-ahead are chosen without test images, and its parts are measured as the table says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sliding
from benchmarks.cifar_report import ROWS as CIFAR_ROWS
from benchmarks.images import digits
from benchmarks.paper_plan import options
from benchmarks.sliding_plan import CANDIDATES, PARTS, RECIPE
from benchmarks.sliding_report import table
from benchmarks.tasks import STREAMS, Shape, samples, views
from streamlearn.learners.sliding_look_ahead import SlidingLookAhead

SMALL = {"rotations": Shape(4, 30, 20, turns=True), "permutations": Shape(2, 30, 20, turns=False)}


def test_tuning_asks_training_images_that_are_never_streamed() -> None:
    source = digits()._replace(x_train=np.arange(1297 * 4, dtype=np.int64).reshape(1297, 2, 2))
    tuned = sliding.without_test_images(source)
    np.testing.assert_array_equal(tuned.x_test, source.x_train[-1000:])
    np.testing.assert_array_equal(tuned.y_test, source.y_train[-1000:])
    assert not set(tuned.x_train.ravel().tolist()) & set(tuned.x_test.ravel().tolist())
    assert len(tuned.x_train) == len(tuned.y_train) == 297


@pytest.mark.parametrize("name", STREAMS)
def test_half_a_stream_is_its_first_half(name: str) -> None:
    shape, source = STREAMS[name]._replace(samples=3), digits()
    half = sliding.halved(shape)
    assert (half.tasks, half.memory) == (shape.tasks // 2, shape.memory // 2)
    for ours, whole in zip(views(half, 64), views(shape, 64)[: half.tasks], strict=True):
        np.testing.assert_array_equal(ours.seen(source.x_test[:5]), whole.seen(source.x_test[:5]))
    parts = list(samples(source, half, seed=1))
    assert len(parts) == half.tasks
    for (x, y), (x_whole, y_whole) in zip(parts, samples(source, shape, seed=1), strict=False):
        np.testing.assert_array_equal(x, x_whole)
        np.testing.assert_array_equal(y, y_whole)


@pytest.mark.parametrize("what", ["tuning", "ablation"])
def test_all_settings_exist_and_differ(what: str) -> None:
    made = [(stream, shape, SlidingLookAhead.Settings(**options)) for _, stream, shape, options in sliding.planned(what)]
    assert len({(stream, shape, each.model_dump_json()) for stream, shape, each in made}) == len(made)


def test_what_was_chosen_is_what_the_tables_run_and_what_is_taken_apart() -> None:
    assert ("whole", RECIPE) in CANDIDATES.values()
    assert PARTS["whole"] == {}
    assert all(options("sliding-look-ahead", stream)[1] is RECIPE for stream in STREAMS)
    assert CIFAR_ROWS["sliding-look-ahead"][1] is RECIPE


@pytest.mark.parametrize(("what", "streams"), [("tuning", SMALL), ("ablation", ["rotations"])])
def test_what_is_missing_is_run_and_what_is_there_is_not(
    what: str, streams: dict[str, Shape] | list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {"a": {"window": 2, "kernel": "torch"}, "b": {"window": 1, "kernel": "torch"}}
    halves = {name: ("first half", options) for name, options in few.items()}
    for name, value in {"STREAMS": SMALL, "images": digits, "HELD_BACK": 100, "CANDIDATES": halves, "PARTS": few}.items():
        monkeypatch.setattr(f"benchmarks.sliding.{name}", value)
    results = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["sliding", what, "--seeds", "3", "--results", str(results)])
    sliding.main()
    runs = json.loads(results.read_text())["runs"]
    assert set(runs) == {f"{stream}/{name}/3" for stream in streams for name in few}
    assert runs["rotations/a/3"]["ever"] != runs["rotations/b/3"]["ever"]
    assert "| a | 1 |" in results.with_suffix(".md").read_text()
    monkeypatch.setattr(sliding, "run", lambda *_: pytest.fail("it was there"))
    sliding.main()


def test_the_table_has_means_spread_and_what_was_not_run() -> None:
    def cell(ever: float, auto: float) -> dict[str, object]:
        return {"ever": {"retained": ever, "just_after": 90.0}, "auto": {"retained": auto, "just_after": 91.0}, "cpu_s": 2.0}

    runs = {"rotations/a/0": cell(70.0, 60.0), "rotations/a/1": cell(72.0, 62.0), "many/b/0": cell(50.0, 40.0)}
    text = table("tuning", ["a", "b", "c"], runs, {})
    assert "| a | 2 | 71.00 ± 1.41 (90.0) | 61.00 ± 1.41 (91.0) | not run | not run | 2.0 |" in text
    assert "| b | 1 | not run | not run | 50.00 (90.0) | 40.00 (91.0) | 2.0 |" in text
    assert "| c |" not in text
