"""The replay memory: a bounded, seeded sample of all that was learned, kept in preallocated columns.

Rows hold untransformed inputs. A column may be anything that has one entry per row: input, label, time, stored logits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from streamlearn.errors import CheckpointError
from streamlearn.records import State

Columns: TypeAlias = dict[str, Tensor]


class Undo(NamedTuple):
    """What `Reservoir.undo` needs to take an offer back."""

    slots: Tensor
    before: Columns
    seen: int


class Reservoir:
    """Item number n is held with probability capacity/n, whatever n is.

    Source  Vitter 1985, Algorithm R. `accept_reference` draws the slot from 0..n instead of 0..n−1, so that item n enters
    with capacity/(n+1), as the La-MAML authors' code does; `with_replacement` draws as they do.
    """

    def __init__(self, columns: Mapping[str, Tensor], capacity: int, generator: torch.Generator) -> None:
        """`columns` gives each column's entry shape, type and device by an example row [*entry]."""
        self.capacity = capacity
        self.seen = 0
        self.generator = generator
        self.columns: Columns = {
            n: torch.zeros((capacity, *c.shape), dtype=c.dtype, device=c.device) for n, c in columns.items()
        }

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def offer(self, rows: Columns, *, accept_reference: bool = False) -> Undo:
        """Show these rows, in order, once each. One random number per row, whatever becomes of it."""
        count = len(next(iter(rows.values())))
        chances = torch.rand(count, dtype=torch.float64, generator=self.generator).tolist()
        seen = self.seen
        chosen: dict[int, int] = {}  # the last row that took a slot keeps it
        for row, chance in enumerate(chances):
            self.seen += 1
            slot = self.seen - 1 if self.seen <= self.capacity else int(chance * (self.seen + accept_reference))
            if slot < self.capacity:
                chosen[slot] = row
        return self._write(rows, chosen, seen)

    def _write(self, rows: Columns, chosen: dict[int, int], seen: int) -> Undo:
        slots, sources = torch.tensor(list(chosen), dtype=torch.int64), torch.tensor(list(chosen.values()), dtype=torch.int64)
        before = {name: column[sent(slots, column.device)] for name, column in self.columns.items()}
        if chosen:
            for name, column in self.columns.items():
                column[sent(slots, column.device)] = rows[name][sent(sources, column.device)].to(column.dtype)
        return Undo(slots, before, seen)

    def undo(self, offer: Undo) -> None:
        """Take back the newest offer. The random state stays where it is."""
        for name, column in self.columns.items():
            column[sent(offer.slots, column.device)] = offer.before[name]
        self.seen = offer.seen

    def draw(self, count: int, *, with_replacement: bool = False) -> Tensor:
        """`min(count, len)` slots, uniform; `count` random numbers, whatever the memory's size."""
        chances = torch.rand(count, dtype=torch.float64, generator=self.generator).tolist()
        size = len(self)
        if with_replacement:
            return torch.tensor([int(c * size) for c in chances[: min(count, size)]], dtype=torch.int64)
        moved: dict[int, int] = {}  # Fisher-Yates over an array that is never written out
        picks = []
        for i, chance in enumerate(chances[: min(count, size)]):
            j = i + int(chance * (size - i))
            picks.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return torch.tensor(picks, dtype=torch.int64)

    def take(self, slots: Tensor, names: Iterable[str] | None = None) -> Columns:
        """Copies of these rows: all columns, or those named."""
        wanted = {name: self.columns[name] for name in (self.columns if names is None else names)}
        return {name: column.index_select(0, sent(slots, column.device)) for name, column in wanted.items()}

    def resize(self, name: str, width: int) -> None:
        """Give the last axis of a column this length: zeros are added at its end, or entries cut off there."""
        self.columns[name] = resized(self.columns[name], width)

    def labels(self) -> dict[int, int]:
        """Label row → rows held."""
        rows, counts = torch.unique(self.columns["label"][: len(self)], return_counts=True)
        return dict(zip(rows.tolist(), counts.tolist(), strict=True))

    def state(self) -> State:
        """All rows, the count of items seen, the random state."""
        arrays = {name: column[: len(self)].cpu().numpy().copy() for name, column in self.columns.items()}
        return State({**arrays, "random": self.generator.get_state().numpy().copy()}, {"seen": self.seen})

    def restore(self, state: State) -> None:
        """Go on from `state`. Errors: CheckpointError when it was kept by a memory of another size or other columns."""
        held = min(int(state.values["seen"]), self.capacity)
        for name, column in self.columns.items():
            kept = state.arrays.get(name)
            if kept is None or kept.shape != (held, *column.shape[1:]):
                found = "nothing" if kept is None else f"shape {kept.shape}"
                raise CheckpointError(
                    f"checkpoint's memory holds {found} for '{name}': expected {(held, *column.shape[1:])}; "
                    "keep the configured memory size, or start from an empty state"
                )
        for name, column in self.columns.items():
            column.zero_()
            column[:held] = torch.from_numpy(state.arrays[name].copy()).to(column)
        self.seen = int(state.values["seen"])
        self.generator.set_state(torch.from_numpy(state.arrays["random"].copy()))


class Balanced(Reservoir):
    """Holds every newest row; once full, a row of the label that is held most makes room, chosen by chance.

    Source  Chrysakis and Moens 2020, without their choice between rows of one label: there the newer displaces.
    """

    def offer(self, rows: Columns, *, accept_reference: bool = False) -> Undo:  # noqa: ARG002  it concerns chances of entering
        """See `Reservoir.offer`. One random number per row."""
        labels = rows["label"].tolist()
        chances = torch.rand(len(labels), dtype=torch.float64, generator=self.generator).tolist()
        seen, chosen = self.seen, {}
        held = self.columns["label"][: len(self)].tolist()
        for row, (label, chance) in enumerate(zip(labels, chances, strict=True)):
            self.seen += 1
            slot = len(held) if len(held) < self.capacity else _crowded(held, chance)
            held[slot : slot + 1] = [label]
            chosen[slot] = row
        return self._write(rows, chosen, seen)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`; a GPU gets it by way of pinned memory, so that nobody waits for the copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _crowded(labels: list[int], chance: float) -> int:
    """A slot of the label with most rows, the lowest of several."""
    counts = Counter(labels)
    most = max(sorted(counts), key=counts.__getitem__)
    slots = [slot for slot, label in enumerate(labels) if label == most]
    return slots[int(chance * len(slots))]


def resized(column: Tensor, width: int) -> Tensor:
    """The column with a last axis of this length; the same one where that is what it has."""
    missing = width - column.shape[-1]
    return torch.nn.functional.pad(column, (0, missing)) if missing else column
