"""Streams whose change points are known, real and made, and the same rows in an order that knows no change.

Each seed leaves out another tenth of the rows, so that a recorded stream has more than one course; points move along. Of the
benchmark folder, `transient_chessboard60k` names no points and is not here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from river.datasets import synth

from benchmarks.images import FOLDER, Images, angles, turned
from benchmarks.stream_data import met, stream
from streamlearn.records import Array

ABRUPT, GRADUAL = 1500, 4000
"""Rows after a point within which a detection is of it."""
LAW = 2000  # rows of one law of a generated stream
BLUR = 1000  # rows within which a blurred change comes
ROWS, COLUMNS = 8000, 10  # of a stream whose spread changes half-way
TASK, MIXED = 1200, 800  # rows of a turn of MNIST, and of those in which a gradual one comes


class Changing(NamedTuple):
    """Rows in stream order."""

    x: Array  # float32 [n, columns]
    y: Array  # int64 [n]
    points: tuple[int, ...]  # rows at which something begins to change
    horizon: int  # rows after a point within which a detection is of it


def recorded(name: str, key: str, horizon: int, rows: int | None = None) -> Callable[[int], Changing]:
    """A stream of the folder, whose file names its points under `key`."""

    def made(seed: int) -> Changing:
        held = stream(name, rows)
        with np.load(Path(os.environ[FOLDER]) / f"{name}.npz", allow_pickle=False) as file:
            points = [int(point) for point in file[key] if point < len(held.y)]
        return thinned(Changing(held.x, met(held.y), tuple(points), horizon), seed)

    return made


def blurred(abrupt: Callable[[int], Changing]) -> Callable[[int], Changing]:
    """The same stream, each row moved by up to half of `BLUR` rows: what changed at a row now does so gradually around it."""

    def made(seed: int) -> Changing:
        sharp = abrupt(seed)
        moved = np.random.default_rng([seed, 8]).uniform(-BLUR / 2, BLUR / 2, len(sharp.y))
        order = np.argsort(np.arange(len(sharp.y)) + moved, kind="stable")
        points = tuple(point - BLUR // 2 for point in sharp.points)
        return Changing(sharp.x[order], sharp.y[order], points, GRADUAL)

    return made


def spreading(factor: float) -> Callable[[int], Changing]:
    """Columns of three laws, mean 0 and deviation 1, the spread of one of which is multiplied half-way."""

    def made(seed: int) -> Changing:
        draw = np.random.default_rng([seed, 10])
        x = draw.normal(size=(ROWS, COLUMNS))
        x[:, 4:7] = draw.standard_t(3, (ROWS, 3)) / np.sqrt(3)
        x[:, 7:] = (draw.lognormal(size=(ROWS, 3)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
        x[ROWS // 2 :, (3 * seed) % COLUMNS] *= factor
        return Changing(x.astype(np.float32), np.zeros(ROWS, np.int64), (ROWS // 2,), ABRUPT)

    return made


def generated(laws: Callable[[int], Sequence[Any]]) -> Callable[[int], Changing]:
    """Rows of river's generators, one after another."""

    def made(seed: int) -> Changing:
        drawn = [row for law in laws(seed) for row in law.take(LAW)]
        x = np.array([list(features.values()) for features, _ in drawn], np.float32)
        points = tuple(range(LAW, len(drawn), LAW))
        return Changing(x, np.array([int(label) for _, label in drawn], np.int64), points, ABRUPT)

    return made


def turning(*, gradual: bool, source: Images | None = None) -> Callable[[int], Changing]:
    """Images of MNIST at five angles, one after another; `gradual`: within some rows more and more are at the next angle."""

    def made(seed: int) -> Changing:
        images = source or _mnist()
        draw = np.random.default_rng([seed, 5])
        rows = draw.permutation(len(images.y_train))[: 5 * TASK]
        at = np.arange(5 * TASK)
        task, since = at // TASK, at % TASK
        if gradual:  # the last rows of a task are more and more the next one's
            ahead = draw.random(len(at)) < (since - (TASK - MIXED)) / MIXED
            task = np.minimum(task + ahead, 4)
        x = np.zeros((len(at), images.x_train[0].size), np.float32)
        for number, degrees in enumerate(angles(5)):
            mine = task == number
            x[mine] = turned(images.x_train[rows[mine]], degrees).reshape(int(mine.sum()), -1) / np.float32(255)
        points = tuple(TASK * number - (MIXED if gradual else 0) for number in range(1, 5))
        return Changing(x, met(images.y_train[rows]), points, GRADUAL if gradual else ABRUPT)

    return made


STREAMS: Mapping[str, Callable[[int], Changing]] = {
    "abrupt_insects": recorded("abrupt_insects", "approx_change_points", ABRUPT),
    "arabic_digits": recorded("arabic_digits", "change_points", ABRUPT),
    "interchanging_rbf": recorded("interchanging_rbf60k", "change_points", ABRUPT, 10_000),
    "insects_gradual": recorded("insects_gradual", "change_points", GRADUAL),
    "turned MNIST": turning(gradual=False),
    "turning MNIST": turning(gradual=True),
}
BLURRED = ("abrupt_insects", "arabic_digits", "interchanging_rbf")
STREAMS = {**STREAMS, **{f"blurred {name}": blurred(STREAMS[name]) for name in BLURRED}}
TUNING: Mapping[str, Callable[[int], Changing]] = {
    "agrawal": generated(
        lambda seed: [
            synth.Agrawal(classification_function=rule, seed=100 + 10 * seed + part) for part, rule in enumerate((0, 3, 6, 2))
        ]
    ),
    "sine": generated(
        lambda seed: [
            synth.Sine(classification_function=part, seed=100 + 10 * seed + part, has_noise=True) for part in range(4)
        ]
    ),
    "random RBF": generated(
        lambda seed: [
            synth.RandomRBF(7 * seed + part, 10 * seed + part, n_classes=4, n_features=8, n_centroids=20) for part in range(4)
        ]
    ),
}
"""Streams on which settings of detectors on the answers are chosen; none of them is in the tables of `benchmarks.drift`."""
SPREADS: Mapping[str, Callable[[int], Changing]] = {
    "spread halved": spreading(0.5),
    "spread × 1.5": spreading(1.5),
    "spread doubled": spreading(2.0),
}
"""Streams for detectors on the inputs alone."""


def thinned(whole: Changing, seed: int) -> Changing:
    """Without a random tenth of the rows."""
    stays = np.random.default_rng([seed, 6]).random(len(whole.y)) >= 0.1
    points = tuple(int(stays[:point].sum()) for point in whole.points)
    return Changing(whole.x[stays], whole.y[stays], points, whole.horizon)


def still(changing: Changing, seed: int) -> Changing:
    """At most 3,000 of the same rows, shuffled: nothing changes."""
    order = np.random.default_rng([seed, 7]).permutation(len(changing.y))[:3000]
    return Changing(changing.x[order], met(changing.y[order]), (), changing.horizon)


def _mnist() -> Images:
    with np.load(Path(os.environ[FOLDER]) / "mnist.npz", allow_pickle=False) as file:
        return Images("mnist", file["x_train"], file["y_train"], file["x_test"], file["y_test"])
