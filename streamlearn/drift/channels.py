"""What is watched of a row: each feature, or random projections of all of them; in units of what is usual."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from streamlearn.drift.features import hashed
from streamlearn.records import Array, State

Watched = Literal["mean", "spread"]
FARTHEST = 4.0
"""Standard deviations beyond which a value counts no more: one wild value is not a drift."""
LEAST = 1e-3
"""Standard deviation of what stood still in the warm-up, as a share of its size; and where it stood at 0."""


class Usual:
    """Mean and standard deviation of columns, learned from rows. NaN is passed over."""

    def __init__(self, width: int) -> None:
        self._count, self.mean, self._squares = np.zeros(width), np.zeros(width), np.zeros(width)
        self._deviation: Array | None = None

    def take(self, rows: Array) -> None:
        """Rows [n, width].

        Source  Chan, Golub and LeVeque 1983, updating formulae for variances.
        """
        known = ~np.isnan(rows)
        count = known.sum(0)
        mean = np.where(known, rows, 0.0).sum(0) / np.maximum(count, 1)
        squares = np.where(known, (rows - mean) ** 2, 0.0).sum(0)
        total = np.maximum(self._count + count, 1)
        away = mean - self.mean
        self.mean = self.mean + away * count / total
        self._squares = self._squares + squares + away**2 * self._count * count / total
        self._count = self._count + count
        self._deviation = None

    @property
    def deviation(self) -> Array:
        """Never 0."""
        if self._deviation is None:
            found = np.sqrt(self._squares / np.maximum(self._count, 1))
            self._deviation = np.maximum(found, LEAST * np.where(self.mean, np.abs(self.mean), 1.0))
        return self._deviation

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        return State({"count": self._count.copy(), "mean": self.mean.copy(), "squares": self._squares.copy()})

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self._count, self.mean, self._squares = (state.arrays[name].copy() for name in ("count", "mean", "squares"))
        self._deviation = None


class Size(NamedTuple):
    """How many channels there may be."""

    max_features: int
    projections: int
    seed: int


class Channels:
    """Features themselves up to a number of them, else projections on random signs, which a seed fixes.

    The spread is the mean distance from the usual mean, of numbers alone: a category's and a gap's follow from their means.
    Squares would tell of the tails, which are never still in real columns.

    Source  Achlioptas 2003, Database-friendly random projections.
    """

    def __init__(self, numbers: Array, size: Size, watch: Sequence[Watched]) -> None:
        """`numbers`: which features are."""
        self.features, self.watch, self._numbers = len(numbers), tuple(watch), np.flatnonzero(numbers)
        self._signs: Array | None = None
        counts = {"mean": self.features, "spread": len(self._numbers)}
        if self.features > size.max_features:
            shape = (size.projections, self.features)
            places = np.arange(1, size.projections * self.features + 1, dtype=np.float64) + size.seed * float(1 << 32)
            self._signs = np.where(hashed(places) > 0, 1.0, -1.0).reshape(shape) / np.sqrt(self.features)
            counts = dict.fromkeys(counts, size.projections)
        self.count = sum(counts[name] for name in self.watch)

    def of(self, rows: Array, usual: Usual) -> Array:
        """Of rows [n, features] what is watched [channels], in standard deviations of the features."""
        deviations = (rows - usual.mean) / usual.deviation
        np.clip(deviations, -FARTHEST, FARTHEST, out=deviations)
        deviations[np.isnan(deviations)] = 0.0
        told = {"mean": self._mean, "spread": self._spread}
        return np.concatenate([told[name](deviations) for name in self.watch])

    def _mean(self, deviations: Array) -> Array:
        mean: Array = deviations.sum(0) / len(deviations)
        return mean if self._signs is None else self._signs @ mean

    def _spread(self, deviations: Array) -> Array:
        seen = deviations[:, self._numbers] if self._signs is None else deviations @ self._signs.T
        spread: Array = np.abs(seen).sum(0) / len(deviations)
        return spread
