"""Scores [n, C] of each member of a pool, before any mask: its own arrays, and rows as shown."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from streamlearn.records import Array
from streamlearn.serving.forms.columns import Shown

Scores: TypeAlias = Callable[[Mapping[str, Array], Shown], Array]


def quantile_ramps(arrays: Mapping[str, Array], rows: Shown) -> Array:
    """`weights` [columns · ramps + buckets + 1, C], the bias last; `columns`: how many have ramps, and how many each."""
    weights, (columns, ramps) = arrays["weights"], arrays["columns"].tolist()
    heights = (rows.u[:, :columns, None] * np.float32(ramps) - np.arange(ramps, dtype=np.float32)).clip(0.0, 1.0)
    scores: Array = heights.reshape(len(rows.u), columns * ramps) @ weights[: columns * ramps] + weights[-1]
    for line in rows.lines.T:  # of each categorical column
        scores += np.where(line[:, None] < 0, np.float32(0.0), weights[columns * ramps + line])
    return scores


def partitions(arrays: Mapping[str, Array], rows: Shown) -> Array:
    """`column`, `threshold` [trees, inner nodes], `cells` [trees · 2 · inner nodes, C]."""
    column, threshold, cells = arrays["column"], arrays["threshold"], arrays["cells"]
    trees, inner = column.shape
    each, row = np.arange(trees), np.arange(len(rows.u))[:, None]
    node = np.zeros((len(rows.u), trees), np.int64)
    scores = np.zeros((len(rows.u), cells.shape[1]), np.float32)
    for _ in range(int(inner).bit_length()):
        right = rows.u[row, column[each, node]] > threshold[each, node]
        node = 2 * node + 1 + right
        scores += cells[each * 2 * inner + node - 1].sum(1)
    return scores


def mlp(arrays: Mapping[str, Array], rows: Shown) -> Array:
    """`layers.{i}` [inputs + 1, outputs], the biases last; `scale`, where there is one, multiplies the inputs."""
    h = rows.z * arrays["scale"] if "scale" in arrays else rows.z
    for i in range(len(arrays) - ("scale" in arrays)):
        layer = arrays[f"layers.{i}"]
        h = (np.maximum(h, 0.0) if i else h) @ layer[:-1] + layer[-1]
    return np.asarray(h)


def label_law(arrays: Mapping[str, Array], rows: Shown) -> Array:
    """`next` [C]: the same for every row."""
    return np.broadcast_to(arrays["next"], (len(rows.u), len(arrays["next"])))


MEMBERS: Mapping[str, Scores] = {
    "quantile-ramps": quantile_ramps,
    "steady-ramps": quantile_ramps,
    "settled-ramps": quantile_ramps,
    "partitions": partitions,
    "steady-partitions": partitions,
    "settled-partitions": partitions,
    "plastic-mlp": mlp,
    "sliding-look-ahead": mlp,
    "slow": mlp,
    "label-law": label_law,
}
