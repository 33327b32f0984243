"""The benchmarks measure what they say, and still run."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks.images import angles, digits, stream, turned
from benchmarks.report import sound
from benchmarks.scores import mean_and_spread, scores


@pytest.mark.parametrize("degrees", [0.0, 3.7, 45.3, 90.0, 111.1, 179.9])
def test_images_are_turned_as_pillow_turns_them(degrees):
    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(image).rotate(degrees)) for image in x]
    np.testing.assert_array_equal(turned(x, degrees), expected)


def test_each_task_has_an_angle_of_its_own_slice_whatever_the_seed_of_the_run():
    for t, degrees in enumerate(angles(20)):
        assert 9 * t <= degrees < 9 * (t + 1)
    first, second = (stream(digits(), tasks=3, samples=50, seed=seed) for seed in (0, 1))
    assert [task.degrees for task in first] == [task.degrees for task in second]
    assert not np.array_equal(first[0].y, second[0].y)
    assert not np.array_equal(first[0].y, first[1].y)


def test_scores_by_hand():
    matrix = np.array([[80.0, 10.0], [60.0, 90.0]])
    assert scores(matrix, [62.0, 91.0]) == (76.5, 85.0, -10.0)
    assert mean_and_spread([1.0, 3.0]) == (2.0, math.sqrt(2))


def test_results_are_sound_only_when_every_digest_is_that_of_the_undisturbed_run():
    good = {"exit_codes": [0, 0], "proofs": {"undisturbed": "a", "replayed": "a", "killed": "a"}}
    assert sound(good)
    assert sound(good | {"proofs": {"undisturbed": "a", "replayed": None, "killed": None}})
    for broken in (
        {"exit_codes": [0, 3]},
        {"proofs": good["proofs"] | {"killed": "b"}},
        {"proofs": good["proofs"] | {"replayed": "b"}},
    ):
        assert not sound(good | broken)


def test_rotations_run_through_a_real_kafka_with_a_kill_and_a_replay(kafka, tmp_path, monkeypatch, capsys):
    from benchmarks import rotations  # noqa: PLC0415  takes Kafka's client, which the other tests do without

    monkeypatch.setenv("STREAMLEARN_KAFKA", kafka)
    assert rotations.main(["--quick", "--out", str(tmp_path), "--name", "quick"]) == 0
    assert "the same bytes" in capsys.readouterr().out
    found = json.loads((tmp_path / "quick.json").read_text())
    assert found["data"] == "scikit-learn digits"
    assert np.array(found["matrices"]).shape == (1, 3, 3)
    assert found["proofs"]["killed_at"]["restored"] < found["proofs"]["killed_at"]["served"] == 15
    assert found["requests"]["failed"] == 0
    assert found["checkpoints"][0]["count"] >= 3
    assert found["per_cent"]["just_after"]["mean"] > 20, "it learns"
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "quick.md").read_text().startswith("# Rotations on scikit-learn digits")
