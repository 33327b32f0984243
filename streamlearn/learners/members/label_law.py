"""What follows a label, whatever the input: whether it stays, and where to when it goes."""

from collections.abc import Mapping

import numpy as np

from streamlearn.kernels import label_law as kernel
from streamlearn.learners.members.kept import copies, put_back, wider
from streamlearn.learners.members.member import Rows, Size, answers_for
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

NAME = "label-law"


class Settings(Section):
    """Label law."""

    discount: float = key(0.99, "weight of a count after one more", gt=0, lt=1)
    prior: float = key(1.0, "weight of the labels' overall frequencies in where a label goes", unit="counts", gt=0)
    lines: int = key(256, "labels with a law of their own; all others share one", unit="labels", ge=1)


class LabelLaw:
    """Labels of real streams come in runs. The last label is the last learned: late ones make this weaker, never wrong."""

    memory_capacity = 0

    def __init__(self, settings: Settings, size: Size) -> None:
        self.settings = settings
        self._dtype = size.dtype
        lines = settings.lines + 1
        self._counts = kernel.Counts(
            np.full(1, -1, np.int64), np.zeros((lines, 2)), np.zeros((lines, size.capacity)), np.zeros(size.capacity)
        )

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """See `Member`."""
        out = answers_for(rows, self._dtype)
        kernel.run(rows, kernel.Law(self.settings.discount, self.settings.prior), self._counts, out)
        return {NAME: out}

    def grow(self, capacity: int) -> None:
        """See `Member`."""
        counts = self._counts
        self._counts = counts._replace(moves=wider(counts.moves, capacity), met=wider(counts.met, capacity))

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """See `Member`. Servers need what follows now, not why."""
        return {f"{NAME}.next": self.run(question)[NAME][0].astype(np.float32)}

    def state(self) -> State:
        """See `Member`."""
        return copies(self._counts._asdict())

    def restore(self, state: State) -> None:
        """See `Member`."""
        put_back(self._counts._asdict(), state, part=NAME)

    def memory_labels(self) -> Mapping[int, int]:
        """See `Member`. It keeps no rows."""
        return {}
