"""Weights of a pool's members, and whether a row resembles the present; compiled, row by row.

The pool multiplies evidence: its scores are Σₑ vₑ·log((1 − ε)·pₑ(c) + ε/C), so that a law of labels times p(label | input) is
one step of a filter. v follows the gradient of the pool's own loss, each entry at its own fading AdaGrad rate.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows, chance, log_softmax
from streamlearn.records import Array


class Trust(NamedTuple):
    """What a pool learns, in place. float64."""

    weights: Array  # [members]: v
    squares: Array  # [members]: faded sums of squared gradients


class Presence(NamedTuple):
    """Rows of the present and of the past, as decoded, column by column; what learning changes, in place."""

    rows: Array  # float32 [columns, window + past]: the ring of recent rows, then a uniform sample of those that left it
    held: Array  # int64 [2]: rows that entered the window; rows that left it
    scores: Array  # float64 [window]: of the last rows learned
    threshold: Array  # float64 [1]; the least number there is until there are scores


class Pace(NamedTuple):
    """How weights are learned."""

    rate: float
    fade: float  # weight of a squared gradient after one more row
    floor: float  # ε


class Watched(NamedTuple):
    """Rows that a gate decides on."""

    x: Array  # float32 [n, columns], as decoded
    gain: Array  # float32 [n, columns], or one line for all rows
    learned: Array  # bool [n]


class Gate(NamedTuple):
    """How it decides."""

    seed: Any  # np.uint64
    reach: Any  # np.float32, bound on the distance along a column
    quantile: float
    every: int  # rows between two readings of the quantile


@compiled
def mix(answers: Array, rows: Rows, pace: Pace, trust: Trust, out: Array) -> None:
    """Answer each row from its members' log-probabilities [members, n, C]; then, where it is learned, move the weights."""
    members, _, width = answers.shape
    evidence, scores = np.zeros((members, width)), np.zeros(width)
    for n in range(len(out)):
        active = 0
        for c in range(width):
            active += rows.admitted[c] < rows.numbers[n]
        scores[:] = 0
        for e in range(members):
            for c in range(width):
                if rows.admitted[c] < rows.numbers[n]:
                    evidence[e, c] = np.log((1.0 - pace.floor) * np.exp(float(answers[e, n, c])) + pace.floor / active)
                    scores[c] += trust.weights[e] * evidence[e, c]
        log_softmax(scores, rows.admitted, rows.numbers[n], out[n])
        if rows.learned[n] and rows.admitted[rows.labels[n]] < rows.numbers[n]:
            for e in range(members):
                gradient = _gradient(rows, n, evidence[e], out[n])
                trust.squares[e] = pace.fade * trust.squares[e] + gradient * gradient
                trust.weights[e] -= pace.rate * gradient / (np.sqrt(trust.squares[e]) + 1e-8)


@compiled
def _gradient(rows: Rows, n: int, evidence: Array, answer: Array) -> float:
    """Of row n's loss in the weight of one member."""
    gradient = -evidence[rows.labels[n]]
    for c in range(len(answer)):
        if rows.admitted[c] < rows.numbers[n]:
            gradient += np.exp(answer[c]) * evidence[c]
    return float(gradient)


@compiled
def _nearest(distances: Array, start: int, end: int) -> float:
    nearest = float(distances[start])
    for r in range(start + 1, end):
        nearest = min(nearest, float(distances[r]))
    return nearest


@compiled
def score(row: Array, gain: Array, reach: Any, presence: Presence, distances: Array) -> float:
    """Log of how much farther the nearest row of the past is than that of the present; +∞ while there is no past."""
    window, past = len(presence.scores), presence.rows.shape[1] - len(presence.scores)
    if presence.held[1] == 0:
        return np.inf
    distances[:] = 0
    for f in range(len(row)):
        value, per = row[f], gain[f]
        column = presence.rows[f]
        for r in range(len(distances)):
            away = (column[r] - value) * per
            away = min(max(away, -reach), reach)
            distances[r] += away * away
    now = _nearest(distances, 0, window)
    ever = _nearest(distances, window, window + min(presence.held[1], past))
    farther: float = 0.5 * (np.log(ever + 1e-12) - np.log(now + 1e-12))
    return farther


@compiled
def _remember(row: Array, seed: Any, presence: Presence) -> None:
    window, past = len(presence.scores), presence.rows.shape[1] - len(presence.scores)
    slot = presence.held[0] % window
    if presence.held[0] >= window:
        left = presence.held[1]
        kept = left if left < past else int(chance(seed, left, 0) * (left + 1))
        if kept < past:
            presence.rows[:, window + kept] = presence.rows[:, slot]
        presence.held[1] += 1
    presence.rows[:, slot] = row
    presence.held[0] += 1


@compiled
def _set_threshold(quantile: float, presence: Presence) -> None:
    scored = presence.held[1] - 1  # the row that made the past was scored before there was one
    count = min(scored, len(presence.scores))
    if count > 0:
        scores = np.sort(presence.scores[:count])
        presence.threshold[0] = scores[int(quantile * count)]


@compiled
def watch(watched: Watched, gate: Gate, presence: Presence, out: Array) -> None:
    """`out[n]`: whether row n resembles the present at least as much as all but a quantile of the last rows did."""
    window = len(presence.scores)
    distances = np.zeros(presence.rows.shape[1], presence.rows.dtype)
    for n in range(len(out)):
        row = watched.x[n]
        found = score(row, watched.gain[n % len(watched.gain)], gate.reach, presence, distances)
        out[n] = found >= presence.threshold[0]
        if watched.learned[n]:
            if presence.held[1] > 0:
                presence.scores[(presence.held[1] - 1) % window] = found
            _remember(row, gate.seed, presence)
            if presence.held[1] > 1 and presence.held[1] % gate.every == 0:
                _set_threshold(gate.quantile, presence)
