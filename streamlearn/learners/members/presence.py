"""Whether a question resembles the present: how likely it is among the newest rows and among all, and which pool is surer."""

from collections.abc import Mapping

import numpy as np

from streamlearn.kernels import presence as kernel
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.records import Array, State
from streamlearn.settings import Section, key


class GateSettings(Section):
    """Presence gate."""

    quantile: float = key(0.1, "share of the stream's own rows that may be taken for the past; 0: none ever is", ge=0, lt=1)
    half_life: float = key(300.0, "after so many more rows, one counts half among the newest", unit="rows", gt=0)
    window: int = key(1000, "newest rows whose scores set the threshold; none is taken for the past before", unit="rows", ge=1)
    every: int = key(25, "rows between two readings of densities and threshold", unit="rows", ge=1)
    directions: int = key(128, "random directions in which more columns than these are seen", ge=1)
    shrinkage: float = key(0.3, "share of correlations that is not believed", ge=0, lt=1)
    lead: float = key(0.5, "weight of how much surer the present pool is than the fallback, beside one of likelihood", ge=0)


class Presence:
    """Scores are log p(row among the newest) − log p(row among all), both Gaussians, and beside it the lead.

    The lead is the log-probability that the present pool gives its best label less that which the fallback gives its own: on
    what it has not met lately the present pool is less sure. Each is divided by its standard deviation over the window.

    The threshold is a quantile of the stream's own scores, each taken before its row was learned. So a stream that asks only
    about its present is answered from the past at that rate at most, while its scores are exchangeable over the window. No
    row is kept: in more columns than `directions`, moments are those of random projections.
    Source  Johnson and Lindenstrauss 1984, for why these tell rows apart as well.
    """

    def __init__(self, settings: GateSettings, *, columns: int, seed: int) -> None:
        self.settings = settings
        self._directions = _directions(columns, settings.directions, seed)
        seen = min(columns, settings.directions)
        self._moments = kernel.Moments(np.zeros(2), np.zeros((2, seen)), np.zeros((2, seen, seen)))
        self._spread = kernel.Spread(np.zeros(1), np.zeros(2), np.zeros(2))
        self._reading = kernel.Reading(
            centre=np.zeros((2, seen)),
            factor=np.zeros((2, seen, seen)),
            volume=np.zeros(2),
            per=np.array([1.0, settings.lead]),
            scores=np.zeros(settings.window),
            threshold=np.full(1, np.finfo(np.float64).min),
            progress=np.zeros(1, np.int64),
        )

    def run(self, z: Array, leads: Array, learned: Array, scored: Array | None = None) -> kernel.Verdicts:
        """On rows [n, columns] and their leads [n], each by what was learned before it; learns those that are `learned`.

        `scored` holds what rows scored when they were asked, where that was earlier, and else NaN: the threshold is a quantile
        of the scores that decided.
        """
        own, scores = self.settings, np.full(len(z), np.nan) if scored is None else scored.copy()
        out = kernel.Verdicts(np.zeros(len(z), bool), scores)
        seen = z.astype(np.float64)
        if len(self._directions):
            seen = np.zeros((len(z), self._directions.shape[1]))
            kernel.project(z, self._directions, seen)
        gate = kernel.Gate(0.5 ** (1.0 / own.half_life), own.shrinkage, own.quantile, own.every, own.lead)
        kernel.watch(kernel.Asked(seen, leads), learned, gate, (self._moments, self._spread, self._reading), out)
        return out

    def arrays(self) -> Mapping[str, Array]:
        """For servers; nothing while everything is present. `whiten` makes a Gaussian's deviations independent."""
        if self._reading.threshold[0] == np.finfo(np.float64).min:
            return {}
        return {
            "presence.directions": self._directions.copy(),
            "presence.centre": self._reading.centre.copy(),
            "presence.whiten": np.linalg.inv(self._reading.factor),
            "presence.volume": self._reading.volume.copy(),
            "presence.per": self._reading.per.copy(),
            "presence.threshold": self._reading.threshold.copy(),
        }

    def state(self) -> State:
        """Moments, spreads, and their last reading. The directions are a function of the seed."""
        return copies(self._kept())

    def restore(self, state: State) -> None:
        """A state from before leads counted has moments alone that still say anything: scores begin anew.

        Errors: CheckpointError.
        """
        known = self._kept() if "per" in state.arrays else self._moments._asdict()
        put_back(known, state, part="presence")

    def _kept(self) -> dict[str, Array]:
        spread = {f"spread_{name}": array for name, array in self._spread._asdict().items()}
        return self._moments._asdict() | spread | self._reading._asdict()


def _directions(columns: int, most: int, seed: int) -> Array:
    """float32 [columns, most], or nothing where rows are seen as they are."""
    if columns <= most:
        return np.zeros((0, columns), np.float32)
    drawn: Array = np.random.default_rng(seed).standard_normal((columns, most)) / np.sqrt(columns)
    return drawn.astype(np.float32)
