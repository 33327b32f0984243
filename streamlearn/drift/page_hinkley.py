"""Page-Hinkley: does a cumulative sum of deviations from the mean wander further from its extreme than a threshold?"""

from typing import Any, Literal

from river import drift

from streamlearn.drift.patient import Patience, PatientDetector
from streamlearn.records import State
from streamlearn.settings import Section, key

_PAGE_HINKLEY: Any = drift.PageHinkley  # river's annotations are partial


class PageHinkleyKeys(Section):
    """What river's test is told."""

    min_instances: int = key(30, "values before the first test", unit="records", ge=1)
    delta: float = key(0.005, "change of the mean that is tolerated", ge=0)
    threshold: float = key(50.0, "distance of the sum from its extreme that is a change", gt=0)
    alpha: float = key(0.9999, "weight of the sum so far against the next deviation", gt=0, le=1)


class PageHinkley(PatientDetector):
    """The Page-Hinkley test.

    Source  Page 1954, Continuous inspection schemes; river's version, with a fading sum.
    """

    class Settings(PageHinkleyKeys, Patience):
        """Test and patience."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: PageHinkley.Settings = settings or PageHinkley.Settings()
        super().__init__()

    def _begin(self) -> None:
        mode: Literal["up", "both"] = "up" if self.settings.rises_only else "both"
        self._test = _PAGE_HINKLEY(**self._own(), mode=mode)

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
