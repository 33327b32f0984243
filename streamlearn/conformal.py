"""Sets of labels that hold the true one as often as was promised, whatever the stream does: adaptive conformal inference.

A label belongs to the set when 1 − p(label) is at most a quantile of what the true labels scored lately. Which quantile moves
with each row: α grows by γ(1 − coverage) when the set held the label, and shrinks by γ · coverage when it did not. Owned by the
learner's thread; each row is scored by the state before it.

Source  Gibbs and Candès 2021, Adaptive conformal inference under distribution shift, eq. 2 and Proposition 4.1: over T rows of
any stream the share of misses is within (max(α₁, 1 − α₁) + γ) / (γT) of what was asked for. It holds of labels that were
learned before; one that was not is in no set, counts as a miss, and moves α no further than the proposition lets it go.
"""

import bisect
import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from pydantic import field_validator

from streamlearn.metrics import Answers
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

EVERY_LABEL, NO_LABEL = 2.0, -1.0
"""Thresholds beyond all scores, which lie in [0, 1]."""
SLACK = 1e-6
"""Servers reckon in 32 bits: a label that is right at the threshold is in the set there too."""


class Tracked(NamedTuple):
    """What became of the sets of one coverage, over the last rows."""

    hits: deque[bool]
    sizes: deque[int]


class Conformal:
    """Thresholds of sets of labels, one for each coverage. Part of the checkpoint."""

    class Settings(Section):
        """Sets of labels with a promised coverage."""

        coverages: tuple[float, ...] = key((0.9, 0.95), "what a question may ask for by its parameter `sets`; empty: nothing")
        rate: float = key(0.005, "how far one row moves the quantile, γ", gt=0, lt=1)
        window: int = key(1000, "newest scores of which quantiles are taken, and rows of which means are", unit="rows", ge=1)

        @field_validator("coverages")
        @classmethod
        def _are_shares(cls, coverages: tuple[float, ...]) -> tuple[float, ...]:
            if len(coverages) > 8 or len(set(coverages)) < len(coverages) or not all(0 < each < 1 for each in coverages):
                raise ValueError(f"coverages are {list(coverages)}: expected at most 8 between 0 and 1, none of them twice")
            return coverages

    def __init__(self, settings: Settings) -> None:
        self._rate, window = settings.rate, settings.window
        self._alphas = {each: 1.0 - each for each in settings.coverages}
        self._tracked = {each: Tracked(deque(maxlen=window), deque(maxlen=window)) for each in settings.coverages}
        self._scores: deque[float] = deque(maxlen=window)
        self._sorted: list[float] = []

    def update(self, answers: Answers, logits: Array) -> None:
        """Take rows in stream order, with the answers that came before their labels."""
        if not self._alphas:
            return
        scores = [1.0 - math.exp(each) for each in answers.log_probabilities]
        thresholds = {each: np.empty(len(scores)) for each in self._alphas}
        for i, score in enumerate(scores):
            for coverage, found in thresholds.items():
                found[i] = self._threshold(coverage)
                self._take(coverage, is_hit=score <= found[i] and answers.log_probabilities[i] > -math.inf)
            self._push(score)
        p = _probabilities(logits)
        for coverage, found in thresholds.items():
            self._tracked[coverage].sizes.extend((p >= 1.0 - found[:, None]).sum(1).tolist())

    def thresholds(self) -> dict[float, float]:
        """Coverage → the largest 1 − p of a label in the set, at this point of the stream."""
        return {coverage: self._threshold(coverage) for coverage in self._alphas}

    def values(self) -> Mapping[float, tuple[float, float]]:
        """Coverage → the share of the last rows whose set held the label, and the sets' mean size; NaN before the first."""
        return {each: (_mean(tracked.hits), _mean(tracked.sizes)) for each, tracked in self._tracked.items()}

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        arrays = {"scores": np.array(self._scores, np.float64)}
        for coverage, tracked in self._tracked.items():
            arrays[f"{coverage}.hits"] = np.array(tracked.hits, np.uint8)
            arrays[f"{coverage}.sizes"] = np.array(tracked.sizes, np.int32)
        return State(arrays, {"alphas": {str(coverage): alpha for coverage, alpha in self._alphas.items()}})

    def restore(self, state: State) -> None:
        """Take over what `state` gave; a coverage that it does not know, as of an older program, begins now."""
        alphas = state.values.get("alphas", {})
        self._scores.clear()
        self._scores.extend(state.arrays.get("scores", np.zeros(0)).tolist())
        self._sorted = sorted(self._scores)
        for coverage in self._alphas:
            self._alphas[coverage] = float(alphas.get(str(coverage), 1.0 - coverage))
            for name, kept in self._tracked[coverage]._asdict().items():
                kept.clear()
                kept.extend(state.arrays.get(f"{coverage}.{name}", np.zeros(0, np.uint8)).tolist())

    def _threshold(self, coverage: float) -> float:
        """The (1 − α)-quantile of the scores, of which the next is thought to be one more."""
        alpha, count = self._alphas[coverage], len(self._sorted)
        if alpha >= 1.0:
            return NO_LABEL
        rank = math.ceil((1.0 - alpha) * (count + 1))
        return self._sorted[rank - 1] + SLACK if rank <= count else EVERY_LABEL

    def _take(self, coverage: float, *, is_hit: bool) -> None:
        self._tracked[coverage].hits.append(is_hit)
        moved = self._alphas[coverage] + self._rate * ((1.0 - coverage) - (not is_hit))
        self._alphas[coverage] = max(moved, -self._rate)

    def _push(self, score: float) -> None:
        if len(self._scores) == self._scores.maxlen:
            del self._sorted[bisect.bisect_left(self._sorted, self._scores[0])]
        self._scores.append(score)
        bisect.insort(self._sorted, score)


def _probabilities(logits: Array) -> Array:
    """[n, C], −∞ for labels that were not learned; sums run left to right, where one of those changes nothing."""
    x = logits.astype(np.float64)
    if not x.shape[1]:
        return x
    learned = np.isfinite(x)
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(np.where(learned, x - x.max(1, keepdims=True), -np.inf))
        return np.where(learned, powers / np.maximum(np.cumsum(powers, axis=1)[:, -1:], 1e-300), -np.inf)


def _mean(values: "deque[bool] | deque[int]") -> float:
    return sum(values) / len(values) if values else math.nan
