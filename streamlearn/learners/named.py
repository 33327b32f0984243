"""Named columns as a network sees them: numbers standardised, gaps, and each category as three inputs of its own.

What a network learns for these inputs is the category's embedding: the first layer's weights are its table.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.inputs import InputSettings
from streamlearn.kernels.columns import count_rows
from streamlearn.layout import Layout
from streamlearn.records import Array, Json, State
from streamlearn.schema import Schema


@dataclass(frozen=True)
class NamedInputs:
    """The transform as it is now. A value: learning gives the next one. Speaks as `inputs.Inputs` does.

    Source  Welford 1962, in float64; a value more than ten deviations away counts as ten (`kernels.columns`), so that one
            reading of a broken sensor does not flatten a column for good.
    """

    settings: InputSettings
    layout: Layout
    counts: Array  # int64 [numeric]: values met
    mean: Array  # float64 [numeric]
    squares: Array  # float64 [numeric]: sum of squared deviations from the mean
    is_identity = False

    @classmethod
    def fresh(cls, settings: InputSettings, schema: Schema) -> "NamedInputs":
        """Before anything was learned."""
        layout = Layout.of(schema)
        count = len(layout.numeric)
        return cls(settings, layout, np.zeros(count, np.int64), np.zeros(count), np.zeros(count))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row as the network sees it."""
        return (self.layout.width,)

    def learned(self, x: Array) -> "NamedInputs":
        """What it becomes after these rows, [n, columns], one by one."""
        counts, mean, squares = self.counts.copy(), self.mean.copy(), self.squares.copy()
        count_rows(np.ascontiguousarray(x[:, list(self.layout.numeric)]), counts, mean, squares)
        return replace(self, counts=counts, mean=mean, squares=squares)

    @cached_property
    def gain(self) -> Array:
        """float64 [numeric]: one over the deviation; 0 for a column that never varied, which says nothing yet."""
        deviation = np.sqrt(self.squares / np.maximum(self.counts, 1))
        gain: Array = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        return gain

    def apply(self, x: Array) -> Array:
        """float32 [n, columns] → [n, width]. NaN in a row that cannot be learned, so that its update is undone."""
        with np.errstate(invalid="ignore"):
            z = self.layout.standardised(x, self.mean, self.gain, self.settings.clip)
        z[~self.layout.learnable(x)] = np.nan
        return self.layout.inputs(x, z)

    def arrays(self) -> dict[str, Array]:
        """For servers."""
        return {"input.mean": self.mean.copy(), "input.gain": self.gain.copy()}

    def values(self) -> dict[str, Json]:
        """For servers."""
        return {"clip": self.settings.clip, "columns": self.layout.values()}

    def state(self) -> State:
        """Statistics so far."""
        return State({name: getattr(self, name).copy() for name in STATISTICS})

    def restored(self, state: State) -> "NamedInputs":
        """The transform that gave `state`. Errors: CheckpointError when it was for other columns."""
        kept = {name: np.array(state.arrays.get(name, np.zeros(0))) for name in STATISTICS}
        if any(array.shape != self.mean.shape for array in kept.values()):
            raise CheckpointError(
                f"checkpoint holds statistics of {len(kept['mean'])} numeric columns: expected {len(self.mean)}; "
                "keep input.columns, or start from an empty state"
            )
        return replace(self, counts=kept["counts"], mean=kept["mean"], squares=kept["squares"])


STATISTICS = ("counts", "mean", "squares")
