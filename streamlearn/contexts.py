"""How quickly a context is learned, and learned again, where records name theirs (`context`). Owned by the learner's thread.

A visit is a stretch of labelled rows of one context. It is judged by the answers given before their labels, over its last rows:
how many of its rows it took to come within nine tenths of the best that was ever reached, of this context where it returns, of
any where it is new. Where no best is known yet, because all visits were shorter than `LAST` rows or nothing was answered right,
there is nothing to come near to. Rows without a context are no visit.

Source  Lopez-Paz and Ranzato 2017, equation 4, for forward transfer: accuracy on a task before it is learned, less that of an
        untrained model. A stream has no held-out rows of a task to come, so ours is that of a new context's first answers,
        less that of always answering the label that was most frequent so far.
"""

import math
from collections import Counter, deque
from typing import Final

import numpy as np

from streamlearn.metrics import Answers
from streamlearn.records import Array, State

LAST = 50
"""Rows of a visit that its accuracy looks back on."""
LEAST = 10
"""Rows of a visit before it may have come near the best."""
FIRST = 20
"""Answers of a new context that forward transfer looks at: a few, for they are learned from as they come."""
NEAR = 0.9
MOST = 1000
"""Contexts that are told apart; rows of later ones are no visit."""
NONE: Final = -1


class Contexts:
    """A `Metric` of visits; its state is part of the checkpoint."""

    def __init__(self) -> None:
        self.best: dict[int, float] = {}  # context → best accuracy over `LAST` rows of a visit; 0: none is known
        self.regained = self.reached = math.nan  # rows that the newest return, and the newest new context, took
        self.visits = self.given_up = 0  # begun; ended before they came near
        self._forward: list[float] = [0.0, 0.0]  # sum over new contexts, and how many
        self._labels: Counter[int] = Counter()
        self._context, self._rows, self._is_new, self._goal = NONE, 0, False, math.nan
        self._usual, self._first = NONE, 0  # the most frequent label when a new context began; first rows that it and we hit
        self._hits: deque[bool] = deque(maxlen=LAST)

    def update(self, contexts: Array, answers: Answers) -> None:
        """Take rows in stream order; `contexts` int64 [n], -1 where unknown."""
        if self._context == NONE and (contexts < 0).all():
            return
        for context, label, guess in zip(contexts.tolist(), answers.labels, answers.guesses, strict=True):
            if context != self._context:
                self._end()
                self._begin(context)
            if self._context != NONE:
                self._take(label, guess)

    def values(self) -> dict[str, float]:
        """Figures by name; NaN where there is none yet."""
        total, count = self._forward
        return {
            "contexts": float(len(self.best)),
            "visits": float(self.visits),
            "given_up": float(self.given_up),
            "regained": self.regained,
            "reached": self.reached,
            "forward_transfer": total / count if count else math.nan,
        }

    def _begin(self, context: int) -> None:
        if context < 0 or (context not in self.best and len(self.best) >= MOST):
            self._context = NONE
            return
        self._context, self._rows, self._is_new = context, 0, context not in self.best
        self.visits += 1
        best = max(self.best.values(), default=0.0) if self._is_new else self.best[context]
        self._goal = NEAR * best if best else math.nan
        self._usual = max(sorted(self._labels), key=self._labels.__getitem__, default=NONE)
        self._first = 0
        self.best.setdefault(context, 0.0)

    def _end(self) -> None:
        if self._context != NONE and not math.isnan(self._goal):
            self.given_up += 1
        self._hits.clear()

    def _take(self, label: int, guess: int) -> None:
        self._rows += 1
        self._hits.append(guess == label)
        if self._is_new and self._rows <= FIRST and self._usual != NONE:
            self._first += (guess == label) - (label == self._usual)
            if self._rows == FIRST:
                self._forward = [self._forward[0] + self._first / FIRST, self._forward[1] + 1]
        self._labels[label] += 1
        accuracy = sum(self._hits) / len(self._hits)
        if self._rows >= LEAST and accuracy >= self._goal:  # never while the goal is NaN
            self._goal = math.nan
            if self._is_new:
                self.reached = float(self._rows)
            else:
                self.regained = float(self._rows)
        if len(self._hits) == LAST:
            self.best[self._context] = max(self.best[self._context], accuracy)

    def state(self) -> State:
        """A copy of all that `restore` needs. NaN is kept as an array, which JSON has no word for."""
        counts = (self._context, self._rows, self._is_new, self._usual, self._first, self.visits, self.given_up)
        return State(
            {
                "numbers": np.array([self._goal, self.regained, self.reached, *self._forward], np.float64),
                "counts": np.array(counts, np.int64),
                "labels": np.array(sorted(self._labels.items()), np.int64).reshape(-1, 2),
                "known": np.array(list(self.best), np.int64),
                "best": np.array(list(self.best.values()), np.float64),
                "hits": np.array(self._hits, np.uint8),
            }
        )

    def restore(self, state: State) -> None:
        """Go on from a saved state; one from before there were visits leaves them at none."""
        arrays = state.arrays
        if "numbers" not in arrays:
            return
        self._goal, self.regained, self.reached, *self._forward = arrays["numbers"].tolist()
        self._context, self._rows, is_new, self._usual, self._first, self.visits, self.given_up = arrays["counts"].tolist()
        self._is_new = bool(is_new)
        self._labels = Counter(dict(arrays["labels"].tolist()))
        self.best = dict(zip(arrays["known"].tolist(), arrays["best"].tolist(), strict=True))
        self._hits = deque(arrays["hits"].astype(bool).tolist(), LAST)
