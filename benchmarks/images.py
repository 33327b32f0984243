"""The images of the benchmarks, and the stream of turned images that they become.

Source  Lopez-Paz and Ranzato 2017, MNIST Rotations, as Gupta, Yadav, Paull 2020 use it: 20 tasks of 1,000 samples; task t has
        one angle, drawn uniformly from the t-th of equal slices of 0 to 180 degrees. Their archived draws are not public.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array

FOLDER = "STREAMLEARN_DATA"
DATA_SEED = 2020
"""Of the angles and of the test images that are asked after each task: the same in every run, whatever its seed."""


class Images(NamedTuple):
    """A data set of images, 8 bits a pixel."""

    name: str
    x_train: Array  # uint8 [n, height, width]
    y_train: Array  # int64 [n]
    x_test: Array
    y_test: Array


class Task(NamedTuple):
    """What is learned at one angle."""

    degrees: float
    x: Array  # uint8 [samples, height, width], turned
    y: Array  # int64 [samples]


def images(*, small: bool = False) -> Images:
    """MNIST from the folder that STREAMLEARN_DATA names; without it, or when `small`, scikit-learn's digits."""
    path = Path(os.environ.get(FOLDER, "")) / "mnist.npz"
    if small or not os.environ.get(FOLDER) or not path.is_file():
        return digits()
    with np.load(path, allow_pickle=False) as file:
        return Images("MNIST", file["x_train"], file["y_train"], file["x_test"], file["y_test"])


def digits() -> Images:
    """1,797 images of 8 by 8 that ship with scikit-learn, 500 of them for tests; grey levels 0 to 16 become 0 to 240."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  takes a second, and MNIST does without

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(DATA_SEED).permutation(len(y))
    x = (15 * x.reshape(-1, 8, 8)).astype(np.uint8)[order]
    y = y.astype(np.int64)[order]
    return Images("scikit-learn digits", x[500:], y[500:], x[:500], y[:500])


def turned(x: Array, degrees: float) -> Array:
    """Images [n, height, width] turned counter-clockwise about their centre; nearest neighbour, black outside."""
    height, width = x.shape[1:]
    down, right = np.mgrid[:height, :width] + 0.5
    down, right = down - height / 2, right - width / 2
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    columns = np.floor(cosine * right - sine * down + width / 2).astype(np.int64)
    rows = np.floor(sine * right + cosine * down + height / 2).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found: Array = np.where(inside, x[:, rows.clip(0, height - 1), columns.clip(0, width - 1)], 0).astype(x.dtype)
    return found


def angles(tasks: int, seed: int = DATA_SEED) -> list[float]:
    """Degrees of each task: one from each of `tasks` equal slices of 0 to 180."""
    draws = np.random.default_rng(seed).random(tasks)
    return [float((t + draw) * 180 / tasks) for t, draw in enumerate(draws)]


def stream(source: Images, *, tasks: int, samples: int, seed: int) -> list[Task]:
    """Each task's samples in order of learning: drawn without repeats within a task, by `seed`."""
    generator = np.random.default_rng([seed, 1])
    made = []
    for degrees in angles(tasks):
        chosen = generator.permutation(len(source.y_train))[:samples]
        made.append(Task(degrees, turned(source.x_train[chosen], degrees), source.y_train[chosen]))
    return made


def asked(source: Images, count: int) -> Array:
    """Rows of the test images that are asked after each task, the same for all."""
    return np.random.default_rng([DATA_SEED, 2]).permutation(len(source.y_test))[:count]
