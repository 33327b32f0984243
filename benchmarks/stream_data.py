"""The real streams of the benchmark folder, in stream order, and what is said of a pass over one of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array

FOLDER = "STREAMLEARN_DATA"
TUNING = ("electricity", "insects_gradual", "covtype20k", "gas_drift")
"""Streams on which settings may be chosen. All others are run with what was chosen."""
HELD_OUT = (
    "outdoor",
    "ne_weather",
    "keystroke",
    "abrupt_insects",
    "airlines2007",
    "arabic_digits",
    "wisdm",
    "posture100k",
    "interchanging_rbf60k",
    "transient_chessboard60k",
    "kdd99_first100k",
)
STREAMS = (*TUNING, *HELD_OUT)


class Stream(NamedTuple):
    """Rows in the order in which they came."""

    name: str
    x: Array  # float32 [n, columns]
    y: Array  # int64 [n]
    whole: bool  # nothing follows


class Labels(NamedTuple):
    """When labels come."""

    delay: int = 0  # rows between an answer and its label, and up to half as much again, ten at least
    share: float = 1.0  # of rows whose label ever comes
    is_served: bool = False  # labels come at once, and it is answers that are so many rows behind

    @property
    def block(self) -> int:
        """Rows that are answered between two arrivals of labels."""
        return max(10, self.delay // 2)


AT_ONCE = Labels()


def arrivals(count: int, labels: Labels, seed: int) -> Iterator[tuple[Array, slice]]:
    """Rows whose labels have come, then rows to answer, in turns: the same for every method."""
    comes = np.random.default_rng(seed).random(count) < labels.share
    for start in range(0, count, labels.block):
        due = slice(max(0, start - labels.delay - labels.block), max(0, start - labels.delay))
        yield np.flatnonzero(comes[due]) + due.start, slice(start, min(count, start + labels.block))


def stream(name: str, rows: int | None = None) -> Stream:
    """The first `rows` of a stream, or all. Errors: FileNotFoundError when STREAMLEARN_DATA does not name its folder."""
    path = Path(os.environ.get(FOLDER, "")) / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: expected the environment's {FOLDER} to name the folder of the benchmark data")
    with np.load(path, allow_pickle=False) as held:
        y = held["y"].astype(np.int64)
        return Stream(name, held["x"][:rows].astype(np.float32), y[:rows], whole=rows is None or len(y) <= rows)


def met(labels: Array) -> Array:
    """Labels as rows of a label map: numbered in the order in which they are first met."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def accuracy(labels: Array, answers: Array) -> float:
    """Per cent of rows answered rightly; an answer of −1, none given, is wrong."""
    return 100.0 * float((labels == answers).mean())


def kappa(labels: Array, answers: Array) -> float:
    """Cohen's κ in per cent: accuracy above that of answers drawn with the same frequencies, whatever the row."""
    agreed = float((labels == answers).mean())
    values = np.union1d(labels, answers)
    chance = sum(float((labels == v).mean() * (answers == v).mean()) for v in values)
    return 100.0 * (agreed - chance) / (1.0 - chance) if chance < 1.0 else 0.0
