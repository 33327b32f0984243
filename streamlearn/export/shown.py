"""What is done to inputs before any model sees them, as modules: `forms/inputs.py` and `forms/columns.py` in torch.

Hashes of categories become tables, for a category is a bucket, and there are few of those.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from streamlearn.layout import Layout
from streamlearn.records import Array, Json

Arrays = Mapping[str, Array]


def kept(array: Array) -> Tensor:
    """A copy, for what a follower maps cannot be written to."""
    return torch.tensor(np.array(array))


class Transform(nn.Module):
    """float32 [n, *shape] as networks are given it; [n, width] of named columns. See `forms.inputs.transformed`."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json]) -> None:
        super().__init__()
        self.clip: float | None = settings.get("clip")
        self.columns = Columns(Layout.read(settings["columns"])) if "columns" in settings else None
        names = ("input.mean", "input.gain") if self.columns else ("input.shift", "input.gain")
        self.is_shifted = "input.gain" in arrays
        for name, part in zip(("shift", "gain"), names, strict=True):
            self.register_buffer(name, kept(arrays[part]) if self.is_shifted else torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.columns is not None:
            z = self.columns.standardised(x, self.get_buffer("shift"), self.get_buffer("gain"), self.clip or 0.0)
            return self.columns.inputs(x, z)
        if self.is_shifted:
            x = (x - self.get_buffer("shift")) * self.get_buffer("gain")
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


class Columns(nn.Module):
    """See `layout.Layout`."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("numeric", torch.tensor(layout.numeric, dtype=torch.int64))
        self.register_buffer("gaps", torch.tensor(layout.gaps, dtype=torch.int64))
        starts = np.concatenate([[0], np.cumsum(layout.buckets, dtype=np.int64)])
        self.starts = [int(start) for start in starts[:-1]]
        for j, buckets in enumerate(layout.buckets):
            codes = np.full((buckets + 1, len(layout.buckets)), -1, np.int64)
            codes[:, j] = np.arange(-1, buckets)  # the first line is of a category that is missing
            embedded = layout.embedded(codes).reshape(buckets + 1, len(layout.buckets), layout.slots)[:, j]
            self.register_buffer(f"embedded_{j}", kept(embedded))
            self.register_buffer(f"place_{j}", kept(layout.places(codes)[:, j]))

    def numbers(self, x: Tensor) -> Tensor:
        """[n, numeric], with gaps."""
        return x.index_select(1, self.get_buffer("numeric"))

    def standardised(self, x: Tensor, mean: Tensor, gain: Tensor, clip: float) -> Tensor:
        numbers = self.numbers(x)
        filled = torch.where(torch.isnan(numbers), mean, numbers)
        return ((filled - mean) * gain).clamp(-clip, clip).float()

    def inputs(self, x: Tensor, z: Tensor) -> Tensor:
        """[n, width]: what a network is given."""
        embedded = [self.get_buffer(f"embedded_{j}")[self.code(x, j)] for j in range(len(self.layout.buckets))]
        return torch.cat([z, self.missing(x), *embedded], dim=1)

    def missing(self, x: Tensor) -> Tensor:
        return torch.isnan(x.index_select(1, self.get_buffer("gaps"))).float()

    def code(self, x: Tensor, j: int) -> Tensor:
        """int64 [n]: one more than the bucket; 0 where there is none."""
        given = x[:, self.layout.categorical[j]]
        known = (given >= 0) & (given < self.layout.buckets[j])
        return torch.where(known, given, torch.full_like(given, -1.0)).long() + 1

    def places(self, x: Tensor) -> list[Tensor]:
        """float32 [n, 1] for each categorical column."""
        return [self.get_buffer(f"place_{j}")[self.code(x, j)][:, None] for j in range(len(self.layout.buckets))]

    def lines(self, x: Tensor) -> list[Tensor]:
        """int64 [n] for each categorical column: its line in a table with one for each bucket; −1 for none."""
        codes = [self.code(x, j) - 1 for j in range(len(self.layout.buckets))]
        return [torch.where(code < 0, -1, code + start) for code, start in zip(codes, self.starts, strict=True)]


class Rows(NamedTuple):
    """As members of a pool are shown them."""

    z: Tensor  # float32 [n, inputs]
    u: Tensor  # float32 [n, places]
    lines: list[Tensor]  # int64 [n] of each categorical column


class Shown(nn.Module):
    """See `forms.columns.shown`."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json]) -> None:
        super().__init__()
        self.is_field = "field.range" in arrays
        if self.is_field:
            self.low, self.high = (float(end) for end in arrays["field.range"])
            self.factor = float(np.float32(arrays["field.factor"][0]))
            return
        self.clip: float = settings["clip"]
        self.columns = Columns(Layout.read(settings["columns"]))
        for name in ("mean", "gain", "edges"):
            self.register_buffer(name, kept(arrays[f"columns.{name}"]))

    def forward(self, x: Tensor) -> Rows:
        x = x.flatten(1)
        if self.is_field:
            u = ((x - self.low) / (self.high - self.low)).clamp(0.0, 1.0) if self.high > self.low else torch.full_like(x, 0.5)
            return Rows(x * self.factor, u, [])
        columns, mean = self.columns, self.get_buffer("mean")
        z = columns.standardised(x, mean, self.get_buffer("gain"), self.clip)
        numbers = columns.numbers(x)
        gaps = torch.isnan(numbers)
        u = places(torch.where(gaps, mean, numbers), self.get_buffer("edges"))
        u = torch.where(gaps, torch.full_like(u, 0.5), u).float()
        return Rows(columns.inputs(x, z), torch.cat([u, columns.missing(x), *columns.places(x)], dim=1), columns.lines(x))


def places(x: Tensor, edges: Tensor) -> Tensor:
    """See `forms.columns.places`."""
    steps = edges.shape[1] - 1
    if steps < 1:
        return torch.full_like(x, 0.5, dtype=torch.float64)
    low, high = ((edges < x[:, :, None]).long().sum(2), (edges <= x[:, :, None]).long().sum(2))
    after, columns = low.clamp(1, steps), torch.arange(edges.shape[0])
    left, right = edges[columns, after - 1].double(), edges[columns, after].double()
    width = right - left
    within = torch.where(width > 0, (x - left) / torch.where(width > 0, width, 1.0), 0.0)
    between = (after - 1 + within.clamp(0.0, 1.0)) / steps
    place = torch.where(high > low, (low + high - 1) / (2.0 * steps), between)
    return torch.where(low == 0, 0.0, torch.where(high > steps, 1.0, place))
