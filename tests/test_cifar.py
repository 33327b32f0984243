"""The CIFAR-100 benchmark reads its files rightly, cuts tasks as it says, and asks with and without task identity."""

import json
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cifar, cifar_data
from benchmarks.cifar_report import IN_FULL, ROWS, table
from benchmarks.images import Images
from streamlearn.models.classifier import ModelSettings

SIZE = cifar.Size(tasks=2, per_class=8, asked=3)


def packed(images: np.ndarray) -> np.ndarray:
    """A block as the files hold it, said slowly: [n, height, width, 3] to bytes."""
    red, green, blue = (images[..., k].astype(int) for k in range(3))
    left_over = []
    for plane in (green, red - green, blue - green):
        for image in plane:
            for (r, c), value in np.ndenumerate(image):
                left = image[r, c - 1] if c else None
                above = image[r - 1, c] if r else None
                if left is None or above is None:
                    guess = next((seen for seen in (left, above) if seen is not None), 0)
                else:
                    guess = sorted([left, above, left + above - image[r - 1, c - 1]])[1]
                left_over.append((value - guess + 128) % 256)
    return np.frombuffer(lzma.compress(np.array(left_over, np.uint8).tobytes()), np.uint8)


def random_images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)


def made_up() -> Images:
    """12 classes whose images have a colour of their own."""
    y_train, y_test = np.repeat(np.arange(12), 20), np.repeat(np.arange(12), 5)
    random = np.random.default_rng(0)
    colours = random.integers(0, 200, (12, 1, 1, 3))
    images = [(colours[y] + random.integers(0, 56, (len(y), 8, 8, 3))).astype(np.uint8) for y in (y_train, y_test)]
    return Images("made up", images[0], y_train, images[1], y_test)


def test_packed_files_are_read_bit_for_bit_and_kept_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [random_images(3, 0), random_images(2, 1)]
    for part, labels in (("train_a", [0, 0, 1, 1, 1]), ("train_b", [2, 2, 2, 3, 3]), ("test", [0, 1, 2, 3, 3])):
        held = {f"block_{n:02d}": packed(block) for n, block in enumerate(blocks)}
        shape = {"image_shape": np.array([5, 4, 3]), "block_images": np.array([3, 2])}
        np.savez(tmp_path / f"cifar100_{part}.npz", **held, **shape, y=np.array(labels))
    monkeypatch.setenv("STREAMLEARN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = cifar_data.cifar100()
    np.testing.assert_array_equal(source.x_test, np.concatenate(blocks))
    np.testing.assert_array_equal(source.x_train, np.concatenate([*blocks, *blocks]))
    assert source.y_train.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    monkeypatch.setattr(cifar_data, "read_packed", lambda _: pytest.fail("it was unpacked before"))
    np.testing.assert_array_equal(cifar_data.cifar100().x_train, source.x_train)


def test_without_its_folder_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLEARN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"cifar100_train_a\.npz: expected the environment's STREAMLEARN_DATA"):
        cifar_data.cifar100()


def test_tasks_are_five_classes_each_numbered_in_the_order_of_tasks() -> None:
    source = made_up()
    tasks = cifar.parts(source, SIZE, seed=0)
    assert [sorted(set(part.y.tolist())) for part in tasks] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    for part in tasks:
        assert len(part.y) == 40
        assert np.bincount(part.y)[part.y[0]] == 8
        assert sorted(part.truth.tolist()) == sorted(list(set(part.y.tolist())) * 3)
        assert not np.array_equal(part.y, np.sort(part.y))
    class_of = {image.tobytes(): int(c) for image, c in zip(cifar.seen(source.x_train), source.y_train, strict=True)}
    class_of |= {image.tobytes(): int(c) for image, c in zip(cifar.seen(source.x_test), source.y_test, strict=True)}
    pairs = {(class_of[image.tobytes()], int(y)) for part in tasks for image, y in zip(part.x, part.y, strict=True)}
    asked = {(class_of[image.tobytes()], int(y)) for part in tasks for image, y in zip(part.asked, part.truth, strict=True)}
    assert pairs == asked
    assert len(pairs) == 10
    other = cifar.parts(source, SIZE, seed=1)
    assert not np.array_equal(other[0].x, tasks[0].x)


def test_with_identity_only_the_tasks_own_classes_answer() -> None:
    class Knowing:
        def predict(self, x: np.ndarray, *, about: str) -> np.ndarray:
            return np.tile([0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 8.0 if about == "auto" else 0.0, 0.0, 7.0, 0.0], (len(x), 1))

    part = cifar.Part(np.zeros(0), np.zeros(0), np.zeros((4, 2)), np.array([1, 6, 6, 8]))
    assert cifar._accuracy(Knowing(), part, 1, identity=True) == {"auto": 50.0, "ever": 25.0}
    assert cifar._accuracy(Knowing(), part, 1, identity=False) == {"auto": 25.0, "ever": 25.0}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("identity", [True, False])
def test_every_row_learns_made_up_colours(row: str, identity: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "NETWORK", ModelSettings(name="conv", channels=3, hidden=(8,), channels_last=True))
    tasks = cifar.parts(made_up(), SIZE, seed=0)
    learner = cifar.make(row, tasks, 0, identity=identity, device="cpu")
    assert learner.settings.max_contexts == (2 if identity else 0)
    cell = cifar.run([part._replace(x=part.x[:20], y=part.y[:20]) for part in tasks], row, 0, identity=identity, device="cpu")
    assert 0 <= cell["retained"]["ever"] <= 100
    assert cell["interference"] == pytest.approx(cell["retained"]["auto"] - cell["just_after"])


def test_the_published_settings_are_what_runs() -> None:
    tasks = cifar.parts(made_up(), SIZE, seed=0)
    own = cifar.make("la-maml", tasks, 0, identity=True, device="cpu").settings
    assert (own.glances, own.inner_chunks, own.inner_lr, own.meta_lr, own.clip_norm) == (10, 5, 0.1, 0.25, 1.0)
    assert own.second_order
    assert not own.floor_inner
    assert own.memory.rows == 200


def test_runs_are_kept_and_the_table_says_what_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "cifar100", made_up)
    monkeypatch.setattr(cifar, "NETWORK", ModelSettings(name="conv", channels=2, hidden=(4,), channels_last=True))
    results = tmp_path / "cifar.json"
    size = ["--tasks", "2", "--per-class", "4", "--asked-per-class", "2"]
    monkeypatch.setattr(
        sys, "argv", ["cifar", *size, "--learners", "sgd", "--seeds", "0", "1", "--results", str(results), "--identity", "with"]
    )
    cifar.main()
    group = "2 tasks, 4 a class, 2 asked"
    assert set(json.loads(results.read_text())["runs"]) == {f"{group}/with/sgd/{seed}" for seed in (0, 1)}
    monkeypatch.setattr(cifar, "run", lambda *_, **__: pytest.fail("it was there"))
    cifar.main()
    text = results.with_suffix(".md").read_text()
    assert "| `la-maml` | 0 | not run | not run | | | | | 61.18 / −9.00 |" in text
    assert "| `sgd` | 2 |" in text
    assert table({}, {}).count("not run | not run") == 2 * len(ROWS)
    assert cifar.Size().name == IN_FULL
