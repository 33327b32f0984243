"""Rows as kernels take them that learn row by row; log-probabilities over labels that may answer; random numbers by count.

Label c was first learned as row number `admitted[c]`; it may answer row number m when `admitted[c] < m`.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled, summing
from streamlearn.records import Array

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
TURNED = 8
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11))
UNIT = 1.0 / (1 << 53)


class Rows(NamedTuple):
    """Rows in stream order, to be answered and, where `learned`, then learned."""

    z: Array  # [n, inputs]: standardised, then categories as inputs of a network
    u: Array  # [n, columns]: place in [0, 1]; categorical columns last, in an order drawn by chance
    labels: Array  # int64 [n]
    learned: Array  # bool [n]
    numbers: Array  # int64 [n]: how many rows were learned before this one
    admitted: Array  # int64 [capacity]: number of the row by which a label was first learned; −1 known from the start
    width: int  # one past the highest label that is admitted in the end
    lines: Array  # int64 [n, categorical columns]: line of a table with one for each bucket of each; −1 where there is none


@compiled
def add(total: Array, factor: Any, row: Array) -> None:
    """`total += factor * row`, entry by entry."""
    for o in range(len(total)):
        total[o] += factor * row[o]


class Terms(NamedTuple):
    """Room for the terms of a sum: lines of a table, and their factors."""

    picks: Array  # int64 [most terms]
    factors: Array  # [most terms]


@compiled
def turn(table: Array, lines: int, width: int, turned: Array) -> None:
    """`turned[o, i] = table[i, o]` for the first `lines` lines, some at a time, so that what is written lies together."""
    whole = lines - lines % TURNED
    for start in range(0, whole, TURNED):
        for o in range(width):
            for i in range(TURNED):
                turned[o, start + i] = table[start + i, o]
    for i in range(whole, lines):
        for o in range(width):
            turned[o, i] = table[i, o]


@summing
def dot_of_lines(a: Array, i: int, b: Array, j: int, width: int) -> Any:
    """`a[i, :width] · b[j, :width]`."""
    total = a.dtype.type(0)
    for p in range(width):
        total += a[i, p] * b[j, p]
    return total


@compiled
def chance(seed: Any, count: int, draw: int) -> float:
    """Draw number `draw` at `count`, uniform in [0, 1).

    Source  Steele, Lea, Flood 2014, SplitMix64, its state jumped to; no state is kept, so nothing needs to be restored.
    """
    mixed = np.uint64(seed) + GOLDEN * (np.uint64(count) * np.uint64(256) + np.uint64(draw) + np.uint64(1))
    mixed = (mixed ^ (mixed >> SHIFTS[0])) * FIRST
    mixed = (mixed ^ (mixed >> SHIFTS[1])) * SECOND
    mixed = mixed ^ (mixed >> SHIFTS[2])
    return np.int64(mixed >> SHIFTS[3]) * UNIT


@compiled
def log_softmax(scores: Array, admitted: Array, number: int, out: Array) -> None:
    """Log-probabilities of `scores` over labels admitted before row `number`; −∞ for the others."""
    highest = -np.inf
    for c in range(len(scores)):
        if admitted[c] < number and scores[c] > highest:
            highest = scores[c]
    total = 0.0
    for c in range(len(scores)):
        if admitted[c] < number:
            total += np.exp(scores[c] - highest)
    shift = highest + np.log(total)
    for c in range(len(scores)):
        out[c] = scores[c] - shift if admitted[c] < number else -np.inf


@compiled
def loss_gradient(scores: Array, rows: Rows, n: int, label: int, delta: Array) -> None:
    """Of cross-entropy by `scores`, row n's own label among those that may answer."""
    log_softmax(scores, rows.admitted, rows.numbers[n] + 1, delta)
    for c in range(len(scores)):
        delta[c] = np.exp(delta[c])
    delta[label] -= 1
