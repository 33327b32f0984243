"""What a member of a pool is."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from streamlearn.kernels.rows import Rows
from streamlearn.records import Array, State

__all__ = ["NEVER", "Member", "Rows", "Size", "answers_for"]

NEVER = np.iinfo(np.int64).max
"""Where a label stands in `Rows.admitted` before it is learned."""


class Size(NamedTuple):
    """What a member is made for."""

    columns: int  # that are numbers, or say where one is missing
    capacity: int  # labels
    dtype: str
    seed: int
    categories: int = 0  # categorical columns
    slots: int = 0  # inputs of a network for each of them
    lines: int = 0  # buckets of all of them
    gaps: int = 0  # of `columns`, those that say where one is missing; they come after the numbers

    @property
    def inputs(self) -> int:
        """Of a network."""
        return self.columns + self.categories * self.slots

    @property
    def features(self) -> int:
        """Of a row as it came; the squared length of a usual one as a network sees it."""
        return self.places - self.gaps

    @property
    def places(self) -> int:
        """Columns that have a place in [0, 1]."""
        return self.columns + self.categories


class Member(Protocol):
    """Classifies rows. Owned by one learner, which tells it of every new label before rows with it come."""

    memory_capacity: int  # bound of the rows that it keeps to learn from again

    def run(self, rows: Rows) -> Mapping[str, Array]:
        """Under the name of each answer: log-probabilities [n, width], each row's before its own label; −∞ for labels not
        yet admitted.

        Rows that are not learned change nothing.
        """

    def grow(self, capacity: int) -> None:
        """Make room for this many labels. Old labels keep all they have; the answers stay."""

    def arrays(self, question: Rows) -> Mapping[str, Array]:
        """Copies of what its form in `serving/forms/members.py` needs to answer `question`, asked now: `NAME.part`."""

    def state(self) -> State:
        """A copy of all that `restore` needs."""

    def restore(self, state: State) -> None:
        """Become the member that gave `state`. Errors: CheckpointError naming what does not fit."""

    def memory_labels(self) -> Mapping[int, int]:
        """Label row → rows of it kept to learn from again."""


def answers_for(rows: Rows, dtype: str) -> Array:
    """Room for the answers to `rows`."""
    return np.zeros((len(rows.labels), rows.width), dtype)
