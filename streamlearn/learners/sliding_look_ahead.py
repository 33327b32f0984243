"""Look-ahead over a sliding window, which serves what it looks ahead to.

La-MAML makes θ good *after* a few steps on the newest rows, and then answers with θ before them. Here fast weights take
those steps, row by row, and answer questions about the present; the mean of θ, the slow weights, over the rows behind it
answers what is about all that was ever learned. Every few rows the slow weights look ahead over the newest rows, in random
order, and a few replayed ones are scored with these after each step: by their labels, and by the answers that were stored
with them.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamlearn.adapt import outer
from streamlearn.adapt.fast import Pace, averaged, fast_step
from streamlearn.adapt.inner import Episode, Form
from streamlearn.adapt.params import Loss, Params, Rows, cosine, gradient, is_finite, masked_cross_entropy
from streamlearn.adapt.recall import Recall, recall_gap
from streamlearn.adapt.recursion import meta_gradient
from streamlearn.errors import CheckpointError
from streamlearn.inputs import Inputs
from streamlearn.kernels.sliding_room import Recipe
from streamlearn.learners.chunkwise import Chunkwise, MemorySettings, joined_logits, mean_measures
from streamlearn.learners.compiled import is_compiled
from streamlearn.learners.look_ahead import step_sizes
from streamlearn.learners.named import NamedInputs
from streamlearn.learners.sliding_compiled import CompiledStream, View, random_orders
from streamlearn.learners.task import Task, check_labels
from streamlearn.memory import Columns, Reservoir, resized
from streamlearn.models.mlp import MLP
from streamlearn.records import About, Array, Batch, LearnReport, State
from streamlearn.settings import Section, key

ALIGNMENT_EVERY = 32
"""Rows between two measurements of the angle between new and old gradients, which cost as much as a look-ahead."""


class RecallSettings(Section):
    """The replay memory, which holds each row's answers too."""

    rows: int = key(200, "samples held for replay, each with the answer it had when it was stored", unit="rows", ge=1)


class SlidingLookAhead(Chunkwise):
    """Implements `protocols.Learner`. A chunk is one row: answers wait for no neighbour, and no row waits to be learned."""

    moves_by_rates = True

    class Settings(Section):
        """Look-ahead over a sliding window."""

        window: int = key(6, "newest rows that a look-ahead runs over, one inner step each", unit="rows", ge=1)
        update_every: int = key(1, "rows between look-aheads; fast weights move with every row", unit="rows", ge=1)
        replay_rows: int = key(12, "remembered rows in each look-ahead", unit="rows", ge=0)
        memory: RecallSettings = key(RecallSettings(), "the replay memory")
        recall: float = key(0.6, "weight of the squared difference from stored answers; 0 ignores them", ge=0)
        inner_lr: float = key(0.1, "step size that every weight starts from", gt=0)
        meta_lr: float = key(0.3, "how fast step sizes learn; 0 leaves them as they start", ge=0)
        clip_norm: float = key(2.0, "bound on the global norm of each meta gradient", gt=0)
        inner_clip_norm: float | None = key(
            8.0, "bound on the norm of a row's gradient, in look-aheads and in steps of the fast weights", gt=0
        )
        leak: float = key(0.02, "share of the way back to the slow weights that fast weights go with each row", gt=0, le=1)
        averaging: float = key(
            0.999, "share of itself that the mean of slow weights keeps with each row; 0: they answer themselves", ge=0, lt=1
        )
        fast_share: float = key(0.25, "share of the learned step sizes by which fast weights move", ge=0)
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)
        kernel: Literal["auto", "numba", "torch"] = key("auto", "compiled or plain arithmetic; auto compiles where it can")
        allow_kernel_change: bool = key(False, "go on from a checkpoint of the other kernel; bits will differ from there on")

    def __init__(self, settings: Settings, task: Task) -> None:
        self.settings = settings
        memory = MemorySettings(rows=settings.memory.rows)
        super().__init__(task, chunk=1, memory=memory, max_contexts=settings.max_contexts)
        slow = self.point.weights["slow"]
        copies = ("fast", "mean") if settings.averaging else ("fast",)
        more = {name: {n: p.clone() for n, p in slow.items()} for name in copies}
        self.point = self.point._replace(weights={**self.point.weights, **more})
        self._recent = self._columns(Batch.of(np.zeros((0, *task.shape), np.float32), np.zeros(0, np.int64)))
        self._pace = Pace(settings.leak, settings.fast_share, settings.inner_clip_norm)
        self._compiled = CompiledStream(self._recipe(), self.generator) if self._wants_compiling() else None
        self.kernel = "torch" if self._compiled is None else "numba"
        self.allow_kernel_change = settings.allow_kernel_change

    def _fills(self) -> Mapping[str, float]:
        return {"rates": self.settings.inner_lr}

    def _served(self, about: About) -> Params:
        return self.point.weights[self.ever if about == "ever" else "fast"]

    @property
    def ever(self) -> str:
        """Which weights answer what is about all that was learned."""
        return "mean" if self.settings.averaging else "slow"

    # One row, plainly.

    def _update(self, columns: Columns) -> Mapping[str, float]:
        fast = self._stepped(self._rows(columns))
        self.point = self.point._replace(weights={**self.point.weights, "fast": fast})
        alignment = self._look_ahead(_joined(self._recent, columns)) if self._is_due() else math.nan
        if self.settings.averaging:
            weights = self.point.weights
            mean = averaged(weights["mean"], weights["slow"], learned=self._learned, most=self.settings.averaging)
            self.point = self.point._replace(weights={**weights, "mean": mean})
        return {"gradient_alignment": alignment}

    def _stepped(self, fresh: Rows) -> Params:
        """The fast weights after a row; from the slow ones, where they themselves have run away."""
        weights = self.point.weights
        step = partial(fast_step, self._loss, rows=fresh, slow=weights["slow"], rates=weights["rates"], pace=self._pace)
        fast = step(weights["fast"])
        return fast if is_finite(fast) else step(weights["slow"])

    def _is_due(self) -> bool:
        return (self._learned + 1) % self.settings.update_every == 0

    @property
    def _learned(self) -> int:
        """Rows learned so far, each of which was offered to the memory."""
        return self._reservoir.seen

    def _look_ahead(self, window: Columns) -> float:
        """Move slow weights and rates. Returns the alignment of gradients, NaN where it was not measured."""
        fresh, order = self._rows(window), torch.from_numpy(random_orders(1, len(window["label"]), self.generator)[0])
        replayed = self._remembered()
        support = [fresh.at(order[i : i + 1]) for i in range(len(order))]
        episode = Episode(support, fresh)
        if replayed is not None:
            episode = Episode(support, Rows.joined([replayed[0], fresh]), self._score(replayed[1]))
        slow, rates = self.point.weights["slow"], self.point.weights["rates"]
        own = self.settings
        meta = meta_gradient(self._loss, slow, rates, episode, Form(floor=False, clip_norm=own.inner_clip_norm))
        alignment = self._alignment(fresh, replayed[0]) if replayed and self._measures_alignment() else math.nan
        slow, rates = outer.revived(slow, rates, meta, meta_lr=own.meta_lr, clip_norm=own.clip_norm)
        self.point = self.point._replace(weights={**self.point.weights, "slow": slow, "rates": rates})
        return alignment

    def _score(self, recall: Recall) -> Loss:
        """Loss of replayed rows, whose answers are in `recall`, followed by others."""

        def score(params: Params, rows: Rows) -> Tensor:
            logits = self.network.logits(params, rows.x)
            gap = recall_gap(logits[: len(recall.logits)], recall)
            return masked_cross_entropy(logits, rows) + self.settings.recall * gap

        return score

    def _measures_alignment(self) -> bool:
        return self._learned % ALIGNMENT_EVERY < self.settings.update_every

    def _alignment(self, fresh: Rows, replayed: Rows) -> float:
        slow = self.point.weights["slow"]
        return cosine(gradient(self._loss, slow, fresh), gradient(self._loss, slow, replayed))

    def _standing_measures(self) -> dict[str, float]:
        return step_sizes(self.point.weights["rates"], self.point.active.width)

    # Many rows, compiled.

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`."""
        return self.learn_both(batch)[0]

    def learn_both(self, batch: Batch) -> tuple[LearnReport, Array]:
        """The report, and beside its logits those of `about: ever`, for who weighs one against the other."""
        if self._compiled is None or not len(batch):
            return self._plain_both(batch)
        check_labels(batch.labels.tolist(), self.task.max_labels)
        self._compiled.begin(self.point.weights, self.point.active.lines[0])
        parts: list[Part] = []
        start = 0
        while start < len(batch):
            parts.append(self._pass(batch[start : self._stretch(batch, start)], self._compiled))
            start += len(parts[-1].rejected)
        self.point = self.point._replace(weights=self._compiled.end())
        return report(parts, self._standing_measures()), joined_logits([part.slow for part in parts])

    def _plain_both(self, batch: Batch) -> tuple[LearnReport, Array]:
        slow, reports = [], []
        for row in (batch[n : n + 1] for n in range(len(batch))):
            slow.append(self.predict(row.x, about="ever"))
            reports.append(super().learn(row))
        rejected = np.array([bool(each.rejected[0]) for each in reports], bool)
        logits, measures = joined_logits([each.logits for each in reports]), [each.measures for each in reports]
        return LearnReport(logits, rejected, mean_measures(measures) | self._standing_measures()), joined_logits(slow)

    def _stretch(self, batch: Batch, start: int) -> int:
        """Where the rows end that one run of the kernel may take: one row, where labels or the transform change with it."""
        new = self._new_labels(batch.labels[start:])
        if self.point.inputs.settings.kind == "standardise" or new[0]:
            return start + 1
        return start + int(new.argmax()) if new.any() else len(batch)

    def _new_labels(self, labels: Array) -> Array:
        lines = self.point.active.lines[0].numpy()
        return ~np.pad(lines, (0, max(0, int(labels.max()) + 1 - len(lines))))[labels]

    def _pass(self, batch: Batch, compiled: CompiledStream) -> "Part":
        columns, before = self._columns(batch), self.point
        asked, answers = self._transformed(columns["x"]), None
        is_new = bool(self._new_labels(batch.labels)[0])
        if is_new:
            before = self.point = self.point._replace(weights=compiled.end())
            answers = self._answer(columns, batch), self.predict(batch.x, about="ever")
        self._admit(batch)
        if is_new:
            self._resume(compiled)
        rows = _joined(self._recent, columns)
        passed = compiled.learn(rows, View(asked, self._transformed(rows["x"]), self._plain_inputs), self._reservoir)
        learned = len(passed.norms)
        if learned < len(batch):
            self.point = before
            if is_new:
                self._resume(compiled)
        taken = {name: column[: len(self._recent["label"]) + learned] for name, column in rows.items()}
        self._recent = _newest(taken, self.settings.window - 1)
        answers = answers or (self._wide(passed.logits), self._wide(passed.slow))
        return Part(*answers, passed.norms, passed.cosines)

    @property
    def _plain_inputs(self) -> Inputs:
        """The transform, which compiled passes apply to remembered rows themselves."""
        if isinstance(self.point.inputs, NamedInputs):
            raise TypeError("compiled passes take no named columns: expected the plain arithmetic")
        return self.point.inputs

    def _resume(self, compiled: CompiledStream) -> None:
        """After a change of labels."""
        for name in ("logits", "known"):
            self._reservoir.resize(name, self.point.active.lines.shape[1])
        compiled.begin(self.point.weights, self.point.active.lines[0])

    def _wide(self, logits: Array) -> Array:
        """Logits of the active rows as logits of all rows up to the highest."""
        wide = np.full((len(logits), self.point.active.width), -np.inf, np.float32)
        wide[:, np.flatnonzero(self.point.active.lines[0].numpy())] = logits
        return wide

    def _wants_compiling(self) -> bool:
        own = self.settings
        plain = own.max_contexts > 0 or self.task.device != "cpu" or self.task.schema is not None
        can = not plain and isinstance(self.network.body, MLP) and self.network.is_whole
        expected = "a learner without max_contexts, on arrays, with the model 'mlp'"
        return is_compiled(own.kernel, can=can, expected=expected)

    def _recipe(self) -> Recipe:
        own = self.settings
        bound = own.inner_clip_norm or math.inf
        rates = [own.leak, own.fast_share, own.recall, own.meta_lr, own.clip_norm, bound, own.averaging]
        return Recipe(own.window, own.update_every, own.replay_rows, ALIGNMENT_EVERY, np.array(rates, self.task.dtype))

    # The memory, and the newest rows.

    def _new_memory(self) -> Reservoir:
        plain = super()._new_memory()
        capacity = self.point.active.lines.shape[1]
        answers = {"logits": torch.zeros(capacity, dtype=self._dtype), "known": torch.zeros(capacity, dtype=torch.bool)}
        example = {name: column[0] for name, column in plain.columns.items()}
        answers = {name: column.to(self.task.device) for name, column in answers.items()}
        return Reservoir(example | answers, plain.capacity, plain.generator)

    def _remembered(self) -> tuple[Rows, Recall] | None:
        """Replayed rows and their answers; None while there are none."""
        slots = self._reservoir.draw(self.settings.replay_rows)
        if not len(slots):
            return None
        columns, capacity = self._reservoir.take(slots), self.point.active.lines.shape[1]
        return self._rows(columns), Recall(*(resized(columns[name], capacity) for name in ("logits", "known")))

    def _remember(self, columns: Columns) -> None:
        rows, capacity = self._rows(columns), self.point.active.lines.shape[1]
        with torch.no_grad():
            logits = self.network.logits(self.point.weights["slow"], rows.x)
        known = rows.mask.expand(len(logits), capacity)
        for name in ("logits", "known"):
            self._reservoir.resize(name, capacity)
        self._reservoir.offer({**columns, "logits": logits.masked_fill(~known, 0.0), "known": known})
        self._recent = _newest(_joined(self._recent, columns), self.settings.window - 1)

    # State.

    def state(self) -> State:
        """See `protocols.Learner`."""
        state = super().state()
        recent = {f"recent/{name}": column.cpu().numpy().copy() for name, column in self._recent.items()}
        return State({**state.arrays, **recent}, state.values)

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        if self.settings.averaging and not state.under("mean").arrays:
            raise CheckpointError(
                "checkpoint holds no mean of the slow weights: expected one, as learner.averaging is not 0; set it to 0, or "
                "start from an empty state"
            )
        recent = {name: self._restored_recent(name, state) for name in self._recent}
        for name in ("logits", "known"):
            if (kept := state.arrays.get(f"memory/{name}")) is not None:
                self._reservoir.resize(name, kept.shape[-1])
        super().restore(state)
        self._recent = recent

    def _restored_recent(self, name: str, state: State) -> Tensor:
        ours, kept = self._recent[name], state.arrays.get(f"recent/{name}")
        if kept is None or kept.shape[1:] != ours.shape[1:] or len(kept) >= self.settings.window:
            found = "nothing" if kept is None else f"shape {kept.shape}"
            raise CheckpointError(
                f"checkpoint holds {found} for '{name}' of the newest rows: expected at most {self.settings.window - 1} of "
                f"{tuple(ours.shape[1:])}; keep the configured window and input, or start from an empty state"
            )
        return torch.tensor(kept).to(ours)


def _joined(older: Columns, newer: Columns) -> Columns:
    return {name: torch.cat([column, newer[name]]) for name, column in older.items()}


def _newest(rows: Columns, count: int) -> Columns:
    held = len(next(iter(rows.values())))
    return {name: column[max(0, held - count) :].clone() for name, column in rows.items()}


class Part(NamedTuple):
    """What is to be reported of some rows, one more than were learned where the last was refused."""

    logits: Array
    slow: Array
    norms: Array
    cosines: Array

    @property
    def rejected(self) -> Array:
        """Row by row."""
        return np.arange(len(self.logits)) >= len(self.norms)


def report(parts: list[Part], standing: dict[str, float]) -> LearnReport:
    """Of successive rows."""
    norms, cosines = (np.concatenate([part[i] for part in parts]) for i in (2, 3))
    cosines = cosines[~np.isnan(cosines)]
    measures = {
        "gradient_alignment": float(np.mean(cosines)) if len(cosines) else math.nan,
        "update_norm": float(np.mean(norms)) if len(norms) else math.nan,
    }
    rejected = np.concatenate([part.rejected for part in parts])
    return LearnReport(joined_logits([part.logits for part in parts]), rejected, measures | standing)
