"""What is done at a detection: it is marked, alerts, makes the learner's steps faster for a while, or keeps a checkpoint.

All of it is counted in rows that were scored, and what changes the learner takes effect at whole multiples of `GRID` of them,
where the loop cuts its calls: so that how many rows a poll returned changes no bit (P5).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from streamlearn.drift.moved import SIGNALS, Mark, Signal
from streamlearn.records import State
from streamlearn.settings import Section, key

Action = Literal["mark", "alert", "faster", "keep"]
GRID = 100
"""Rows between two places at which steps may change: the wait that a detection costs, at most."""


class ReactionKeys(Section):
    """What is done at a detection. It is counted, logged and told by metrics in any case."""

    on_error: tuple[Action, ...] = key(
        ("mark",), "at one on the error: mark (on the page), alert, faster (steps), keep (the newest checkpoint)"
    )
    on_inputs: tuple[Action, ...] = key(("mark",), "the same at one on the inputs")
    alert_records: int = key(5000, "labelled records for which an alert lasts", unit="records", ge=1)
    faster_factor: float = key(2.0, "by which learned step sizes are multiplied, and divided afterwards", gt=1, le=100)
    faster_records: int = key(1000, "labelled records for which they are", unit="records", ge=1)
    keep_most: int = key(5, "checkpoints that a drift keeps from being removed; the oldest go first", unit="checkpoints", ge=1)


class Reactions:
    """Part of the checkpoint. `hasten` multiplies the learner's step sizes; None where it has none."""

    def __init__(self, settings: ReactionKeys, *, chunk: int = 1, hasten: Callable[[float], object] | None = None) -> None:
        self.settings, self._hasten = settings, hasten
        self._grid = chunk * -(-GRID // chunk)
        self._actions: Mapping[Signal, tuple[Action, ...]] = {"error": settings.on_error, "inputs": settings.on_inputs}
        self._alert_until = dict.fromkeys(SIGNALS, 0)
        self._fast_until, self._fast_by = 0, 1.0  # row, and by what steps are multiplied now
        self._rows = 0

    def does(self, action: Action, mark: Mark) -> bool:
        """Whether this detection asks for it."""
        return action in self._actions[mark.on]

    def room(self, rows: int) -> int | None:
        """Rows that may be learned in one call, after so many; None for any number of them."""
        watched = self._fast_by > 1.0 or any("faster" in actions for actions in self._actions.values())
        return self._grid - rows % self._grid if watched else None

    def take(self, marks: Iterable[Mark], rows: int) -> bool:
        """What was detected up to so many rows; True when the learner was changed by it."""
        self._rows = rows
        for mark in marks:
            if self.does("alert", mark):
                self._alert_until[mark.on] = mark.row + self.settings.alert_records
            if self.does("faster", mark):
                self._fast_until = mark.row + self.settings.faster_records
        return rows % self._grid == 0 and self._changed(rows < self._fast_until)

    def _changed(self, fast: bool) -> bool:
        if self._hasten is None or fast == (self._fast_by > 1.0):
            return False
        by = self.settings.faster_factor if fast else 1.0 / self._fast_by
        self._hasten(by)
        self._fast_by = by if fast else 1.0
        return True

    def alerts(self) -> dict[str, float]:
        """1 while a detection on the error, or on the inputs, is still to be alerted to; else 0."""
        return {on: float(self._rows < until) for on, until in self._alert_until.items()}

    @property
    def faster(self) -> float:
        """By what steps are multiplied now."""
        return self._fast_by

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        fast = {"fast_until": self._fast_until, "fast_by": self._fast_by}
        return State(values={"rows": self._rows, "alert_until": dict(self._alert_until), **fast})

    def restore(self, state: State) -> None:
        """Go on from a saved state; one from before there were reactions leaves none."""
        values = state.values
        self._rows, self._alert_until = values.get("rows", 0), {**dict.fromkeys(SIGNALS, 0), **values.get("alert_until", {})}
        self._fast_until, self._fast_by = values.get("fast_until", 0), values.get("fast_by", 1.0)
