"""A linear head that flows anew after each sample, over a small memory that holds the labels in balance (after COMLN).

The head is no result of all steps so far but of the memory alone: from where head rows begin, the gradient of the memory's
loss is followed for a fixed time, which meta-training can have learned. So the order of what is held does not matter,
and what is forgotten is exactly what the memory let go.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from streamlearn.adapt.flow import flowed
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings
from streamlearn.learners.task import Task
from streamlearn.memory import Balanced, Columns
from streamlearn.models.classifier import ModelSettings, mixed_seed
from streamlearn.settings import Section, key


class GradientFlow(Chunkwise):
    """On the features of a warm start's body, which stays as it is, or without one on the inputs themselves.

    Features are kept as they were when their row came.
    Source  Deleu et al. 2022. They adapt once, to a given support; ours is kept by the stream. No bias moves, as theirs.
    """

    class Settings(Section):
        """Gradient flow over a balanced memory."""

        rows: int = key(100, "features held; time and memory grow with their square", unit="rows", ge=1, le=5000)
        duration: float | None = key(None, "how long the head flows, in steps of rate 1; empty: as learned, or 3", gt=0)
        tolerance: float = key(1e-4, "bound on the error of each step of the flow", gt=0)

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        alone = task if task.start is not None else replace(task, model=ModelSettings(hidden=()))
        super().__init__(alone, chunk=1, memory=MemorySettings(rows=settings.rows))
        learned = None if task.start is None else task.start.duration
        self.duration = settings.duration or learned or 3.0

    def _new_memory(self) -> Balanced:
        columns = {"features": torch.zeros(self.network.width, dtype=self._dtype), "label": torch.zeros((), dtype=torch.int64)}
        return Balanced(columns, self.settings.rows, torch.Generator().manual_seed(mixed_seed(self.task.seed, 3)))

    def _update(self, columns: Columns) -> Mapping[str, float]:
        slow = self.point.weights["slow"]
        with torch.no_grad():
            features = self.network.features(slow, self._transformed(columns["x"]))
            if self.memory is None or not torch.isfinite(features).all():
                head = torch.full_like(slow["head.weight"], torch.nan)  # which has the row rejected
            else:
                self._early = self.memory.offer({"features": features.cpu(), "label": columns["label"].cpu()})
                head = self._flowed(slow["head.weight"], self.memory.columns, len(self.memory))
        self.point = self.point._replace(weights={"slow": {**slow, "head.weight": head}})
        return {}

    def _flowed(self, head: Tensor, held: Columns, count: int) -> Tensor:
        """The head at the end of the flow; rows that are not in the softmax stay."""
        active = self.point.active.lines[0]
        place = active.cumsum(0) - 1
        targets = torch.nn.functional.one_hot(place[held["label"][:count]], int(active.sum())).double()
        empty = {"head.weight": head.new_zeros(0, head.shape[1]), "head.bias": head.new_zeros(0)}
        begin = self.network.grown(empty, len(head))["head.weight"].cpu().double()[active]
        features = held["features"][:count].double()
        end = flowed(features, targets, begin, self.duration, tolerance=self.settings.tolerance)
        moved = head.clone()
        moved[active.to(head.device)] = end.to(head)
        return moved
