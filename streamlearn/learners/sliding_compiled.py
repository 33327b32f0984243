"""The compiled form of the sliding look-ahead, for multi-layer perceptrons on the CPU.

Weights are packed once per call and unpacked into new tensors at its end. Random numbers are drawn before the kernel runs,
as many as it may need; a row that it refuses takes its own, as in the plain form, and the rest are put back.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.params import Params
from streamlearn.inputs import Inputs
from streamlearn.kernels.sliding_mlp import run
from streamlearn.kernels.sliding_room import Given, Held, Recipe, Room, Told, Work, room_for
from streamlearn.learners.compiled import layer_sizes, packed, unpacked
from streamlearn.memory import Columns, Reservoir
from streamlearn.records import Array

WEIGHTS = ("slow", "rates", "fast")
IN_KERNEL = ("x", "label", "logits", "known")


class View(NamedTuple):
    """Rows as the network sees them, and how it sees what is remembered."""

    asked: Tensor  # [n, *shape], to be answered
    x: Tensor  # [m + n, *shape], to be learned; the newest ones that were learned before come first
    inputs: Inputs


class Passed(NamedTuple):
    """What became of rows, up to one that was refused, if any was: that one is answered, and no more."""

    logits: Array  # [answered, labels]
    slow: Array  # [answered, labels]
    norms: Array  # [learned]
    cosines: Array  # [learned]


class CompiledStream:
    """Packed weights of one call, beside the memory itself. Keeps room to work between calls, and nothing else."""

    def __init__(self, recipe: Recipe, orders: torch.Generator) -> None:
        self.recipe = recipe
        self.orders = orders
        self._room: Room | None = None

    def begin(self, weights: dict[str, Params], active: Tensor) -> None:
        """Take the weights up."""
        slow, rates, fast = (packed(weights[name], active) for name in WEIGHTS)
        mean = packed(weights["mean"], active) if "mean" in weights else slow
        sizes = layer_sizes(weights["slow"], active)
        if self._room is None or self._room.sizes.tolist() != sizes:
            own = self.recipe
            self._room = room_for(sizes, window=own.window, replays=own.replays, dtype=own.rates.dtype)
        self._like, self._active = weights, active
        self._flat = slow, mean, rates, np.stack([fast, fast]), np.zeros(1, np.int64)

    def end(self) -> dict[str, Params]:
        """Put the weights down."""
        slow, mean, rates, fast, turn = self._flat
        flats = dict(zip(WEIGHTS, (slow, rates, fast[turn[0]]), strict=True)) | ({"mean": mean} if mean is not slow else {})
        return {name: unpacked(flat, self._like[name], self._active) for name, flat in flats.items()}

    def learn(self, rows: Columns, view: View, reservoir: Reservoir) -> Passed:
        """Learn rows of active labels until one is refused.

        Shapes  `rows` are the m + n of `view.x`, untransformed.
        """
        if self._room is None:
            raise ValueError("no weights were taken up: expected a call of `begin` before")
        count, newest = len(view.asked), len(view.x) - len(view.asked)
        logits, slow = np.zeros((2, count, int(self._room.sizes[-1])), self._flat[0].dtype)
        told = Told(
            logits,
            slow,
            np.full(count, -1, np.int64),
            np.zeros(count),
            np.full(count, np.nan),
        )
        held, before = self._held(reservoir), (self.orders.get_state(), reservoir.generator.get_state())
        given = self._given(rows, view, reservoir)
        done = int(run(Work(held, given, self.recipe, told, self._room)))
        if done < count:
            self.orders.set_state(before[0])
            reservoir.generator.set_state(before[1])
            self._drawn(newest, done, reservoir, refused=True)
        reservoir.seen = int(held.seen[0])
        store(reservoir, {name: column[newest:] for name, column in rows.items()}, told.slots[:done])
        return Passed(told.logits[: done + 1], told.slow[: done + 1], told.norms[:done], told.cosines[:done])

    def _held(self, reservoir: Reservoir) -> Held:
        x, *rest = (reservoir.columns[name].numpy() for name in IN_KERNEL)
        return Held(*self._flat, np.array([reservoir.seen]), x.reshape(len(x), -1), *rest)

    def _given(self, rows: Columns, view: View, reservoir: Reservoir) -> Given:
        active = torch.nonzero(self._active).flatten().numpy()
        labels = np.searchsorted(active, rows["label"].numpy())
        x, asked, raw = (tensor.reshape(len(tensor), -1).numpy() for tensor in (view.x, view.asked, rows["x"]))
        orders, chances = self._drawn(len(view.x) - len(view.asked), len(view.asked), reservoir)
        own = view.inputs
        shift, gain = (np.zeros(own.shape), np.ones(own.shape)) if own.is_identity else (own.shift, own.gain)
        shift, gain = shift.ravel().astype(np.float32), gain.ravel().astype(np.float32)
        clip = np.inf if own.clip is None else own.clip
        return Given(x, asked, raw, labels, active, shift, gain, clip, orders, chances)

    def _drawn(self, newest: int, count: int, reservoir: Reservoir, *, refused: bool = False) -> tuple[Array, Array]:
        """Orders and chances of `count` rows that are learned, and of a `refused` one after them, as the plain form draws."""
        every, replays, window = self.recipe.every, self.recipe.replays, self.recipe.window
        due = (np.arange(count + refused) + reservoir.seen + 1) % every == 0
        orders, looking = np.zeros((len(due), window), np.int64), np.flatnonzero(due)
        sizes = np.minimum(window, newest + looking + 1)
        for size in np.unique(sizes).tolist():  # they grow with the rows until the window is full
            rows = looking[sizes == size]
            orders[rows, :size] = random_orders(len(rows), size, self.orders)
        wanted = np.repeat(due[:, None], replays + 1, axis=1)
        wanted[:count, -1] = True
        wanted[count:, -1] = False
        chances = np.zeros(wanted.shape)
        chances[wanted] = torch.rand(int(wanted.sum()), dtype=torch.float64, generator=reservoir.generator).numpy()
        return orders, chances


def random_orders(count: int, size: int, generator: torch.Generator) -> Array:
    """So many orders of `size` things, [count, size]: the same, one after another, however many are drawn at once."""
    return torch.rand((count, size), dtype=torch.float64, generator=generator).numpy().argsort(1)


def store(reservoir: Reservoir, rows: Columns, slots: Array) -> None:
    """Write what the kernel does not of rows that it put into these slots; −1 for none."""
    last = {slot: row for row, slot in enumerate(slots.tolist()) if slot >= 0}
    if last:
        for name, column in reservoir.columns.items():
            if name not in IN_KERNEL:
                column[list(last)] = rows[name][list(last.values())].to(column.dtype)
