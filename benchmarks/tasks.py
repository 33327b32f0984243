"""The paper's three streams of tasks on MNIST: turned images, and images whose pixels are shuffled.

Source  Lopez-Paz and Ranzato 2017; Riemer et al. 2019; Gupta, Yadav, Paull 2020. Angles and permutations are the same in
        every run, whatever its seed; samples, their order and the first weights come from the seed. Their archived draws are
        not public, so ours differ from theirs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.images import DATA_SEED, Images, angles, turned
from streamlearn.records import Array


class Shape(NamedTuple):
    """What a stream is made of."""

    tasks: int
    samples: int  # of each task
    memory: int  # rows for replay
    turns: bool  # images are turned; else their pixels are shuffled
    of: int | None = None  # tasks of the stream that these are the first of


STREAMS = {
    "rotations": Shape(20, 1000, 200, turns=True),
    "permutations": Shape(20, 1000, 200, turns=False),
    "many": Shape(100, 200, 500, turns=False),
}


class View(NamedTuple):
    """How a task shows an image."""

    degrees: float | None
    pixels: Array | None  # int64 [height · width]: where each pixel comes from

    def seen(self, x: Array) -> Array:
        """float32 [n, height · width] in [0, 1] out of uint8 [n, height, width]."""
        if self.degrees is not None:
            x = turned(x, self.degrees)
        flat = x.reshape(len(x), -1)
        return (flat if self.pixels is None else flat[:, self.pixels]) / np.float32(255)


def views(shape: Shape, pixels: int) -> list[View]:
    """One for each task."""
    if shape.turns:
        return [View(degrees, None) for degrees in angles(shape.of or shape.tasks)[: shape.tasks]]
    return [View(None, np.random.default_rng([DATA_SEED, 3, t]).permutation(pixels)) for t in range(shape.tasks)]


def samples(source: Images, shape: Shape, seed: int) -> Iterator[tuple[Array, Array]]:
    """Each task's training samples as it shows them, drawn without repeats within a task."""
    generator = np.random.default_rng([seed, 1])
    for view in views(shape, int(np.prod(source.x_train.shape[1:]))):
        chosen = generator.permutation(len(source.y_train))[: shape.samples]
        yield view.seen(source.x_train[chosen]), source.y_train[chosen]
