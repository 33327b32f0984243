"""Random nested partitions of the columns' places, each cell with a learned vector of scores; compiled.

The cells on a row's path through all trees add up to its scores: a sparse code of many resolutions, with a linear softmax.
"""

from typing import NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows, add, log_softmax, loss_gradient
from streamlearn.kernels.sums import sum_terms
from streamlearn.records import Array


class Cuts(NamedTuple):
    """Each tree's inner nodes, level by level: a row goes right when its place in `column` is above `threshold`."""

    column: Array  # int64 [trees, 2 ** depth − 1]
    threshold: Array  # [trees, 2 ** depth − 1]


@compiled
def _path(u: Array, cuts: Cuts, path: Array) -> None:
    """Cells of a row, one per tree and level; cells are numbered level by level, below the root."""
    trees, inner = cuts.column.shape
    cells, at = 2 * inner, 0
    for tree in range(trees):
        node = 0
        while node < inner:
            node = 2 * node + (2 if u[cuts.column[tree, node]] > cuts.threshold[tree, node] else 1)
            path[at] = tree * cells + node - 1
            at += 1


@compiled
def run(rows: Rows, cuts: Cuts, rate: float, cells: Array, out: Array) -> None:
    """Answer each row from the cells [trees · (2 ** (depth + 1) − 2), capacity]; then, where it is learned, move its own.

    `rate` is by how much a row's scores move for a gradient of 1: each cell on its path takes an equal share.
    """
    width, trees = out.shape[1], cuts.column.shape[0]
    depth = 0
    while (1 << depth) - 1 < cuts.column.shape[1]:
        depth += 1
    path = np.zeros(trees * depth, np.int64)
    all_scores, delta, ones = np.zeros((1, width), cells.dtype), np.zeros(width, cells.dtype), np.ones(len(path), cells.dtype)
    scores, step = all_scores[0], cells.dtype.type(-rate / len(path))
    for n in range(len(out)):
        _path(rows.u[n], cuts, path)
        sum_terms(all_scores, 0, cells, len(path), path, ones)
        log_softmax(scores, rows.admitted, rows.numbers[n], out[n])
        if rows.learned[n]:
            loss_gradient(scores, rows, n, rows.labels[n], delta)
            for cell in path:
                add(cells[cell, :width], step, delta)
