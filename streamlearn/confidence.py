"""How often answers are right whose labels have not come: calibrated confidence, averaged, with an interval.

An answer's confidence is its probability. What confidence is worth is learned from the labels that do come: among answers of
about equal confidence, the share that was right. The mean of that over the answers that still wait estimates their accuracy.

Its interval is that of so many throws of so many coins, and of what is not yet known of the coins, as long as waiting answers
are like those whose labels came. In a world that changes they are not: answers are right and wrong in runs. So the chance that
an answer is right is kept from when it was given, by what was known then; once its label comes it is seen by how much the mean
chance of 8, 16, 32, … neighbours missed, beyond what coins would have, and the interval is so much wider.

Source  Guo et al. 2017, On calibration of modern neural networks (histogram binning); NannyML's confidence-based estimation,
        here fading and one label at a time.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.metrics import FadingMean
from streamlearn.records import Array, State

BINS = 20
QUANTILE = 1.959964  # of the normal distribution: 95 % lie within
PRIOR = 2.0  # answers that each bin is taken to have seen
SMALLEST, LEVELS = 3, 24  # blocks of 2**3 answers to 2**23
ENOUGH, BLOCK_FADE = 8, 0.95  # blocks of a size from which something can be said of it; weight of a block against the next


class Estimate(NamedTuple):
    """An accuracy with its 95 % interval; NaN where nothing waits."""

    low: float
    value: float
    high: float


class Calibration:
    """Confidence → share of right answers, fading. Part of the state."""

    def __init__(self, fade: float) -> None:
        self._fades = np.array([[fade], [fade], [fade**2]])
        self._bias, self._excess = FadingMean(fade), FadingMean(fade)  # of what is estimated, and of raw confidence
        self._sums = np.zeros((3, BINS))  # right answers, answers, and squared weights, which say how many still count
        self._misses = Misses()

    def update(self, confidence: float, *, is_right: bool, expected: float = math.nan) -> None:
        """The label of an answer came. `expected`: its chance when it was given; NaN: as of now."""
        chance = self.chance(confidence) if math.isnan(expected) else expected
        self._bias.take([chance - is_right])
        self._misses.take(chance - is_right, chance * (1 - chance))
        self._sums *= self._fades
        at = min(int(confidence * BINS), BINS - 1)
        self._sums[0, at] += is_right
        self._sums[1:3, at] += 1.0
        self._excess.take([confidence - is_right])

    @property
    def bias(self) -> float:
        """Fading mean of what was estimated less what was true, over the labels that came; NaN before the first."""
        return self._bias.value

    def chances(self, confidences: Array) -> Array:
        """For each answer the chance that it is right. A bin begins with what all of them together say."""
        right, seen, _ = self._sums
        bins = _bins(confidences)
        chances: Array = (right[bins] + PRIOR * (confidences - self._shift).clip(0, 1)) / (seen[bins] + PRIOR)
        return chances

    def chance(self, confidence: float) -> float:
        """That an answer of this confidence is right, by what is known now; NaN where it has none."""
        if math.isnan(confidence):
            return math.nan
        at, prior = min(int(confidence * BINS), BINS - 1), min(1.0, max(0.0, confidence - self._shift))
        return float((self._sums[0, at] + PRIOR * prior) / (self._sums[1, at] + PRIOR))

    @property
    def _shift(self) -> float:
        """By how much confidence has been too high, over all."""
        return self._excess.total / (self._excess.weight + PRIOR)

    def estimate(self, confidences: Sequence[float]) -> Estimate:
        """The accuracy of these answers.

        Its variance is that of so many throws of so many coins, plus that of what each bin has learned of its coin, plus that
        by which means of as many neighbours missed beyond it.
        """
        found = np.array([each for each in confidences if not math.isnan(each)])
        if not len(found):
            return Estimate(math.nan, math.nan, math.nan)
        chances, bins, n = self.chances(found), _bins(found), len(found)
        _, seen, squares = self._sums
        counted = np.where(squares > 0, seen**2 / np.where(squares > 0, squares, 1.0), 0.0) + PRIOR
        share = np.bincount(bins, minlength=BINS) / n
        mean = np.bincount(bins, chances, minlength=BINS) / np.maximum(share * n, 1)
        variance = (chances * (1 - chances)).sum() / n**2 + (share**2 * mean * (1 - mean) / counted).sum()
        value, reach = float(chances.mean()), QUANTILE * math.sqrt(variance + self._misses.excess(n))
        return Estimate(max(0.0, value - reach), value, min(1.0, value + reach))

    def state(self) -> State:
        """The sums."""
        arrays = {"sums": self._sums.copy(), "blocks": self._misses.blocks.copy(), "halves": self._misses.halves.copy()}
        return State(arrays, {name: dict(mean.state().values) for name, mean in self._means()})

    def restore(self, state: State) -> None:
        """Go on from saved sums."""
        self._sums = np.array(state.arrays["sums"])
        self._misses.blocks, self._misses.halves = (np.array(state.arrays[name]) for name in ("blocks", "halves"))
        for name, mean in self._means():
            mean.restore(State(values=state.values[name]))

    def _means(self) -> tuple[tuple[str, FadingMean], ...]:
        return ("bias", self._bias), ("excess", self._excess)


class Misses:
    """By how much means of neighbouring answers missed: blocks of 1, 2, 4, … answers, each made of two of the size before."""

    def __init__(self) -> None:
        self.blocks = np.zeros((LEVELS, 4))  # fading sums of squared misses, of coins' variances, of ones; blocks in all
        self.halves = np.full((LEVELS, 2), math.nan)  # miss and coins' variance of a block that waits for its neighbour

    def take(self, miss: float, coin: float) -> None:
        """One answer's chance less whether it was right, and the variance of such a coin."""
        for level in range(LEVELS):
            row, half = self.blocks[level], self.halves[level]
            row[:3] = BLOCK_FADE * row[:3] + (miss**2, coin, 1.0)
            row[3] += 1
            if math.isnan(half[0]):
                half[:] = miss, coin
                return
            miss, coin = (half[0] + miss) / 2, (half[1] + coin) / 4
            half[:] = math.nan

    def excess(self, count: int) -> float:
        """Variance of a mean of `count` neighbours beyond that of coins, by the largest size up to it that was seen enough."""
        fits = [level for level in range(SMALLEST, LEVELS) if 2**level <= count and self.blocks[level, 3] >= ENOUGH]
        if not fits:
            return 0.0
        squares, coins, weight, _ = self.blocks[fits[-1]]
        return max(0.0, float((squares - coins) / weight))


def _bins(confidences: Array) -> Array:
    bins: Array = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    return bins
