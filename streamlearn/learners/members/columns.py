"""What members are shown of a decoded row: columns, standardised and by place; or an array field, by one scale."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from streamlearn.kernels import columns as kernel
from streamlearn.layout import Layout
from streamlearn.learners.members.kept import copies, put_back
from streamlearn.records import Array, State
from streamlearn.settings import Section, key


class Settings(Section):
    """How members are shown inputs."""

    kind: Literal["auto", "columns", "array"] = key(
        "auto",
        "columns: each feature on its own scale; array: one scale for all; auto: columns where the input has one dimension",
    )
    missing: bool = key(False, "take NaN for a missing value, and show which are missing; features without names only")
    edges: int = key(33, "quantiles that a column's place is read from", ge=2)
    sample_rows: int = key(1000, "uniform sample of the past that quantiles are taken from", unit="rows", ge=10)
    clip: float = key(5.0, "bound on a standardised column", unit="deviations", gt=0)


NO_LINES = np.zeros((0, 0), np.int64)


class View(NamedTuple):
    """Rows as shown."""

    z: Array  # [n, inputs]
    u: Array  # [n, places]
    lines: Array = NO_LINES  # int64 [n, categorical columns], see `Rows`


class Columns:
    """Each column for itself: numbers, then gaps, which say where nothing was known, then categories, as `layout` has them.

    Source  Welford 1962 for mean and deviation, in float64; a value more than ten deviations away counts as ten, so that one
            reading of a broken sensor does not flatten a column for good. Vitter 1985, Algorithm R, for the sample.
    """

    def __init__(self, settings: Settings, *, layout: Layout, dtype: str, seed: int) -> None:
        self.settings, self.layout, self._dtype, self._seed = settings, layout, dtype, np.uint64(seed)
        features = len(layout.numeric)
        self._statistics = kernel.Statistics(
            counts=np.zeros(features, np.int64),
            mean=np.zeros(features),
            squares=np.zeros(features),
            sample=np.zeros((settings.sample_rows, features), np.float32),
            edges=np.zeros((features, settings.edges), np.float32),
            progress=np.array([0, kernel.FIRST_EDGES]),
        )

    def learnable(self, x: Array) -> Array:
        """bool [n]: rows that can be learned."""
        return self.layout.learnable(x)

    def run(self, x: Array, learned: Array) -> View:
        """Show rows, each by what was learned before it; learn those that are `learned`."""
        numbers = np.ascontiguousarray(x[:, list(self.layout.numeric)]) if self.layout.categorical else x
        seen = kernel.Seen(*(np.zeros(numbers.shape, self._dtype) for _ in range(2)))
        kernel.run(numbers, learned, kernel.Look(self._seed, self.settings.clip), self._statistics, seen)
        return self._view(x, seen) if len(self.layout.gaps) or self.layout.categorical else _plain(seen)

    def _view(self, x: Array, seen: kernel.Seen) -> View:
        """Numbers as they were seen, beside gaps and categories."""
        own = self.layout
        gaps, codes = own.missing(x), own.codes(x)
        places = own.places(codes)
        z, u = (
            np.concatenate(parts, 1, dtype=self._dtype)
            for parts in ((seen.z, gaps, own.embedded(codes)), (seen.u, gaps, places))
        )
        return View(z, u, own.table_lines(codes))

    def arrays(self) -> Mapping[str, Array]:
        """For servers."""
        deviation = np.sqrt(self._statistics.squares / np.maximum(self._statistics.counts, 1))
        gain = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        ready = self._statistics.progress[1] > kernel.FIRST_EDGES
        edges = self._statistics.edges if ready else self._statistics.edges[:, :0]
        return {"columns.mean": self._statistics.mean.copy(), "columns.gain": gain, "columns.edges": edges.copy()}

    def state(self) -> State:
        """All statistics."""
        return copies(self._statistics._asdict())

    def restore(self, state: State) -> None:
        """Errors: CheckpointError when it was for other columns."""
        put_back(self._statistics._asdict(), state, part="columns")


def _plain(seen: kernel.Seen) -> View:
    return View(seen.z, seen.u, np.zeros((len(seen.z), 0), np.int64))


class Field:
    """All features on one scale, as they are; place is where a value lies between the least and the greatest met."""

    def __init__(self, settings: Settings, *, features: int, factor: float, dtype: str) -> None:
        self.settings = settings
        self.layout, self._factor, self._dtype = Layout.plain(features, missing=False), factor, dtype
        greatest = float(np.finfo(np.float32).max)
        self._range = np.array([greatest, -greatest])

    def learnable(self, x: Array) -> Array:
        """bool [n]: rows that can be learned."""
        found: Array = np.asarray(np.isfinite(x).all(1))
        return found

    def run(self, x: Array, learned: Array) -> View:
        """Show rows, each by what was learned before it; learn those that are `learned`."""
        low, high = self._ranges(x, learned)
        span = (high - low)[:, None]
        u = np.divide(x - low[:, None], span, out=np.full(x.shape, 0.5), where=span > 0).clip(0.0, 1.0)
        z = np.nan_to_num(x * np.float32(self._factor))
        lines = np.zeros((len(x), 0), np.int64)
        return View(z.astype(self._dtype), np.nan_to_num(u).astype(self._dtype), lines)

    def _ranges(self, x: Array, learned: Array) -> tuple[Array, Array]:
        """Least and greatest before each row; learns the rows."""
        low = np.where(learned, x.min(1, initial=np.inf), np.inf)
        high = np.where(learned, x.max(1, initial=-np.inf), -np.inf)
        low, high = (np.concatenate([[edge], part]) for edge, part in zip(self._range, (low, high), strict=True))
        low, high = np.minimum.accumulate(low), np.maximum.accumulate(high)
        self._range[:] = low[-1], high[-1]
        return low[:-1], high[:-1]

    def arrays(self) -> Mapping[str, Array]:
        """For servers."""
        return {"field.range": self._range.copy(), "field.factor": np.array([self._factor])}

    def state(self) -> State:
        """The range."""
        return copies({"range": self._range})

    def restore(self, state: State) -> None:
        """Errors: CheckpointError."""
        put_back({"range": self._range}, state, part="field")
