"""KSWIN: are the newest values of a window distributed like a random choice of the older ones (Kolmogorov-Smirnov)?"""

from collections import deque
from typing import Any, Self

import numpy as np
from pydantic import model_validator
from river import drift

from streamlearn.drift.patient import Patience, PatientDetector
from streamlearn.records import Array, State
from streamlearn.settings import Section, key

_KSWIN: Any = drift.KSWIN  # river's annotations are partial


class KswinKeys(Section):
    """What river's test is told, and how often it is made: each costs about half a millisecond."""

    alpha: float = key(0.0001, "significance: smaller means fewer false alarms and later detection", gt=0, lt=1)
    window_size: int = key(300, "newest values that are held", unit="records", ge=2)
    stat_size: int = key(100, "newest of those, compared with as many of the older ones", unit="records", ge=1)
    every: int = key(20, "values between two tests", unit="records", ge=1)

    @model_validator(mode="after")
    def _has_older_ones(self) -> Self:
        if self.window_size < 2 * self.stat_size:
            raise ValueError(f"window_size is {self.window_size}: expected twice stat_size = {self.stat_size} or more")
        return self


class Kswin(PatientDetector):
    """The Kolmogorov-Smirnov windowing test.

    Source  Raab, Heusinger and Schleif 2020, Reactive soft prototype computing for concept drift streams; river's version,
            tested at every `every`-th value, where river tests at each.
    """

    class Settings(KswinKeys, Patience):
        """Test and patience."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Kswin.Settings = settings or Kswin.Settings()
        super().__init__()

    def _begin(self) -> None:
        own = self._own()
        self._every = own.pop("every")
        self._kswin = _KSWIN(**own, seed=0)

    def _changed(self, value: float) -> bool:
        test = self._kswin
        if not test.drift_detected and (test.n + 1) % self._every:
            test.n += 1
            test.window.append(value)
            return False
        older = list(test.window)
        test.update(value)
        if not test.drift_detected:
            return False
        newest = list(test.window)
        return not self.settings.rises_only or sum(newest) / len(newest) > sum(older) / len(older)

    def _inner_state(self) -> State:
        test = self._kswin
        kind, numbers, _ = test._rng.getstate()
        arrays: dict[str, Array] = {"window": np.array(test.window, np.float64), "random": np.array(numbers, np.uint32)}
        return State(arrays, {"n": test.n, "drift_detected": bool(test.drift_detected), "random": kind})

    def _become(self, state: State) -> None:
        test, values = self._kswin, state.values
        test.n, test._drift_detected = values["n"], values["drift_detected"]
        test.window = deque(state.arrays["window"].tolist(), maxlen=test.window_size)
        test._rng.setstate((values["random"], tuple(state.arrays["random"].tolist()), None))
