"""Drift of the inputs: has the mean or the spread of a feature moved, whatever the labels say?

Rows are taken in blocks. A block's mean, in standard deviations, is one value for each feature, or where there are too many of
them for each random projection of all, fixed by a seed; its mean distance from what is usual is another. Each is a channel. A
detector watches every channel, and is one detector to the outside: it reports once, whichever of its channels moved. What is
usual it learns from the first records, and anew from those that follow a detection: a first half tells mean and spread of each
feature, a second one how much the channels vary.

Owned by the learner's thread. Blocks are cut by count, so that how many rows come in one call changes no bit (P5).
"""

from collections import deque

import numpy as np

from streamlearn.drift.channels import Channels, Size
from streamlearn.drift.detectors import Name
from streamlearn.drift.features import Features
from streamlearn.drift.input_keys import InputKeys, makers
from streamlearn.drift.moved import Moved
from streamlearn.drift.watch import Block, Watch, mean_of
from streamlearn.records import Array, State


class Inputs:
    """Named detectors, each over all channels."""

    class Settings(InputKeys):
        """Detectors on the inputs."""

    def __init__(self, settings: Settings, features: Features, *, recent_rows: int, most: int) -> None:
        self.settings, self.features, self._most = settings, features, most
        self.rows = 0
        self.names = (*features.names, *(f"{name} spread" for name in features.names))
        size = Size(settings.max_features, settings.projections, settings.seed)
        channels = Channels(features.numbers, size, settings.watch)
        made = makers(settings, max(1, channels.count))
        self._watches = {name: Watch(settings, channels, made[name]) for name in settings.detectors}
        self._waiting = np.zeros((0, len(features)))  # rows of the block that is not full yet
        self._newest: deque[Block] = deque(maxlen=max(1, recent_rows // settings.block))

    def take(self, x: Array) -> list[tuple[int, Name, tuple[Moved, ...]]]:
        """The next rows [n, *shape]: detections, each with the place in `x` of the row at which it came."""
        if not self._watches or not len(x):
            return []
        found, size, waited = [], self.settings.block, len(self._waiting)
        rows = np.concatenate([self._waiting, self.features.of(x)])
        for end in range(size, len(rows) + 1, size):
            found += [(end - waited - 1, name, moved) for name, moved in self._looked(rows[end - size : end])]
        self._waiting = rows[len(rows) - len(rows) % size :].copy()
        self.rows += len(x)
        return found

    def _looked(self, rows: Array) -> list[tuple[Name, tuple[Moved, ...]]]:
        block = Block.of(rows)
        self._newest.append(block)
        before = {name: watch.usual_block() for name, watch in self._watches.items()}
        fired: list[Name] = [name for name, watch in self._watches.items() if watch.take(rows, block)]
        return [(name, self._moved(*before[name])) for name in fired]

    def _moved(self, before: Block, unit: Array) -> tuple[Moved, ...]:
        """The features whose mean, or spread within a block, is furthest from the usual one, over the last records."""
        now = Block(*(mean_of(np.stack(each)) for each in zip(*self._newest, strict=True)))
        sizes = np.nan_to_num((np.stack(now) - np.stack(before)) / unit)
        sizes[1, ~self.features.numbers] = 0.0
        sizes = np.where([[name in self.settings.watch] for name in ("mean", "spread")], sizes, 0.0).ravel()
        most = np.argsort(-np.abs(sizes), kind="stable")[: self._most]
        was, is_now = np.concatenate(before), np.concatenate(now)
        return tuple(Moved(int(i), float(was[i]), float(is_now[i]), float(sizes[i])) for i in most if sizes[i])

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        newest = np.array(self._newest, np.float64).reshape(len(self._newest), 2, len(self.features))
        arrays = {"waiting": self._waiting.copy(), "newest_blocks": newest}
        own = State(arrays, {"rows": self.rows, "block": self.settings.block})
        return State.nest({"own": own} | {f"at_{name}": watch.state() for name, watch in self._watches.items()})

    def restore(self, state: State) -> None:
        """Go on from a saved state; what was cut or counted by other settings begins anew."""
        own = state.under("own")
        self._waiting = self._waiting[:0]
        self._newest.clear()
        if own.values.get("block") == self.settings.block:
            self._waiting = own.arrays["waiting"].copy()
            self._newest.extend(Block(*block) for block in own.arrays.get("newest_blocks", np.zeros(0)).copy())
        self.rows = own.values.get("rows", 0)
        for name, watch in self._watches.items():
            watch.restore(state.under(f"at_{name}"))
