"""Drift detectors on the error: has the law of a number per row changed? Owned by the learner's thread.

river finds the change; what stands around it here counts in rows, never by a clock: a warm-up during which a detector
sees nothing (the first climb of the learning curve is not the law to compare with), and a refractory time during which
it goes on watching but keeps quiet (the same drift is not reported twice).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
from river import drift

from streamlearn.errors import CheckpointError
from streamlearn.protocols import Detector
from streamlearn.records import Json, State
from streamlearn.settings import Section, key

RIVER = version("river")
_ADWIN: Any = drift.ADWIN  # river's annotations are partial
_PAGE_HINKLEY: Any = drift.PageHinkley


class Patience(Section):
    """What every detector has beside its own keys."""

    warm_up: int = key(500, "rows at the start that the detector does not see", unit="records", ge=0)
    refractory: int = key(1000, "rows after a detection in which it reports no other", unit="records", ge=0)
    rises_only: bool = key(True, "report only that the error grew; an error that falls is learning")


class PatientDetector(ABC):
    """A `Detector` with warm-up and refractory time around the test of a subclass.

    A saved state of other settings, or of another river, is not taken over: the detector then begins anew, warm-up
    included, because its window was cut by rules that no longer hold.
    """

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

    @abstractmethod
    def _begin(self) -> None:
        """Forget every value."""

    @abstractmethod
    def _changed(self, value: float) -> bool: ...

    @abstractmethod
    def _inner_state(self) -> State: ...

    @abstractmethod
    def _become(self, state: State) -> None: ...


class Adwin(PatientDetector):
    """Adaptive windowing: two halves of a growing window differ in mean by more than chance allows.

    Source  Bifet and Gavaldà 2007, Learning from time-changing data with adaptive windowing; river's compiled version.
    """

    class Settings(Patience):
        delta: float = key(0.002, "significance: smaller means fewer false alarms and later detection", gt=0, lt=1)
        clock: int = key(32, "how often the window is tested", unit="records", ge=1)
        max_buckets: int = key(5, "buckets kept of each size", ge=1)
        min_window_length: int = key(5, "least length of a half that is tested", unit="records", ge=1)
        grace_period: int = key(10, "values before the first test", unit="records", ge=1)

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Adwin.Settings = settings or Adwin.Settings()
        super().__init__()

    def _begin(self) -> None:
        self._adwin = _ADWIN(**self.settings.model_dump(exclude=set(Patience.model_fields)))

    def _changed(self, value: float) -> bool:
        before = self._adwin.estimation
        self._adwin.update(value)
        return bool(self._adwin.drift_detected) and (not self.settings.rises_only or self._adwin.estimation > before)

    def _inner_state(self) -> State:
        window = np.frombuffer(self._adwin._helper.__getstate__(), np.uint8).copy()
        return State({"window": window}, {"drift_detected": bool(self._adwin.drift_detected)})

    def _become(self, state: State) -> None:
        window = state.arrays["window"].tobytes()
        self._adwin._helper.__setstate__(window)
        if self._adwin._helper.__getstate__() != window:
            raise CheckpointError(f"drift detector: river {RIVER} does not take back its window of {len(window)} bytes")
        self._adwin._drift_detected = state.values["drift_detected"]


class PageHinkley(PatientDetector):
    """A cumulative sum of deviations from the mean wanders further from its extreme than a threshold.

    Source  Page 1954, Continuous inspection schemes; river's version, with a fading sum.
    """

    class Settings(Patience):
        min_instances: int = key(30, "values before the first test", unit="records", ge=1)
        delta: float = key(0.005, "change of the mean that is tolerated", ge=0)
        threshold: float = key(50.0, "distance of the sum from its extreme that is a change", gt=0)
        alpha: float = key(0.9999, "weight of the sum so far against the next deviation", gt=0, le=1)

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: PageHinkley.Settings = settings or PageHinkley.Settings()
        super().__init__()

    def _begin(self) -> None:
        mode: Literal["up", "both"] = "up" if self.settings.rises_only else "both"
        self._test = _PAGE_HINKLEY(**self.settings.model_dump(exclude=set(Patience.model_fields)), mode=mode)

    def _changed(self, value: float) -> bool:
        self._test.update(value)
        return bool(self._test.drift_detected)

    def _inner_state(self) -> State:
        test = self._test
        return State(
            values={
                "drift_detected": bool(test.drift_detected),
                "mean": [test._x_mean.n, test._x_mean._mean],
                "sums": [test._sum_increase, test._sum_decrease],
                # before its first value the least sum is +inf, which JSON does not know
                "extremes": [test._min_increase if test._x_mean.n else None, test._max_decrease],
            }
        )

    def _become(self, state: State) -> None:
        test, values = self._test, state.values
        test._drift_detected = values["drift_detected"]
        test._x_mean.n, test._x_mean._mean = values["mean"]
        test._sum_increase, test._sum_decrease = values["sums"]
        least, test._max_decrease = values["extremes"]
        test._min_increase = float("inf") if least is None else least


DETECTORS: Mapping[str, type[PatientDetector]] = {"adwin": Adwin, "page_hinkley": PageHinkley}


class Mark(NamedTuple):
    """A detection: at the row-th row that was scored, counted from 1 over the whole stream."""

    row: int
    detector: str


class Drift:
    """Named detectors over the error of each row, and the newest of what they found."""

    class Settings(Section):
        detectors: tuple[Literal["adwin", "page_hinkley"], ...] = key(("adwin", "page_hinkley"), "which watch the error")
        adwin: Adwin.Settings = key(Adwin.Settings(), "adaptive windowing")
        page_hinkley: PageHinkley.Settings = key(PageHinkley.Settings(), "the Page-Hinkley test")
        max_marks: int = key(100, "detections remembered for the page", ge=1)

    def __init__(self, detectors: Mapping[str, Detector], *, max_marks: int = 100) -> None:
        self.detectors, self.max_marks = dict(detectors), max_marks
        self.rows = 0
        self.marks: tuple[Mark, ...] = ()
        self.counts = dict.fromkeys(self.detectors, 0)

    @classmethod
    def of(cls, settings: "Drift.Settings") -> "Drift":
        """The configured detectors, under their names of `DETECTORS`."""
        made: dict[str, Detector] = {"adwin": Adwin(settings.adwin), "page_hinkley": PageHinkley(settings.page_hinkley)}
        return cls({name: made[name] for name in settings.detectors}, max_marks=settings.max_marks)

    def update(self, errors: Iterable[float]) -> tuple[Mark, ...]:
        """Take the errors of the next rows, in stream order (`Answers.errors`); the detections among them."""
        found = []
        for error in errors:
            self.rows += 1
            found += [Mark(self.rows, name) for name, detector in self.detectors.items() if detector.update(error)]
        for mark in found:
            self.counts[mark.detector] += 1
        self.marks = (*self.marks, *found)[-self.max_marks :]
        return tuple(found)

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        own = State(values={"rows": self.rows, "marks": [list(mark) for mark in self.marks], "counts": dict(self.counts)})
        return State.nest({"found": own} | {f"at_{name}": detector.state() for name, detector in self.detectors.items()})

    def restore(self, state: State) -> None:
        """Go on from a saved state; a detector configured since begins with its warm-up. Errors: CheckpointError."""
        try:
            own = state.under("found").values
            self.rows, self.marks = own["rows"], tuple(Mark(*mark) for mark in own["marks"])[-self.max_marks :]
            self.counts = {name: own["counts"].get(name, 0) for name in self.detectors}
            for name, detector in self.detectors.items():
                if (saved := state.under(f"at_{name}")).values:
                    detector.restore(saved)
        except KeyError as error:
            raise CheckpointError(f"drift: the checkpoint lacks {error}: it was written by another program") from error
