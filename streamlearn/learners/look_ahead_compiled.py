"""The compiled form of first-order look-ahead, for multi-layer perceptrons on the CPU, on weights that are packed."""

import math

import numpy as np

from streamlearn.kernels.look_ahead_mlp import score_rows, update
from streamlearn.kernels.look_ahead_room import Bench, Query, Rates, Weights, bench_for
from streamlearn.records import Array


class CompiledLookAhead:
    """Moves packed weights. Keeps room to work between calls, and nothing else."""

    def __init__(self, rates: Rates, *, chunk: int, steps: int, replay_rows: int) -> None:
        self.rates = rates
        self.chunk = chunk
        self.steps = steps
        self.replay_rows = replay_rows
        self._bench: Bench | None = None
        self._x: Array = np.zeros((0, 0))
        self._y = self._heads = np.zeros(0, np.int64)

    def update(self, weights: Weights, query: Query) -> None:
        """One glance, in place."""
        update(weights, query, self.rates, self._bench_of(weights))

    def alignment(self, weights: Weights, query: Query) -> float:
        """Cosine between the gradients on replayed and on fresh rows; NaN when one of them is zero or not finite."""
        bench, kept = self._bench_of(weights), len(query.y) - self.chunk
        score_rows(weights.theta, query, bench)
        with np.errstate(invalid="ignore", over="ignore"):
            products = _inner_products(query.x, bench)
            old, new, both = products[:kept, :kept].sum(), products[kept:, kept:].sum(), products[:kept, kept:].sum()
            return float(both / np.sqrt(old * new)) if old * new > 0 else math.nan

    def fit(self, sizes: list[int], dtype: str) -> None:
        """Make room for a network of these layer sizes, unless it is there."""
        if self._bench is None or self._bench.sizes.tolist() != sizes:
            rows = self.replay_rows + self.chunk
            self._bench = bench_for(sizes, rows=rows, fresh=self.chunk, steps=self.steps, dtype=dtype)
            self._x, self._y = np.zeros((rows, sizes[0]), dtype), np.zeros(rows, np.int64)

    def begin(self, x: Array, labels: Array, active: Array) -> None:
        """Take a chunk's own rows, which lie last in every query. `active` [capacity] says which head rows take part."""
        self._heads = np.cumsum(active) - 1
        self._x[self.replay_rows :] = x.reshape(self.chunk, -1)
        self._y[self.replay_rows :] = self._heads[labels]

    def query(self, x: Array, labels: Array, order: Array) -> Query:
        """Replayed rows, at most as many as there is room for, before the chunk's own; `order` is cut into inner steps."""
        start = self.replay_rows - len(labels)
        self._x[start : self.replay_rows] = x.reshape(len(labels), self._x.shape[1])
        self._y[start : self.replay_rows] = self._heads[labels]
        return Query(self._x[start:], self._y[start:], order.reshape(self.steps, -1))

    def _bench_of(self, weights: Weights) -> Bench:
        if self._bench is None or len(weights.theta) != self._bench.starts[-1]:
            raise ValueError("weights do not fit the room that was made for them: expected a call of `fit` before")
        return self._bench


def _inner_products(x: Array, bench: Bench) -> Array:
    """Of the gradients of all pairs of rows: per layer (inputs · inputs + 1) (deltas · deltas)."""
    rows, inputs = len(x), x
    products = np.zeros((rows, rows))
    for outputs, deltas, before, after in zip(bench.outputs, bench.deltas, bench.sizes[:-1], bench.sizes[1:], strict=True):
        given, back = inputs[:rows, :before], deltas[:rows, :after]
        products += (given @ given.T + 1) * (back @ back.T)
        inputs = outputs
    return products
