"""One detector over all channels of the inputs. Owned by the learner's thread."""

from typing import NamedTuple

import numpy as np

from streamlearn.drift.channels import Channels, Usual
from streamlearn.drift.detectors import Making
from streamlearn.drift.input_keys import InputKeys
from streamlearn.drift.patient import PatientDetector
from streamlearn.records import Array, State


class Block(NamedTuple):
    """Rows, by what is compared with the usual when something has moved."""

    means: Array  # [features]
    deviations: Array

    @classmethod
    def of(cls, rows: Array) -> "Block":
        """Of rows [n, features]."""
        means = mean_of(rows)
        return cls(means, np.sqrt(mean_of((rows - means) ** 2)))


class Watch:
    """One detector over all channels: learns what is usual, then watches."""

    def __init__(self, settings: InputKeys, channels: Channels, make: Making) -> None:
        self._channels, self._make = channels, make
        self._half = max(2, settings.warm_up // settings.block // 2)  # blocks of each half of the warm-up
        self._refractory = -(-settings.refractory // settings.block)
        self._quiet = 0  # blocks in which nothing is reported
        self._made_by = [settings.block, self._half, settings.seed, channels.count, channels.features, [*channels.watch]]
        self._begin()

    def _begin(self) -> None:
        self._blocks = 0
        features = self._channels.features
        self._usual, self._within, self._varies = Usual(features), Usual(features), Usual(self._channels.count)
        self._detectors: list[PatientDetector] = []

    def usual_block(self) -> tuple[Block, Array]:
        """A block as they usually are, and each feature's standard deviation over all of them."""
        return Block(self._usual.mean, self._within.mean), self._usual.deviation

    def take(self, rows: Array, block: Block) -> bool:
        """Rows [n, features], and the same as a block; True when a change was detected."""
        self._blocks += 1
        self._quiet = max(0, self._quiet - 1)
        if self._blocks <= self._half:
            self._usual.take(rows)
            self._within.take(block.deviations[None])
            return False
        values = self._channels.of(rows, self._usual)
        if self._blocks <= 2 * self._half:
            self._varies.take(values[None])
            return False
        if not self._detectors:
            self._detectors = [self._make() for _ in range(self._channels.count)]
        values = (values - self._varies.mean) / np.maximum(self._varies.deviation, LEAST_SPREAD / np.sqrt(len(rows)))
        fired = [detector.update(value) for detector, value in zip(self._detectors, values.tolist(), strict=True)]
        if not any(fired) or self._quiet:
            return False
        self._quiet = self._refractory
        self._begin()
        return True

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        own = State(values={"made_by": self._made_by, "blocks": self._blocks, "quiet": self._quiet})
        parts = {f"channel_{i}": detector.state() for i, detector in enumerate(self._detectors)}
        learned = {"usual": self._usual, "within": self._within, "varies": self._varies}
        return State.nest({"own": own, **{name: each.state() for name, each in learned.items()}, **parts})

    def restore(self, state: State) -> None:
        """Go on from a saved state, or begin anew where other settings made it."""
        self._begin()
        self._quiet = 0
        own = state.under("own").values
        if own.get("made_by") != self._made_by:
            return
        self._blocks, self._quiet = own["blocks"], own["quiet"]
        self._usual.restore(state.under("usual"))
        self._within.restore(state.under("within"))
        self._varies.restore(state.under("varies"))
        if state.under("channel_0").values:
            self._detectors = [self._make() for _ in range(self._channels.count)]
            for i, detector in enumerate(self._detectors):
                detector.restore(state.under(f"channel_{i}"))


LEAST_SPREAD = 0.5
"""Of a channel, as a share of what the mean of independent rows has: one that stood still in the warm-up is no hair trigger."""


def mean_of(rows: Array) -> Array:
    """Of each column, over what is no NaN; NaN where all are."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, rows, 0.0).sum(0) / known.sum(0)
    return mean
