"""Which classes the error rose in: each one's share of wrong answers in the last rows, against its own share before them."""

from collections import deque
from collections.abc import Mapping

import numpy as np

from streamlearn.drift.moved import Moved
from streamlearn.records import State

FADE = 0.998
"""Weight of a row in its class's share, once more row of the class has come: half of it lies within 350 rows."""


class Classes:
    """Bounded by the last rows that are held, and by the label map."""

    def __init__(self, recent_rows: int, most: int) -> None:
        self._most = most
        self._recent: deque[tuple[int, float]] = deque(maxlen=recent_rows)
        self._before: dict[int, tuple[float, float]] = {}  # label row → fading sums of errors and of rows

    def take(self, label: int, error: float) -> None:
        """The next row."""
        if len(self._recent) == self._recent.maxlen:
            old, was = self._recent[0]
            errors, rows = self._before.get(old, (0.0, 0.0))
            self._before[old] = FADE * errors + was, FADE * rows + 1.0
        self._recent.append((label, error))

    def moved(self) -> tuple[Moved, ...]:
        """Those with most wrong answers beyond what was usual for them; of a new class every wrong one is beyond that."""
        found: dict[int, list[float]] = {}
        for label, error in self._recent:
            found.setdefault(label, []).append(error)
        excess, moved = {}, {}
        for label, errors in found.items():
            usual = self._usual(label)
            excess[label] = sum(errors) - len(errors) * (usual or 0.0)
            now = sum(errors) / len(errors)
            moved[label] = Moved(label, usual, now, now - (usual or 0.0))
        worst = sorted((label for label in excess if excess[label] > 0), key=lambda label: (-excess[label], label))
        return tuple(moved[label] for label in worst[: self._most])

    def _usual(self, label: int) -> float | None:
        errors, rows = self._before.get(label, (0.0, 0.0))
        return errors / rows if rows else None

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        before: Mapping[int, tuple[float, float]] = dict(sorted(self._before.items()))
        return State(
            {
                "recent": np.array(self._recent, np.float64).reshape(-1, 2),
                "labels": np.array(list(before), np.int64),
                "sums": np.array(list(before.values()), np.float64).reshape(-1, 2),
            }
        )

    def restore(self, state: State) -> None:
        """Go on from a saved state; one from before there were classes leaves none."""
        arrays = state.arrays
        if "recent" not in arrays:
            return
        self._recent.clear()
        self._recent.extend((int(label), error) for label, error in arrays["recent"].tolist())
        sums = arrays["sums"].tolist()
        self._before = {label: (errors, rows) for label, (errors, rows) in zip(arrays["labels"].tolist(), sums, strict=True)}
