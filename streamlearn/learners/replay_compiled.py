"""The compiled form of MER, for multi-layer perceptrons on the CPU: packs, calls, unpacks."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.kernels.reptile_mlp import Passes, walk
from streamlearn.kernels.sliding_room import Room, room_for
from streamlearn.learners.compiled import layer_sizes, packed, unpacked
from streamlearn.records import Array


class Labelled(NamedTuple):
    """Rows as the network sees them."""

    x: Array  # [n, *shape]
    labels: Array  # int64 [n], label rows


class CompiledPasses:
    """Moves weights by the passes of one sample. Keeps room to work between calls, and nothing else."""

    def __init__(self, *, passes: int, replay_rows: int, rates: Array) -> None:
        """`rates`: see `kernels.reptile_mlp.Passes`."""
        self._passes = passes
        self._rows = 1 + replay_rows
        self._rates = rates
        self._room: Room | None = None

    def run(self, slow: Params, active: Tensor, fresh: Labelled, replayed: Labelled) -> Params:
        """`slow` moved by passes over the fresh row and as many replayed ones in each; of the head, only active rows."""
        sizes, theta = layer_sizes(slow, active), packed(slow, active)
        if self._room is None or self._room.sizes.tolist() != sizes:
            self._room = room_for(sizes, window=self._rows, replays=0, dtype=self._rates.dtype)
        walk(theta, self._joined(fresh, replayed, active.numpy()), self._room)
        return unpacked(theta, slow, active)

    def _joined(self, fresh: Labelled, replayed: Labelled, active: Array) -> Passes:
        """Pass by pass, the fresh row first."""
        each = len(replayed.labels) // self._passes
        x = np.empty((self._passes, 1 + each, fresh.x[0].size), self._rates.dtype)
        labels = np.empty((self._passes, 1 + each), np.int64)
        x[:, 0], labels[:, 0] = fresh.x.reshape(-1), fresh.labels
        x[:, 1:], labels[:, 1:] = replayed.x.reshape(x[:, 1:].shape), replayed.labels.reshape(self._passes, each)
        return Passes(x, (np.cumsum(active) - 1)[labels], self._rates)
