"""Random nested partitions of the columns' places, each cell with a learned vector of scores."""

from collections.abc import Mapping

import numpy as np

from streamlearn.kernels import partitions as kernel
from streamlearn.learners.members.kept import copies, put_back, wider
from streamlearn.learners.members.member import Rows, Size, answers_for
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NAME = "partitions"


class Settings(Section):
    """Random partitions."""

    trees: int = key(32, "partitions", ge=1)
    depth: int = key(8, "levels of each partition", ge=1, le=16)
    rate: float = key(3.0, "by how much a row's scores move for a gradient of 1", gt=0)


class Partitions:
    """Local and forgetful: a cell that is not met keeps what it knows, one that is met again unlearns quickly.

    The cuts are drawn before any data and never change, so that no cell ever loses what it learned.
    Source  Geurts, Ernst, Wehenkel 2006, extremely randomised trees, and Lakshminarayanan, Roy, Teh 2014, Mondrian forests,
            for cuts that do not look at labels. Ours do not look at data at all, and cells on a path add up.
    """

    memory_capacity = 0

    def __init__(self, settings: Settings, size: Size, name: str = NAME) -> None:
        self.settings, self.name = settings, name
        gaps = range(size.columns - size.gaps, size.columns)
        self._cuts = cuts(settings, columns=size.places, dtype=size.dtype, seed=size.seed, gaps=gaps)
        self._cells = np.zeros((settings.trees * (2 ** (settings.depth + 1) - 2), size.capacity), size.dtype)

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        out = answers_for(rows, self._cells.dtype.name)
        kernel.run(rows, self._cuts, self.settings.rate, self._cells, out)
        return {self.name: out}

    def grow(self, capacity: int) -> None:
        """See `Member`."""
        self._cells = wider(self._cells, capacity)

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        return {
            f"{self.name}.column": self._cuts.column.copy(),
            f"{self.name}.threshold": self._cuts.threshold.astype(np.float32),
            f"{self.name}.cells": self._cells[:, : question.width].astype(np.float32),
        }

    def state(self) -> State:
        """See `Member`. The cuts are a function of the seed."""
        return copies({"cells": self._cells})

    def restore(self, state: State) -> None:
        """See `Member`."""
        put_back({"cells": self._cells}, state, part=self.name)

    def memory_labels(self) -> Mapping[int, int]:
        """See `Member`. It keeps no rows."""
        return {}


def cuts(settings: Settings, *, columns: int, dtype: str, seed: int, gaps: range = range(0)) -> kernel.Cuts:
    """Each inner node cuts its cell in a column drawn uniformly, at a place drawn uniformly within the cell.

    Columns that are `gaps` are never cut: hardly a row would go right. A value that is missing lies in the middle.
    """
    random = np.random.default_rng(seed)
    shape = (settings.trees, 2**settings.depth - 1)
    column, share = random.integers(0, columns - len(gaps), shape), random.random(shape)
    column += len(gaps) * (column >= gaps.start)  # of no gaps, 0
    threshold = np.zeros(shape)
    for node in range(shape[1]):
        low, high = _extent(column, threshold, node)
        threshold[:, node] = low + (high - low) * share[:, node]
    return kernel.Cuts(column, threshold.astype(dtype))


def _extent(column: Array, threshold: Array, node: int) -> tuple[Array, Array]:
    """[trees] bounds of each tree's `node` in the column that it cuts, from the cuts above it."""
    low, high = np.zeros(len(column)), np.ones(len(column))
    below = node
    while below:
        above = (below - 1) // 2
        same, cut = column[:, above] == column[:, node], threshold[:, above]
        if below == 2 * above + 2:
            low = np.where(same, np.maximum(low, cut), low)
        else:
            high = np.where(same, np.minimum(high, cut), high)
        below = above
    return low, high
