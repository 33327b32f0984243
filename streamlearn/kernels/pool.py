"""Weights of a pool's members; compiled, row by row.

The pool multiplies evidence: its scores are Σₑ vₑ·log((1 − ε)·pₑ(c) + ε/C), so that a law of labels times p(label | input) is
one step of a filter. v follows the gradient of the pool's own loss, each entry at its own fading AdaGrad rate.

Members are judged by what they said when a row was asked: who leans on the labels before it gets no credit for labels that come
too late. And as what held for a row must still hold when its label is there, the later labels come, the slower weights move.
"""

from typing import NamedTuple

import numpy as np

from streamlearn.kernels.compiling import compiled
from streamlearn.kernels.rows import Rows, log_softmax
from streamlearn.records import Array


class Trust(NamedTuple):
    """What a pool learns, in place. float64."""

    weights: Array  # [members]: v
    squares: Array  # [members]: faded sums of squared gradients


class Pace(NamedTuple):
    """How weights are learned."""

    rate: float
    fade: float  # weight of a squared gradient after one more row
    floor: float  # ε


class Answers(NamedTuple):
    """Log-probabilities by members."""

    now: Array  # [members, n, C]
    lag: Array  # int64 [n]: rows learned since this one was answered; −1 where it was not
    then: Array  # float64 [members, n, C]: what was said of it then; −∞ for labels that were not admitted then


class Room(NamedTuple):
    """To work in, for one row."""

    absent: Array  # int64 [C]: 0 for a label that may answer, else 1
    evidence: Array  # [members, C]
    scores: Array  # [C]
    answer: Array  # [C]


@compiled
def mix(answers: Answers, rows: Rows, pace: Pace, trust: Trust, out: Array) -> None:
    """Answer each row from its members' log-probabilities; then, where it is learned, move the weights."""
    members, _, width = answers.now.shape
    room = Room(np.zeros(width, np.int64), np.zeros((members, width)), np.zeros(width), np.zeros(width))
    for n in range(len(out)):
        for c in range(width):
            room.absent[c] = rows.admitted[c] >= rows.numbers[n]
        _answer(answers.now, n, pace.floor, trust, room)
        out[n] = room.answer
        if rows.learned[n]:
            rate = pace.rate
            if answers.lag[n] >= 0:
                rate /= 1.0 + (1.0 - pace.fade) * answers.lag[n]
                _who_was_there(answers.then, n, room.absent)
                _answer(answers.then, n, pace.floor, trust, room)
            if not room.absent[rows.labels[n]]:
                _move(rows.labels[n], rate, pace.fade, trust, room)


@compiled
def _who_was_there(answers: Array, n: int, absent: Array) -> None:
    """Labels that were admitted when row n was answered are those that somebody gave a chance."""
    absent[:] = 1
    for e in range(len(answers)):
        for c in range(len(absent)):
            if answers[e, n, c] > -np.inf:
                absent[c] = 0


@compiled
def _answer(answers: Array, n: int, floor: float, trust: Trust, room: Room) -> None:
    """To row n, by the weights of now; and the members' evidence for it."""
    members, _, width = answers.shape
    active = width - room.absent.sum()
    room.scores[:] = 0
    for e in range(members):
        for c in range(width):
            if not room.absent[c]:
                room.evidence[e, c] = np.log((1.0 - floor) * np.exp(float(answers[e, n, c])) + floor / active)
                room.scores[c] += trust.weights[e] * room.evidence[e, c]
    log_softmax(room.scores, room.absent, 1, room.answer)


@compiled
def _move(label: int, rate: float, fade: float, trust: Trust, room: Room) -> None:
    """The weights, down the gradient of the loss of `room.answer`."""
    for e in range(len(trust.weights)):
        gradient = -room.evidence[e, label]
        for c in range(len(room.answer)):
            if not room.absent[c]:
                gradient += np.exp(room.answer[c]) * room.evidence[e, c]
        trust.squares[e] = fade * trust.squares[e] + gradient * gradient
        trust.weights[e] -= rate * gradient / (np.sqrt(trust.squares[e]) + 1e-8)
