"""Look-ahead in fixed shapes: weights, chunk and memory stay where they are on the device, and what was drawn comes as numbers.

One update reads and writes the same tensors each time, so that a GPU replays it as one graph. While the memory fills, the rows
that are not there yet are drawn with weight 0. Nothing inside a chunk waits for the device: whether an update was finite is
decided there, and read afterwards together with the measures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt.captured import Captured
from streamlearn.adapt.inner import Episode
from streamlearn.adapt.params import Loss, Params, Rows, cosine_of, gradient, masked_cross_entropy
from streamlearn.adapt.recursion import Flat
from streamlearn.inputs import Inputs
from streamlearn.memory import Columns, sent

Step: TypeAlias = Callable[[Loss, Params, Params, Episode], tuple[Params, Params]]
ALL = "all"  # the one entry of a dict of parameters that is a single vector


class Recipe(NamedTuple):
    """What a learner does, apart from the tensors it does it to."""

    step: Step  # one update: parameters and step sizes after it
    logits: Callable[[Params, Tensor], Tensor]
    chunk: int
    inner_chunks: int
    replay_rows: int
    max_contexts: int


class Drawn(NamedTuple):
    """What one update was drawn, on the host."""

    order: Tensor  # int64 [chunk]
    slots: Tensor  # int64, at most `replay_rows`
    lines: Sequence[int]  # of the mask, by row of the query; empty where one mask serves all


class Report(NamedTuple):
    """A chunk's end, still on the device."""

    slow: Params
    rates: Params
    read: Tensor  # float64 [3]: 1 where all is finite, distance moved, gradient alignment
    is_aligned: bool  # whether that was measured


class Held(NamedTuple):
    """Tensors that stay where they are."""

    slow: Tensor  # [P]
    rates: Tensor
    x: Tensor  # float32 [chunk, *shape], untransformed
    y: Tensor
    lines: Tensor  # bool [1 + contexts, capacity]
    shift: Tensor  # float32 [*shape]
    gain: Tensor
    plan: Tensor  # int64: order, slots, lines of the query's rows, how many slots there are
    alignment: Tensor  # [1]


class StaticLookAhead:
    """Moves a learner's weights by chunks. Holds tensors to work in between calls, and nothing else that lasts."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._held: Held | None = None

    def begin(self, weights: Mapping[str, Params], columns: Columns, lines: Tensor, inputs: Inputs, memory: Columns) -> None:
        """Take a chunk and the weights as they are before it."""
        self._flat, self._inputs = Flat(weights["slow"]), inputs
        self._before = self._flat.vector(weights["slow"]), self._flat.vector(weights["rates"])
        if self._held is None or self._held.slow.shape != self._before[0].shape:
            self._make(columns, lines, memory)
        held = self._tensors
        held.slow.copy_(self._before[0])
        held.rates.copy_(self._before[1])
        held.x.copy_(columns["x"])
        held.y.copy_(columns["label"])
        held.lines[: len(lines)].copy_(sent(lines, held.lines.device))
        held.alignment.fill_(math.nan)
        self._is_aligned = False
        if inputs.settings.kind == "standardise":
            self._take_transform()

    def update(self, drawn: Drawn, *, measured: bool) -> None:
        """One update; `measured`: the angle between the gradients on replayed and on fresh rows, before it."""
        own = self._recipe
        missing = own.replay_rows - len(drawn.slots)
        parts = [drawn.order, drawn.slots, torch.zeros(missing, dtype=torch.int64)]
        unknown = [0] * (own.replay_rows + own.chunk - len(drawn.lines))
        lines = [*drawn.lines[: len(drawn.slots)], *unknown, *drawn.lines[len(drawn.slots) :]]
        plan = torch.cat([*parts, torch.tensor([*lines, len(drawn.slots)])])
        self._tensors.plan.copy_(sent(plan, self._tensors.plan.device))
        if measured:
            self._measure()
            self._is_aligned = True
        self._update()

    def settled(self) -> Report:
        """What the chunk led to; where that is not finite, what was before it."""
        held, (slow, rates) = self._tensors, self._before
        sound = _finite(held.slow) & _finite(held.rates)
        slow, rates = torch.where(sound, held.slow, slow), torch.where(sound, held.rates, rates)
        moved = torch.linalg.vector_norm(slow - self._before[0])
        read = torch.stack([sound.double(), moved.double(), held.alignment[0].double()])
        return Report(_apart(self._flat.params(slow)), _apart(self._flat.params(rates)), read, self._is_aligned)

    @property
    def _tensors(self) -> Held:
        if self._held is None:
            raise RuntimeError("no chunk was begun")
        return self._held

    def _make(self, columns: Columns, lines: Tensor, memory: Columns) -> None:
        """Tensors for this head; what was recorded for a smaller one goes with its tensors."""
        own, x = self._recipe, columns["x"]
        self._memory = memory["x"], memory["label"]
        plan = torch.zeros(own.chunk + own.replay_rows + own.replay_rows + own.chunk + 1, dtype=torch.int64, device=x.device)
        self._held = held = Held(
            slow=torch.empty_like(self._before[0]),
            rates=torch.empty_like(self._before[1]),
            x=torch.empty_like(x),
            y=torch.empty_like(columns["label"]),
            lines=torch.zeros((1 + own.max_contexts, lines.shape[1]), dtype=torch.bool, device=x.device),
            shift=torch.empty_like(x[0]),
            gain=torch.empty_like(x[0]),
            plan=plan,
            alignment=torch.empty(1, dtype=self._before[0].dtype, device=x.device),
        )
        self._take_transform()
        self._update = Captured(self._updated, (held.slow, held.rates))
        self._measure = Captured(self._aligned, (held.alignment,))

    def _take_transform(self) -> None:
        for held, now in ((self._tensors.shift, self._inputs.shift), (self._tensors.gain, self._inputs.gain)):
            held.copy_(sent(torch.from_numpy(np.array(now)), held.device))

    # What is recorded.

    def _updated(self) -> Sequence[Tensor]:
        held, own = self._tensors, self._recipe
        query, there = self._query()
        weights = torch.cat([there, torch.ones_like(query.y[own.replay_rows :])]).to(held.slow)
        fresh = query.at(slice(own.replay_rows, None))
        shuffled = fresh.at(held.plan[: own.chunk])
        rows = own.chunk // own.inner_chunks
        support = [shuffled.at(slice(start, start + rows)) for start in range(0, own.chunk, rows)]
        episode = Episode(support, query, self._weighted(weights / weights.sum()))
        slow, rates = own.step(self._loss, {ALL: held.slow}, {ALL: held.rates}, episode)
        return slow[ALL], rates[ALL]

    def _aligned(self) -> Sequence[Tensor]:
        held, own = self._tensors, self._recipe
        query, there = self._query()
        weights, params = there.to(held.slow), {ALL: held.slow}
        new = gradient(self._loss, params, query.at(slice(own.replay_rows, None)))
        old = gradient(self._weighted(weights / weights.sum()), params, query.at(slice(own.replay_rows)))
        return [cosine_of(new, old).reshape(1)]

    def _query(self) -> tuple[Rows, Tensor]:
        """Replayed rows before the chunk's own; and for each replayed one, whether it is there."""
        held, own = self._tensors, self._recipe
        _, slots, lines, count = torch.split(held.plan, [own.chunk, own.replay_rows, own.replay_rows + own.chunk, 1])
        there = torch.arange(own.replay_rows, device=count.device) < count
        x, y = (kept.index_select(0, slots) for kept in self._memory)
        labels = torch.cat([torch.where(there, y, held.y[0]), held.y])  # an unused slot's label may have no softmax yet
        mask = held.lines.index_select(0, lines) if own.max_contexts else held.lines
        return Rows(self._transformed(torch.cat([x, held.x])), labels, mask), there

    def _transformed(self, x: Tensor) -> Tensor:
        held, clip = self._tensors, self._inputs.clip
        if not self._inputs.is_identity:
            x = (x - held.shift) * held.gain
            x = x if clip is None else x.clamp(-clip, clip)
        return x.to(held.slow.dtype)

    def _loss(self, params: Params, rows: Rows) -> Tensor:
        return masked_cross_entropy(self._logits(params, rows), rows)

    def _logits(self, params: Params, rows: Rows) -> Tensor:
        return self._recipe.logits(self._flat.params(params[ALL]), rows.x)

    def _weighted(self, weights: Tensor) -> Loss:
        """The same loss, each row by its weight."""

        def loss(params: Params, rows: Rows) -> Tensor:
            logits = self._logits(params, rows).masked_fill(~rows.mask, -torch.inf)
            return (torch.nn.functional.cross_entropy(logits, rows.y, reduction="none") * weights).sum()

        return loss


def _finite(vector: Tensor) -> Tensor:
    return torch.isfinite(torch.stack(torch.aminmax(vector))).all()


def _apart(params: Params) -> Params:
    """Each in memory of its own, as a restored one is: a view's alignment would be another one's, and with it bits."""
    return {name: part.clone() for name, part in params.items()}
