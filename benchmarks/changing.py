"""Streams whose change points are known, real and made, and the same rows in an order that knows no change.

Each seed leaves out another tenth of the rows, so that a recorded stream has more than one course; points move along. Of the
benchmark folder, `transient_chessboard60k` names no points and is not here.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.images import FOLDER, Images, angles, turned
from benchmarks.stream_data import met, stream
from streamlearn.records import Array

ABRUPT, GRADUAL = 1500, 4000
"""Rows after a point within which a detection is of it."""
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
