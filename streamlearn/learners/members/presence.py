"""Whether a question resembles the present: distances to the newest rows and to older ones, compared."""

from collections.abc import Mapping

import numpy as np

from streamlearn.kernels import pool as kernel
from streamlearn.learners.members.columns import View
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.records import Array, Json, State
from streamlearn.settings import Section, key


class GateSettings(Section):
    """Presence gate."""

    quantile: float = key(0.15, "share of the stream's own rows that may be taken for the past; 0: none ever is", ge=0, lt=1)
    present_rows: int = key(1000, "newest rows that are the present", unit="rows", ge=1)
    past_rows: int = key(200, "uniform sample of older rows", unit="rows", ge=1)
    every: int = key(25, "rows between two readings of the quantile", unit="rows", ge=1)
    reach: float = key(5.0, "bound on the distance along one column; arrays have none", unit="deviations", gt=0)


class Presence:
    """Scores are log(distance to the nearest older row) − log(distance to the nearest newest row).

    The threshold is a quantile of the stream's own scores, each taken before its row was learned. So a stream that asks only
    about its present is answered from the past at that rate at most, while its scores are exchangeable over the window.
    """

    def __init__(self, settings: GateSettings, *, features: int, is_array: bool, seed: int) -> None:
        self.settings, self._seed = settings, np.uint64(seed)
        self._reach = None if is_array else settings.reach
        window = settings.present_rows
        self._kept = kernel.Presence(
            rows=np.zeros((features, window + settings.past_rows), np.float32),
            held=np.zeros(2, np.int64),
            scores=np.zeros(window),
            threshold=np.full(1, np.finfo(np.float64).min),
        )

    def run(self, view: View, learned: Array) -> Array:
        """bool [n]: rows that resemble the present, each by what was learned before it; learns those that are `learned`."""
        out, own = np.zeros(len(view.filled), bool), self.settings
        reach = np.float32(np.inf if self._reach is None else self._reach)
        gate = kernel.Gate(self._seed, reach, own.quantile, own.every)
        kernel.watch(kernel.Watched(view.filled, view.gain, learned), gate, self._kept, out)
        return out

    def arrays(self) -> Mapping[str, Array]:
        """For servers; nothing while there is no past."""
        window, older = self.settings.present_rows, min(int(self._kept.held[1]), self.settings.past_rows)
        if not older:
            return {}
        return {
            "presence.now": self._kept.rows[:, :window].copy(),
            "presence.ever": self._kept.rows[:, window : window + older].copy(),
            "presence.threshold": self._kept.threshold.copy(),
        }

    def values(self) -> Mapping[str, Json]:
        """For servers."""
        return {"reach": self._reach}

    def state(self) -> State:
        """All rows and scores."""
        return copies(self._kept._asdict())

    def restore(self, state: State) -> None:
        """Errors: CheckpointError."""
        put_back(self._kept._asdict(), state, part="presence")
