"""Accuracies of a stream of tasks, and what is said of them in three numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array


class Scores(NamedTuple):
    """In per cent.

    Source  Gupta, Yadav, Paull 2020: retained accuracy RA, and backward transfer and interference BTI.
    """

    retained: float  # mean accuracy over tasks after the whole stream, on all test images
    just_after: float  # mean accuracy on each task right after it
    interference: float  # mean over tasks of accuracy at the end minus accuracy right after the task, on the same images


def scores(matrix: Array, final: Sequence[float]) -> Scores:
    """`matrix[t, u]` is the accuracy on task u after task t, in per cent; `final` that after the last on all images."""
    just_after = matrix.diagonal()
    return Scores(float(np.mean(final)), float(just_after.mean()), float((matrix[-1] - just_after).mean()))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN for the deviation of one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def quartiles(values: Sequence[float] | Array, digits: int = 3) -> list[float]:
    """Lower quartile, median, upper quartile, rounded."""
    return [round(float(value), digits) for value in np.percentile(values, [25, 50, 75])]


def figure(values: Sequence[float], digits: int = 1) -> str:
    """For people: mean ± sample standard deviation, the mean alone of one value, nothing of none."""
    if not len(values):
        return ""
    mean, spread = mean_and_spread(values)
    return f"{mean:.{digits}f}" if len(values) == 1 else f"{mean:.{digits}f} ± {spread:.{digits}f}"
