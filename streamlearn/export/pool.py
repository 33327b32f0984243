"""The form `pool` as a module: `serving/forms/pool.py` and `members.py` once more, in torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamlearn.export.shown import Arrays, Rows, Shown, kept
from streamlearn.records import Json


class Pool(nn.Module):
    """Log-probabilities of the members, mixed by their weights; of the fallback where a row resembles nothing recent."""

    def __init__(self, arrays: Arrays, settings: Mapping[str, Json]) -> None:
        super().__init__()
        about = settings.get("about", "auto")
        self.shown, self.floor = Shown(arrays, settings), float(settings["floor"])
        self.register_buffer("active", kept(arrays["active"]) > 0)
        self.labels = int((arrays["active"] > 0).sum())
        pools = {"now": list(settings["now"])}
        if about == "ever" and "slow.layers.0" in arrays:
            pools = {"now": ["slow"]}
        elif about == "auto" and "presence.threshold" in arrays:
            pools["ever"] = list(settings["ever"])
        self.pools = pools
        named = sorted({name for names in pools.values() for name in names})
        self.members = nn.ModuleDict({name: MEMBERS[name](_own(arrays, name)) for name in named})
        alone = pools["now"] == ["slow"]
        weighed = [] if alone else [p for p in pools if f"{p}.weights" in arrays]
        self.weights = {p: [float(weight) for weight in arrays[f"{p}.weights"]] for p in weighed}
        self.presence = Presence(arrays) if "ever" in pools else None

    def forward(self, x: Tensor) -> Tensor:
        rows = self.shown(x)
        answers = {name: self._log_softmax(member(rows)) for name, member in self.members.items()}
        now = self._mixed(answers, "now")
        if self.presence is None:
            return now
        ever = self._mixed(answers, "ever")
        return torch.where(self.presence(rows, now.amax(1) - ever.amax(1))[:, None], now, ever)

    def _mixed(self, answers: Mapping[str, Tensor], pool: str) -> Tensor:
        names = self.pools[pool]
        if pool not in self.weights:
            return answers[names[0]].double()
        chances = [answers[name].double().exp() for name in names]
        parts = [
            weight * torch.log((1.0 - self.floor) * chance + self.floor / self.labels)
            for weight, chance in zip(self.weights[pool], chances, strict=True)
        ]
        return self._log_softmax(torch.stack(parts).sum(0))

    def _log_softmax(self, scores: Tensor) -> Tensor:
        return torch.log_softmax(torch.where(self.get_buffer("active"), scores, -torch.inf), dim=1)


class Presence(nn.Module):
    """bool [n]: rows that resemble the present. See `forms.pool.likelihood`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        directions = arrays["presence.directions"]
        self.is_turned = len(directions) > 0
        self.threshold = float(arrays["presence.threshold"][0])
        self.per_likelihood, self.per_lead = (float(per) for per in arrays["presence.per"])
        self.volumes = [float(volume) for volume in arrays["presence.volume"]]
        for name in ("directions", "centre", "whiten"):
            self.register_buffer(name, kept(np.asarray(arrays[f"presence.{name}"], np.float64)))

    def forward(self, rows: Rows, leads: Tensor) -> Tensor:
        z = rows.z.double()
        seen = z @ self.get_buffer("directions") if self.is_turned else z
        likelihood = self._density(seen, 0) - self._density(seen, 1)
        return self.per_likelihood * likelihood + self.per_lead * leads >= self.threshold

    def _density(self, seen: Tensor, which: int) -> Tensor:
        away = (seen - self.get_buffer("centre")[which]) @ self.get_buffer("whiten")[which]
        return -0.5 * (away * away).sum(1) - self.volumes[which]


class Ramps(nn.Module):
    """See `forms.members.quantile_ramps`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.columns, self.ramps = (int(n) for n in arrays["columns"])
        self.register_buffer("weights", kept(arrays["weights"]))

    def forward(self, rows: Rows) -> Tensor:
        weights, width = self.get_buffer("weights"), self.columns * self.ramps
        steps = torch.arange(self.ramps, dtype=torch.float32)
        heights = (rows.u[:, : self.columns, None] * float(self.ramps) - steps).clamp(0.0, 1.0)
        scores = heights.reshape(-1, width) @ weights[:width] + weights[-1]
        for line in rows.lines:
            scores = scores + torch.where(line[:, None] < 0, 0.0, weights[width + line.clamp(min=0)])
        return scores


class Partitions(nn.Module):
    """See `forms.members.partitions`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.trees, self.inner = arrays["column"].shape
        self.register_buffer("column", kept(np.asarray(arrays["column"], np.int64)))
        for name in ("threshold", "cells"):
            self.register_buffer(name, kept(arrays[name]))

    def forward(self, rows: Rows) -> Tensor:
        cells, each = self.get_buffer("cells"), torch.arange(self.trees)
        node = torch.zeros_like(rows.u[:, :1]).long().expand(-1, self.trees)
        scores = torch.zeros((1, cells.shape[1]))
        for _ in range(self.inner.bit_length()):
            place = rows.u.gather(1, self.get_buffer("column")[each, node])
            node = 2 * node + 1 + (place > self.get_buffer("threshold")[each, node]).long()
            scores = scores + cells[each * 2 * self.inner + node - 1].sum(1)
        return scores


class Layers(nn.Module):
    """See `forms.members.mlp`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.is_scaled = "scale" in arrays
        if self.is_scaled:
            self.register_buffer("scale", kept(arrays["scale"]))
        self.depth = len(arrays) - self.is_scaled
        for i in range(self.depth):
            self.register_buffer(f"layer_{i}", kept(arrays[f"layers.{i}"]))

    def forward(self, rows: Rows) -> Tensor:
        h = rows.z * self.get_buffer("scale") if self.is_scaled else rows.z
        for i in range(self.depth):
            layer = self.get_buffer(f"layer_{i}")
            h = (torch.relu(h) if i else h) @ layer[:-1] + layer[-1]
        return h


class LabelLaw(nn.Module):
    """See `forms.members.label_law`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.register_buffer("next", kept(arrays["next"]))

    def forward(self, rows: Rows) -> Tensor:
        return self.get_buffer("next") + torch.zeros_like(rows.u[:, :1])


MEMBERS: Mapping[str, Any] = {
    **dict.fromkeys(("quantile-ramps", "steady-ramps", "settled-ramps"), Ramps),
    **dict.fromkeys(("partitions", "steady-partitions", "settled-partitions"), Partitions),
    **dict.fromkeys(("plastic-mlp", "sliding-look-ahead", "slow"), Layers),
    "label-law": LabelLaw,
}


def _own(arrays: Arrays, name: str) -> Arrays:
    prefix = f"{name}."
    return {part.removeprefix(prefix): array for part, array in arrays.items() if part.startswith(prefix)}
