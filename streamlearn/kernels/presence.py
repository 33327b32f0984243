"""Whether a row resembles the present: a Gaussian of the newest rows and one of all rows, compared; compiled, row by row.

A row's score is the log of how much likelier it is under the first than under the second, and beside it the lead: how much
surer the present pool is of its answer than the fallback. Both count in units of their usual spread. Densities and spreads
are read anew every few rows, and a row is scored by the last reading. Nothing of a row itself is kept.
"""

from typing import NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import add
from streamlearn.records import Array

NEWEST, ALL = 0, 1
LIKELIHOOD, LEAD = 0, 1


class Moments(NamedTuple):
    """What learning changes in place, of the newest rows and of all. float64."""

    weight: Array  # [2]: faded number of rows
    mean: Array  # [2, directions]
    scatter: Array  # [2, directions, directions]: faded sums of products of deviations, on and above the diagonal


class Spread(NamedTuple):
    """Of what scores are made of, over the last rows learned. float64."""

    weight: Array  # [1]: faded number of rows
    mean: Array  # [2]: of the likelihood, and of the lead
    square: Array  # [2]: mean squared deviation


class Reading(NamedTuple):
    """Densities and spreads as they were last read, and what their scores were. float64 but for `progress`."""

    centre: Array  # [2, directions]
    factor: Array  # [2, directions, directions]: upper triangular U, UᵀU the covariance
    volume: Array  # [2]: log of the determinant of U
    per: Array  # [2]: what a unit of the likelihood, and one of the lead, adds to a score
    scores: Array  # [window]: ring of the scores of the last rows learned
    threshold: Array  # [1]; the least number there is until the ring is full
    progress: Array  # int64 [1]: rows learned


class Asked(NamedTuple):
    """Rows to be judged. float64."""

    rows: Array  # [n, directions]
    leads: Array  # [n]


class Verdicts(NamedTuple):
    """On rows, in place."""

    here: Array  # bool [n]: whether a row resembles the present at least as much as all but a quantile of the last did
    scores: Array  # float64 [n]: in, those that rows were given when they were asked, or NaN; out, those of now


class Gate(NamedTuple):
    """How it is decided."""

    decay: float  # weight of a row among the newest after one more
    shrinkage: float  # share by which products of different directions are taken for less
    quantile: float
    every: int  # rows between two readings
    lead: float  # weight of the lead beside one of the likelihood


RIDGE, LEAST = 1e-3, 1e-9
"""Of the mean variance over all rows, added to each direction; and beside it, where nothing varies."""
LEAST_SPREAD = 0.01
"""Nats that a spread is taken for where it is less: what hardly ever varies is no evidence by a hair."""


@compiled
def _count(row: Array, decay: float, which: int, moments: Moments) -> None:
    weight = decay * moments.weight[which] + 1.0
    share, mean, scatter = 1.0 / weight, moments.mean[which], moments.scatter[which]
    for i in range(len(row)):
        away = (row[i] - mean[i]) * (1.0 - share)
        for j in range(i, len(row)):
            scatter[i, j] = decay * scatter[i, j] + away * (row[j] - mean[j])
    for i in range(len(row)):
        mean[i] += share * (row[i] - mean[i])
    moments.weight[which] = weight


@compiled
def _factorise(upper: Array) -> float:
    """Cholesky in place, of the entries on and above the diagonal. Returns the log of the factor's determinant."""
    volume = 0.0
    for i in range(len(upper)):
        pivot = np.sqrt(upper[i, i])
        volume += np.log(pivot)
        for j in range(i, len(upper)):
            upper[i, j] /= pivot
        for k in range(i + 1, len(upper)):
            add(upper[k, k:], -upper[i, k], upper[i, k:])
    return volume


@compiled
def read(moments: Moments, shrinkage: float, reading: Reading) -> None:
    """Make both densities what the moments say now."""
    directions = moments.mean.shape[1]
    ridge = LEAST
    for i in range(directions):
        ridge += RIDGE * moments.scatter[ALL, i, i] / (moments.weight[ALL] * directions)
    for which in range(2):
        per = 1.0 / moments.weight[which]
        for i in range(directions):
            reading.factor[which, i, i] = moments.scatter[which, i, i] * per + ridge
            for j in range(i + 1, directions):
                reading.factor[which, i, j] = moments.scatter[which, i, j] * per * (1.0 - shrinkage)
        reading.centre[which] = moments.mean[which]
        reading.volume[which] = _factorise(reading.factor[which])


@compiled
def _read_spread(spread: Spread, gate: Gate, reading: Reading) -> None:
    for which in range(2):
        reading.per[which] = 1.0 / max(np.sqrt(spread.square[which]), LEAST_SPREAD)
    reading.per[LEAD] *= gate.lead


@compiled
def log_density(row: Array, which: int, reading: Reading, away: Array) -> float:
    """But for a constant. `away` is room for as many numbers as `row` has."""
    upper, square = reading.factor[which], 0.0
    away[:] = row - reading.centre[which]
    for i in range(len(row)):
        away[i] /= upper[i, i]
        square += away[i] * away[i]
        add(away[i + 1 :], -away[i], upper[i, i + 1 :])
    return -0.5 * square - float(reading.volume[which])


@compiled
def _spread(made_of: tuple[float, float], window: int, spread: Spread) -> None:
    spread.weight[0] += 1.0 - spread.weight[0] / window
    for which in range(2):
        away = made_of[which] - spread.mean[which]
        spread.mean[which] += away / spread.weight[0]
        spread.square[which] += (away * (made_of[which] - spread.mean[which]) - spread.square[which]) / spread.weight[0]


@compiled
def _keep(score: float, gate: Gate, spread: Spread, reading: Reading, moments: Moments) -> None:
    """After a row was counted: its score, and every few rows a new reading and a new threshold."""
    reading.progress[0] += 1
    scored = reading.progress[0] - gate.every
    if scored > 0:
        reading.scores[(scored - 1) % len(reading.scores)] = score
    if reading.progress[0] % gate.every == 0:
        read(moments, gate.shrinkage, reading)
        if scored > 0:
            _read_spread(spread, gate, reading)
        if scored >= len(reading.scores):
            reading.threshold[0] = np.sort(reading.scores)[int(gate.quantile * len(reading.scores))]


@compiled
def watch(asked: Asked, learned: Array, gate: Gate, held: tuple[Moments, Spread, Reading], out: Verdicts) -> None:
    """Judge each row by what was learned before it; learn it where it is learned."""
    (rows, leads), (moments, spread, reading) = asked, held
    away = np.zeros(rows.shape[1])
    for n in range(len(rows)):
        score, likelihood = np.inf, 0.0
        if reading.progress[0] >= gate.every:
            likelihood = log_density(rows[n], NEWEST, reading, away) - log_density(rows[n], ALL, reading, away)
            score = reading.per[LIKELIHOOD] * likelihood + reading.per[LEAD] * leads[n]
        out.here[n] = score >= reading.threshold[0]
        had = out.scores[n]
        out.scores[n] = score
        if learned[n]:
            if reading.progress[0] >= gate.every:
                _spread((likelihood, leads[n]), len(reading.scores), spread)
            _count(rows[n], gate.decay, NEWEST, moments)
            _count(rows[n], 1.0, ALL, moments)
            _keep(score if np.isnan(had) else had, gate, spread, reading, moments)


@compiled
def project(z: Array, directions: Array, out: Array) -> None:
    """`out[n] = z[n] @ directions`; what is zero costs nothing."""
    for n in range(len(z)):
        for f in range(len(directions)):
            if z[n, f] != 0:
                add(out[n], z[n, f], directions[f])
