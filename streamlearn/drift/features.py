"""The inputs as numbers whose mean can be watched, and their names.

A category becomes a number in [−1, 1] that its bucket hashes to, so that a change in how often each comes moves the mean; of a
column that may be missing, the share that is missing is a feature too. A missing number counts as a usual one.
"""

from collections.abc import Sequence

import numpy as np

from streamlearn.records import Array
from streamlearn.schema import Schema


class Features:
    """Of inputs of one shape."""

    def __init__(self, shape: Sequence[int], schema: Schema | None = None) -> None:
        columns = schema.columns if schema is not None else ()
        size = int(np.prod(shape, dtype=np.int64))
        plain = [column.name for column in columns] or [",".join(map(str, np.unravel_index(i, shape))) for i in range(size)]
        self._categorical = np.array([i for i, column in enumerate(columns) if column.kind == "categorical"], np.int64)
        self._gaps = np.array([i for i, column in enumerate(columns) if column.missing], np.int64)
        self.numbers = np.array([i not in self._categorical for i in range(size)] + [False] * len(self._gaps), bool)
        """Of each, whether it is a number of the input itself."""
        self.names = (*plain, *(f"{plain[i]} missing" for i in self._gaps))

    def __len__(self) -> int:
        return len(self.names)

    def of(self, x: Array) -> Array:
        """float64 [n, features] of rows [n, *shape]; NaN where there is no number."""
        flat = x.reshape(len(x), -1).astype(np.float64)
        missing = np.isnan(flat[:, self._gaps]).astype(np.float64)
        if len(self._categorical):
            flat[:, self._categorical] = hashed(flat[:, self._categorical])
        return np.concatenate([flat, missing], axis=1) if len(self._gaps) else flat


def hashed(buckets: Array) -> Array:
    """In [−1, 1], by SplitMix64's last step; NaN stays."""
    known = ~np.isnan(buckets)
    z = np.where(known, buckets, 0.0).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    numbers = (z >> np.uint64(11)).astype(np.float64) / (1 << 52) - 1.0
    return np.where(known, numbers, np.nan)
