"""Admitted rows that wait until their chunk is full. Cut by count alone: never by time, idleness or shutdown (P5)."""

from collections.abc import Sequence

import numpy as np

from streamlearn.records import Array, Batch, State, no_evidence, stacked_evidence

FIELDS = Batch.__slots__


class Chunks:
    """A queue of rows that gives whole chunks. What is left over is kept, also in the checkpoint."""

    def __init__(self, chunk: int, shape: Sequence[int]) -> None:
        self.chunk = chunk
        self._rows = empty(shape)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def waiting(self) -> Batch:
        """The rows that wait."""
        return self._rows

    def cut(self, rows: Batch) -> Batch:
        """`rows` joined to those that waited; as many whole chunks of them as there are, the rest waits."""
        joined = concatenate([self._rows, rows]) if len(self._rows) else rows
        whole = len(joined) - len(joined) % self.chunk
        self._rows = concatenate([joined[whole:]])
        return joined[:whole]

    def again(self, rows: Batch) -> Batch:
        """Rows that came before those that wait, cut anew."""
        joined, self._rows = concatenate([rows, self._rows]), self._rows[:0]
        return self.cut(joined)

    def state(self) -> State:
        """The waiting rows."""
        return State(arrays={name: np.array(getattr(self._rows, name)) for name in FIELDS})

    def restore(self, state: State) -> None:
        """Wait again for what waited when `state` was taken."""
        arrays = {"evidence": no_evidence(len(state.arrays["labels"])), **state.arrays}  # older ones have none
        self._rows = Batch(**{name: np.array(arrays[name]) for name in FIELDS})


def empty(shape: Sequence[int]) -> Batch:
    """No rows of inputs of this shape."""
    return Batch.of(np.zeros((0, *shape), np.float32), np.zeros(0, np.int64))


def concatenate(parts: Sequence[Batch]) -> Batch:
    """The rows of all parts, in order, in memory of their own."""
    columns: dict[str, Array] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS if name != "evidence"
    }
    return Batch(**columns, evidence=stacked_evidence([part.evidence for part in parts]))
