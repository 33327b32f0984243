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

    columns: int
    capacity: int  # labels
    dtype: str
    seed: int


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
