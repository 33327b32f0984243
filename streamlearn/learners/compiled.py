"""The compiled form of first-order look-ahead, for multi-layer perceptrons on the CPU: packs, calls, unpacks.

Weights are packed once per chunk and unpacked into new tensors, so that the learner's values are replaced, never
written into. Of the head only the rows in the softmax take part.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.errors import ConfigError
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


def is_compiled(wish: str, *, can: bool, expected: str) -> bool:
    """Whether the compiled form is taken. Errors: ConfigError where it is asked for and there is none."""
    if wish == "numba" and not can:
        raise ConfigError(f"learner.kernel is 'numba': expected {expected} on the CPU; leave the key out for the default, auto")
    return can and wish in ("auto", "numba")


def packed(params: Params, active: Tensor) -> Array:
    """One flat array: per layer weights [in, out] and biases, the head's active rows last."""
    head = [params["head.weight"][active].T, params["head.bias"][active]]
    return torch.cat([p.flatten() for p in (*_body(params), *head)]).numpy()


def unpacked(flat: Array, like: Params, active: Tensor) -> Params:
    """Tensors out of a flat array, which is theirs from now on; head rows that are not active stay as they are in `like`.

    Each but the first is an allocation of its own: a view's alignment would differ from a restored tensor's, and with it a
    library's order of summation.
    """
    count = int(active.sum())
    width = like["head.weight"].shape[1]
    sizes = [p.numel() for p in _body(like)]
    *body, weight, bias = torch.split(torch.from_numpy(flat), [*sizes, width * count, count])
    body = [*body[:1], *(part.clone() for part in body[1:])]
    names = [name for name in like if not name.startswith("head.")]
    params = {name: part.view(like[name].shape) for name, part in zip(names, body, strict=True)}
    head = {"head.weight": like["head.weight"].clone(), "head.bias": like["head.bias"].clone()}
    head["head.weight"][active] = weight.view(width, count).T
    head["head.bias"][active] = bias
    return {**params, **head}


def layer_sizes(params: Params, active: Tensor) -> list[int]:
    """Inputs, hidden layers, active labels."""
    hidden = [p.shape[1] for name, p in params.items() if name.endswith("weight") and name.startswith("body.")]
    first = next(iter(params.values())).shape[0] if hidden else params["head.weight"].shape[1]
    return [first, *hidden, int(active.sum())]


def _body(params: Params) -> Iterable[Tensor]:
    return [p for name, p in params.items() if not name.startswith("head.")]


def _inner_products(x: Array, bench: Bench) -> Array:
    """Of the gradients of all pairs of rows: per layer (inputs · inputs + 1) (deltas · deltas)."""
    rows, inputs = len(x), x
    products = np.zeros((rows, rows))
    for outputs, deltas, before, after in zip(bench.outputs, bench.deltas, bench.sizes[:-1], bench.sizes[1:], strict=True):
        given, back = inputs[:rows, :before], deltas[:rows, :after]
        products += (given @ given.T + 1) * (back @ back.T)
        inputs = outputs
    return products
