"""ADWIN: are there two halves of a growing window whose means differ by more than chance allows?"""

from typing import Any

import numpy as np
from river import drift

from streamlearn.drift.patient import RIVER, Patience, PatientDetector
from streamlearn.errors import CheckpointError
from streamlearn.records import State
from streamlearn.settings import Section, key

_ADWIN: Any = drift.ADWIN  # river's annotations are partial


class AdwinKeys(Section):
    """What river's test is told."""

    delta: float = key(0.01, "significance: smaller means fewer false alarms and later detection", gt=0, lt=1)
    clock: int = key(8, "how often the window is tested", unit="records", ge=1)
    max_buckets: int = key(5, "buckets kept of each size", ge=1)
    min_window_length: int = key(5, "least length of a half that is tested", unit="records", ge=1)
    grace_period: int = key(10, "values before the first test", unit="records", ge=1)


class Adwin(PatientDetector):
    """Adaptive windowing.

    Source  Bifet and Gavaldà 2007, Learning from time-changing data with adaptive windowing; river's compiled version.
    """

    class Settings(AdwinKeys, Patience):
        """Test and patience."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Adwin.Settings = settings or Adwin.Settings()
        super().__init__()

    def _begin(self) -> None:
        self._adwin = _ADWIN(**self._own())

    def _changed(self, value: float) -> bool:
        if not self.settings.rises_only:
            self._adwin.update(value)
            return bool(self._adwin.drift_detected)
        before = self._adwin.estimation
        self._adwin.update(value)
        return bool(self._adwin.drift_detected) and self._adwin.estimation > before

    def _inner_state(self) -> State:
        window = np.frombuffer(self._adwin._helper.__getstate__(), np.uint8).copy()
        return State({"window": window}, {"drift_detected": bool(self._adwin.drift_detected)})

    def _become(self, state: State) -> None:
        window = state.arrays["window"].tobytes()
        self._adwin._helper.__setstate__(window)
        if self._adwin._helper.__getstate__() != window:
            raise CheckpointError(f"drift detector: river {RIVER} does not take back its window of {len(window)} bytes")
        self._adwin._drift_detected = state.values["drift_detected"]
