"""A linear softmax on piecewise-linear ramps of each column's place among its past values, and on hashed categories."""

from collections.abc import Mapping

import numpy as np

from streamlearn.kernels import quantile_ramps as kernel
from streamlearn.learners.members.kept import copies, put_back, wider
from streamlearn.learners.members.member import Rows, Size, answers_for
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NAME = "quantile-ramps"


class Settings(Section):
    """Quantile ramps."""

    ramps: int = key(8, "ramps of each column", ge=1)
    rate: float = key(0.03, "step size", gt=0)
    share: float = key(1.5, "by how much a row's scores may move for a gradient of 1", gt=0, le=2)


class QuantileRamps:
    """Additive in the columns, and of any shape in each: what a linear model on raw values cannot see.

    Source  Gorishniy, Rubachev, Babenko 2022, On embeddings for numerical features: piecewise-linear encoding. Their bins are
            quantiles of a training set; ours are of the past, and move with it.
    """

    memory_capacity = 0

    def __init__(self, settings: Settings, size: Size, name: str = NAME) -> None:
        self.settings, self.name = settings, name
        self._columns = size.columns
        self._weights = np.zeros((size.columns * settings.ramps + size.lines + 1, size.capacity), size.dtype)

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        out, own = answers_for(rows, self._weights.dtype.name), self.settings
        kernel.run(rows, kernel.Pace(own.ramps, own.rate, self._columns, own.share), self._weights, out)
        return {self.name: out}

    def grow(self, capacity: int) -> None:
        """See `Member`."""
        self._weights = wider(self._weights, capacity)

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        weights = self._weights[:, : question.width].astype(np.float32)
        return {f"{self.name}.weights": weights, f"{self.name}.columns": np.array([self._columns, self.settings.ramps])}

    def state(self) -> State:
        """See `Member`."""
        return copies({"weights": self._weights})

    def restore(self, state: State) -> None:
        """See `Member`."""
        put_back({"weights": self._weights}, state, part=self.name)

    def memory_labels(self) -> Mapping[int, int]:
        """See `Member`. It keeps no rows."""
        return {}
