"""The characters' benchmark measures what it says, chooses on background characters alone, and goes on where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import omniglot
from benchmarks.images import Images
from benchmarks.omniglot_data import features, rows_by_class, said_of, stream
from benchmarks.omniglot_plan import HEADS, TRUNKS, WIDTHS, Meta, Width
from benchmarks.omniglot_report import table
from benchmarks.omniglot_trunks import corpus, trunk
from streamlearn.records import Batch

SMALL = {"drawings": 4, "remember": 6, "further": 0, "validate_every": 2, "validation_shots": 4}
TINY = Width(
    "for tests",
    3,
    2,
    {name: Meta(4, SMALL) for name in TRUNKS if name != "random"},
    validation_classes=2,
    lengths=(2, 6),
)


def drawings(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty noisy copies of a pattern for each class."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), 20)
    patterns = random.integers(0, 2, (classes, 28, 28)) * 200
    return (patterns[y] + random.integers(0, 55, (len(y), 28, 28))).astype(np.uint8), y


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Images:
    """Small characters, also where the command looks for a file, and a narrow width."""
    parts = Images("patterns", *drawings(20, 0), *drawings(7, 1))
    np.savez(tmp_path / "omniglot28.npz", **parts._asdict())
    monkeypatch.setenv("STREAMLEARN_DATA", str(tmp_path))
    monkeypatch.setitem(WIDTHS, "narrow", TINY)
    monkeypatch.setattr("benchmarks.omniglot_report.LENGTHS", TINY.lengths)
    return parts


def start(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> dict[str, dict]:
    arguments = ["--results", str(folder / "o.json"), "--folder", str(folder / "trunks"), "--seeds", "0", *more]
    monkeypatch.setattr(sys, "argv", ["omniglot", *arguments])
    omniglot.main()
    return json.loads((folder / "o.json").read_text())["runs"]


def test_the_stream_is_a_seeded_order_in_which_nothing_comes_twice():
    by_class = rows_by_class(np.repeat(np.arange(9), 20))
    made = stream(by_class, characters=7, taught=15, asked=5, seed=3)
    rows = np.concatenate([made.taught, made.asked], 1)
    assert rows.shape == (7, 20)
    assert len(set(rows.flatten().tolist())) == 140
    assert all(len(set((row // 20).tolist())) == 1 for row in rows)
    assert not np.array_equal(made.taught[:, 0] // 20, np.arange(7))
    again, other = (stream(by_class, characters=7, taught=15, asked=5, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(made.taught, again.taught)
    assert not np.array_equal(made.taught, other.taught)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["random", "anml-2"])
def test_a_head_on_features_is_the_learner_from_the_warm_start(source, tmp_path, head, name):
    """What the benchmark saves is time alone: answers are those of the daemon's learner, whose network sees the images."""
    made = trunk(name, TINY, seed=0, folder=tmp_path, device="cpu").start
    shown = features(made, source.x_test, device="cpu")
    alone = omniglot.on_features(HEADS[head], shown.shape[1], seed=5, rate=0.1)
    whole = omniglot.from_start(HEADS[head], made, seed=5, rate=0.1)
    rows = stream(rows_by_class(source.y_test), characters=7, taught=15, asked=5, seed=0)
    for number, taught in enumerate(rows.taught):
        labels = np.full(15, number)
        alone.learn(Batch.of(shown[taught], labels))
        whole.learn(Batch.of(source.x_test[taught].astype(np.float32), labels))
    asked = rows.asked.reshape(-1)
    answers = whole.predict(source.x_test[asked].astype(np.float32))
    np.testing.assert_allclose(alone.predict(shown[asked]), answers, rtol=2e-4, atol=2e-4)
    assert np.ptp(answers) > 0.01


def test_step_sizes_are_chosen_without_a_look_at_evaluation_characters(source, tmp_path, monkeypatch):
    """What is found is made up, so that the second of three step sizes is the best."""
    seen, made_up = [], iter((10.0, 30.0, 20.0, 5.0))

    def learned(learner, shown, far, *, lengths):
        seen.append((shown, learner.settings.learning_rate))
        right = {str(length): next(made_up) for length in lengths[:1]}
        return {"test": dict.fromkeys(map(str, lengths), right[str(lengths[0])]), "train": {"6": 0.0}, "cpu_s": 0.0}

    monkeypatch.setattr(omniglot, "learned", learned)
    cells = start(monkeypatch, tmp_path, "--trunks", "random", "--heads", "er")
    made = trunk("random", TINY, seed=0, folder=tmp_path, device="cpu").start
    held = features(made, source.x_train[np.concatenate(corpus(source, 0).held_out)], device="cpu")
    assert len(seen) == 4  # three rates, then the stream
    assert all(np.array_equal(shown, held) for shown, _ in seen[:3])
    tried = HEADS["er"].rates
    assert [rate for _, rate in seen] == [*tried, tried[1]]
    assert cells["narrow/random/er/0"]["rate"] == f"{tried[1]:g}"
    assert cells["narrow/random/er/0"]["test"]["6"] == 5.0


def test_accuracies_are_counted_over_characters_met_so_far(source):
    """A stand-in that always says 1: of two characters half is right, of six a sixth."""

    class Stubborn:
        taught = 0

        def learn(self, batch: Batch) -> None:
            self.taught += len(batch)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.tile([0.0, 1.0], (len(x), 1))

    rows = stream(rows_by_class(source.y_test), characters=6, taught=15, asked=5, seed=0)
    learner = Stubborn()
    found = omniglot.learned(learner, np.zeros((140, 3), np.float32), rows, lengths=(2, 6))
    assert learner.taught == 90
    assert found["test"] == {"2": 50.0, "6": pytest.approx(100 / 6)} == found["train"]


def test_what_is_said_of_features_by_hand():
    """Ten units: one always at 5, one on a fifth of the images, one too small to count, seven dead."""
    made = np.zeros((20, 10), np.float32)
    made[:, 0], made[::5, 1], made[:, 2] = 5.0, 1.0, 0.01
    rows = stream([np.arange(20)], characters=1, taught=15, asked=5, seed=0)
    said = said_of(made, rows)
    assert said["active"] == pytest.approx(12)
    assert said["active_overall"] == pytest.approx(20)
    assert said["dead"] == pytest.approx(80)
    assert said["neighbours"] == 100


def test_trunks_learn_from_background_characters_and_what_was_run_is_not_run_again(source, tmp_path, monkeypatch):
    cells = start(monkeypatch, tmp_path, "--trunks", "random", "supervised", "oml", "anml-1", "--heads", "nearest-mean")
    assert len(cells) == 8
    said = cells["narrow/anml-1/features/0"]
    assert said["steps"] == 4
    assert set(said) >= {"before", "after"}
    assert "before" not in cells["narrow/oml/features/0"]
    ran = []
    run = omniglot.run
    monkeypatch.setattr(omniglot, "run", lambda head, *a, **k: ran.append(head.learner) or run(head, *a, **k))
    again = start(monkeypatch, tmp_path, "--trunks", "oml", "random", "--heads", "nearest-mean", "sgd")
    assert ran == ["sgd", "sgd"]
    assert cells.items() <= again.items()
    assert "| `oml` | `sgd` | 1 |" in (tmp_path / "o.md").read_text()


def test_a_trunk_that_was_interrupted_is_no_trunk(source, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.omniglot_trunks.meta_train", lambda *_, **__: {"steps": 2})
    with pytest.raises(SystemExit, match="oml, seed 0: stopped after 2"):
        trunk("oml", TINY, seed=0, folder=tmp_path, device="cpu")


def cell(*figures: float) -> dict:
    return {"test": dict(zip(("10", "50", "100", "200", "400", "600"), figures, strict=True)), "train": {"600": 99.0},
            "rate": "0.1"}  # fmt: skip


def test_a_row_that_does_not_beat_the_control_says_so_and_published_figures_say_full_width():
    runs = {f"narrow/oml/nearest-mean/{seed}": cell(90, 80, 70, 60, 50, 40 + seed) for seed in range(2)}
    runs |= {f"narrow/oml/er/{seed}": cell(90, 81, 71, 60, 50, 40) for seed in range(2)}
    runs |= {"narrow/oml/sgd/0": cell(90, 80, 70, 60, 50, 40), "narrow/oml/la-maml/1": cell(91, 81, 71, 61, 51, 42)}
    text = table(runs, {})
    assert "| `oml` | `sgd` | 1 | 0.1 | 90.0 | 80.0 | 70.0 | 60.0 | 50.0 | 40.0 | 99.0 | **no** |" in text
    assert "| at 50, 100 only |" in text
    assert "| 42.0 | 99.0 | yes |" in text
    assert "| 40.5 ± 0.7 | 99.0 ± 0.0 |  |" in text
    assert "| `random` | `sgd` | 0 | not run |" in text
    assert "| published, **full width** |" in text
    assert "| ANML, its paper (from memory) |  |  |  |  |  | 63.8 |" in text
    assert text.count("**Not run.**") == len(WIDTHS) - 1
    assert text.count("There was no GPU") == 1
    assert "`oml` with `la-maml`, 42.0" in text
