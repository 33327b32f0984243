"""What is done to inputs before a network sees them: x ↦ clip((x − shift) · gain), row by row.

Memory and stream keep what was decoded; this is applied when it is read. Only learning changes it (P9).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.records import Array, Json, State
from streamlearn.settings import Section, key


class InputSettings(Section):
    """The transform between decoded features and the network."""

    kind: Literal["none", "scale", "standardise"] = key("none", "none, times a factor, or running mean 0 and deviation 1")
    factor: float = key(1.0, "what `scale` multiplies by; 1/255 = 0.00392156862745098 for bytes", gt=0)
    clip: float = key(5.0, "bound on a standardised feature", unit="deviations", gt=0)


@dataclass(frozen=True)
class Inputs:
    """The transform as it is now. A value: learning gives the next one.

    Source  `standardise`: Chan, Golub, LeVeque 1979, pairwise mean and squared deviations, in float64.
    """

    settings: InputSettings
    shape: tuple[int, ...]
    count: int
    mean: Array  # float64 [*shape]
    squares: Array  # float64 [*shape], sum of squared deviations from the mean

    @classmethod
    def fresh(cls, settings: InputSettings, shape: tuple[int, ...]) -> "Inputs":
        """Before anything was learned."""
        return cls(settings, shape, 0, np.zeros(shape), np.zeros(shape))

    def learned(self, x: Array) -> "Inputs":
        """What it becomes after these rows, [n, *shape]."""
        if self.settings.kind != "standardise" or not len(x):
            return self
        with np.errstate(invalid="ignore"):  # what is not finite here makes the update not finite, and that is undone
            return self._merged(len(x), x.mean(0, dtype=np.float64), x.var(0, dtype=np.float64))

    def _merged(self, new: int, mean: Array, variance: Array) -> "Inputs":
        count, gap = self.count + new, mean - self.mean
        return replace(
            self,
            count=count,
            mean=self.mean + gap * (new / count),
            squares=self.squares + variance * new + gap**2 * (self.count * new / count),
        )

    @cached_property
    def shift(self) -> Array:
        """float32 [*shape]."""
        return self.mean.astype(np.float32)

    @cached_property
    def gain(self) -> Array:
        """float32 [*shape]; 0 for a feature that never varied, which says nothing yet."""
        if self.settings.kind == "scale":
            return np.full(self.shape, self.settings.factor, np.float32)
        deviation = np.sqrt(self.squares / max(self.count, 1))
        return np.divide(1.0, deviation, out=np.zeros(self.shape), where=deviation > 0).astype(np.float32)

    @property
    def clip(self) -> float | None:
        """The bound, where there is one."""
        return self.settings.clip if self.settings.kind == "standardise" else None

    @property
    def is_identity(self) -> bool:
        """True when inputs pass as they are."""
        return self.settings.kind == "none"

    def apply(self, x: Array) -> Array:
        """float32 [n, *shape] → the same shape, transformed."""
        if self.is_identity:
            return x
        with np.errstate(invalid="ignore"):  # what is not finite stays so, and the update that it would give is undone
            y = (x - self.shift) * self.gain
        return y if self.clip is None else y.clip(-self.clip, self.clip)

    def arrays(self) -> dict[str, Array]:
        """For servers: `input.shift` and `input.gain`; nothing when inputs pass as they are."""
        return {} if self.is_identity else {"input.shift": self.shift.copy(), "input.gain": self.gain.copy()}

    def values(self) -> dict[str, Json]:
        """For servers: `clip`, null where there is none."""
        return {"clip": self.clip}

    def state(self) -> State:
        """Statistics so far."""
        return State({"mean": self.mean.copy(), "squares": self.squares.copy()}, {"count": self.count})

    def restored(self, state: State) -> "Inputs":
        """The transform that gave `state`. Errors: CheckpointError when it was for another shape."""
        mean, squares = np.array(state.arrays["mean"]), np.array(state.arrays["squares"])
        if mean.shape != self.shape:
            raise CheckpointError(f"checkpoint holds input statistics of shape {mean.shape}: expected {self.shape}")
        return replace(self, count=int(state.values["count"]), mean=mean, squares=squares)
