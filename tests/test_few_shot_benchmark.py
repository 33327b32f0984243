"""Few-shot cells ask characters that no training saw; the regression is MAML's; what was run is not run again."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import few_shot, few_shot_report
from benchmarks.few_shot import ALGORITHMS, SHAPES, WIDTHS, Width, evaluation, nearest_mean, run, waves
from benchmarks.few_shot_report import table
from benchmarks.images import Images
from streamlearn.meta.corpus import Corpus
from streamlearn.meta.settings import MetaSettings
from streamlearn.meta.trainer import Trainer
from streamlearn.models.classifier import ModelSettings

TINY = Width(3, dict.fromkeys(ALGORITHMS, (2,) * len(SHAPES)), 2)


def drawings(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty noisy copies of a pattern for each class."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), 20)
    patterns = random.integers(0, 2, (classes, 28, 28)) * 200
    return (patterns[y] + random.integers(0, 55, (len(y), 28, 28))).astype(np.uint8), y


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Images:
    """Characters whose patterns are plain to see, and few questions."""
    monkeypatch.setattr(few_shot, "EPISODES", 6)
    return Images("patterns", *drawings(60, 0), *drawings(25, 1))


def test_twenty_ways_are_trained_for_fewer_steps_where_they_take_longer(monkeypatch):
    monkeypatch.setattr(few_shot, "EPISODES", 2)
    many = Images("patterns", *drawings(220, 0), *drawings(25, 1))
    width = Width(3, {"fomaml": (8, 0, 2, 0)}, 2)
    assert run(many, "fomaml", "20-1", width, seed=0, device="cpu")["steps"] == 2
    assert run(many, "fomaml", "5-1", width, seed=0, device="cpu")["steps"] == 8


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_trained_and_asked(source, algorithm):
    found = run(source, algorithm, "5-1", TINY, seed=0, device="cpu")
    assert found["steps"] == 2
    assert 0 <= found["accuracy"] <= 100
    assert found["nearest_mean"]["trained"] > 60  # patterns are plain


def test_episodes_are_of_evaluation_characters_and_no_question_was_shown(source):
    made = evaluation(source, 20, 5, 3, "cpu")
    known = {image.tobytes() for image in source.x_test}
    for support, query in zip(made.support_x, made.query_x, strict=True):
        shown, asked = ({image.tobytes() for image in (255 * part).round().byte().numpy()} for part in (support, query))
        assert shown | asked <= known
        assert not shown & asked
    assert made.support_y.shape == (6, 100)
    assert torch.equal(made.support_y[0].bincount(), torch.full((20,), 5))


def test_the_nearest_mean_of_plain_features_by_hand(source):
    """A network that passes two numbers on: means are (0, 0) and (4, 0), questions at 1, 3 and 3."""
    corpus = Corpus.of(source.x_train, source.y_train, held_out=0.1, seed=0)
    settings = MetaSettings(algorithm="maml", ways=2, shots=2, queries=2)
    trainer = Trainer(settings, corpus, shape=(28, 28), model=ModelSettings(hidden=(4,)), inputs=few_shot.INPUTS)
    trainer.network.features = lambda _, x: x  # type: ignore[method-assign]
    x = torch.tensor([[[-1.0, 0], [1, 0], [3, 0], [5, 0]]])
    asked = torch.tensor([[[1.0, 0], [3, 0], [3, 0]]])
    lessons = few_shot.Lessons(x, torch.tensor([[0, 0, 1, 1]]), asked, torch.tensor([[0, 1, 0]]))
    assert nearest_mean(trainer, {}, lessons) == pytest.approx(200 / 3)


def test_waves_are_those_of_the_paper():
    made = waves(torch.Generator().manual_seed(0), 400)
    x, y = torch.cat([made.support_x, made.query_x], 1)[..., 0], torch.cat([made.support_y, made.query_y], 1)
    assert (x.abs() <= 5).all()
    for wave in range(5):  # y = a sin x + b cos x, exactly
        basis = torch.stack([torch.sin(x[wave]), torch.cos(x[wave])], 1).double()
        (a, b), rest = torch.linalg.lstsq(basis, y[wave].double()).solution, y[wave].double()
        torch.testing.assert_close(basis @ torch.stack([a, b]), rest, rtol=1e-4, atol=1e-4)
        assert 0.1 <= float(torch.hypot(a, b)) <= 5
    assert 2.2 < float(y.abs().max(1).values.mean()) < 2.8


def test_maml_learns_a_wave_from_ten_points_and_training_on_all_waves_does_not(monkeypatch):
    monkeypatch.setattr(few_shot, "SINUSOID_STEPS", 150)
    found = few_shot.sinusoid(0)
    assert found["maml, 1"] < 0.8 * found["maml, 0"]
    assert found["maml, 1"] / found["maml, 0"] < 0.9 * found["all waves, 1"] / found["all waves, 0"]


def test_what_was_run_is_not_run_again(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(few_shot, "characters", lambda: source)
    monkeypatch.setitem(WIDTHS, "narrow", TINY)
    ran = []
    asked = few_shot.run
    monkeypatch.setattr(few_shot, "run", lambda *a, **k: ran.append(a[1]) or asked(*a, **k))

    def start(*algorithms: str) -> dict:
        arguments = ["--results", str(tmp_path / "f.json"), "--shapes", "5-1", "--seeds", "0", "--no-sinusoid", "--algorithms"]
        monkeypatch.setattr(sys, "argv", ["few_shot", *arguments, *algorithms])
        few_shot.main()
        return json.loads((tmp_path / "f.json").read_text())["runs"]

    first = start("anil")
    assert first.items() <= start("anil", "maml").items()
    assert ran == ["anil", "maml"]
    text = (tmp_path / "f.md").read_text()
    assert "| `anil` | 1/0/0/0 |" in text
    assert "| `reptile` | 0/0/0/0 | not run | not run |" in text
    assert "## Sinusoids\n\n**Not run.**" in text


def test_the_table_shows_the_control_and_whose_norms_the_published_rows_had():
    def cell(right: float) -> dict:
        return {"accuracy": right, "nearest_mean": {"trained": right + 1, "untrained": 50.0}, "cpu_s": 3.0, "steps": 2}

    waves = {f"{name}, {after}": 1.0 + after for name in ("maml", "all waves") for after in (0, 1, 10)}
    runs = {"narrow/maml/20-1/0": cell(80.0), "narrow/maml/20-1/1": cell(82.0), "sinusoid/maml/10/0": {**waves, "steps": 9}}
    text = table(runs, {})
    assert "| `maml` | 0/0/2/0 | not run | not run | 81.0 ± 1.4 (82.0 ± 1.4) | not run | //2/ | 3 to 3 |" in text
    assert "| untrained | |  |  | (50.0 ± 0.0) |  | | |" in text
    assert "MAML, its paper; norms of the batch | 98.7 | 99.9 | 95.8 | 98.9" in text
    assert "| MAML, one step of 0.01 | 1.00 | 2.00 | 11.00 |" in text
    assert set(few_shot_report.SHAPES) == set(SHAPES)
    assert set(few_shot_report.ROWS) == set(ALGORITHMS)
