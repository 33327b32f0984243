"""What stands around every test for a change: a warm-up and a refractory time, counted in rows, never by a clock.

During the warm-up a detector sees nothing (the first climb of the learning curve is not the law to compare with); during the
refractory time it goes on watching but keeps quiet (the same drift is not reported twice).
"""

from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import ClassVar

from streamlearn.records import Json, State
from streamlearn.settings import Section, key

RIVER = version("river")


class Patience(Section):
    """What every detector on the error has beside its own keys."""

    warm_up: int = key(500, "rows at the start that the detector does not see", unit="records", ge=0)
    refractory: int = key(1000, "rows after a detection in which it reports no other", unit="records", ge=0)
    rises_only: bool = key(True, "report only that the error grew; an error that falls is learning")


AT_ONCE = {"warm_up": 0, "refractory": 0, "rises_only": False}
"""No patience: for who has their own."""


class PatientDetector(ABC):
    """A `Detector` with warm-up and refractory time around the test of a subclass.

    A saved state of other settings, or of another river, is not taken over: the detector then begins anew, warm-up
    included, because its window was cut by rules that no longer hold.
    """

    Settings: ClassVar[type[Patience]]
    settings: Patience

    def __init__(self) -> None:
        self._rows, self._quiet_until = 0, 0
        self._begin()

    def update(self, value: float) -> bool:
        """Take the next value; True when a change was detected at it."""
        self._rows += 1
        if self._rows <= self.settings.warm_up:
            return False
        if not self._changed(value) or self._rows <= self._quiet_until:
            return False
        self._quiet_until = self._rows + self.settings.refractory
        return True

    def state(self) -> State:
        """A copy of all that `restore` needs to go on with identical detections."""
        inner = self._inner_state()
        outer = {"made_by": self._made_by(), "rows": self._rows, "quiet_until": self._quiet_until}
        return State(inner.arrays, {**outer, **inner.values})

    def restore(self, state: State) -> None:
        """Go on from a saved state. Errors: CheckpointError when river does not take its window back."""
        self._rows, self._quiet_until = 0, 0
        self._begin()
        if state.values["made_by"] == self._made_by():
            self._rows, self._quiet_until = state.values["rows"], state.values["quiet_until"]
            self._become(state)

    def _made_by(self) -> dict[str, Json]:
        return {"river": RIVER, **self.settings.model_dump(mode="json")}

    def _own(self) -> dict[str, Json]:
        """What river is told."""
        return self.settings.model_dump(exclude=set(Patience.model_fields))

    @abstractmethod
    def _begin(self) -> None:
        """Forget every value."""

    @abstractmethod
    def _changed(self, value: float) -> bool: ...

    @abstractmethod
    def _inner_state(self) -> State: ...

    @abstractmethod
    def _become(self, state: State) -> None: ...
