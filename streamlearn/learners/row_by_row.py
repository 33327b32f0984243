"""What learners have in common whose rows are answered and learned one by one, in compiled passes over all rows of a call.

Arrays are changed in place, row after row, so that how many rows come in one call changes no bit. A row that cannot be
learned is known before anything is touched, and is passed over; nothing needs to be undone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from streamlearn.layout import Layout
from streamlearn.learners.members import columns
from streamlearn.learners.members.columns import Columns, Field, View
from streamlearn.learners.members.kept import put_back
from streamlearn.learners.members.member import NEVER, Rows, Size
from streamlearn.learners.task import Task, check_labels
from streamlearn.models.classifier import capacity_for, mixed_seed
from streamlearn.records import About, Answer, Array, Batch, Json, LearnReport, State, no_evidence


class RowByRow(ABC):
    """Implements `protocols.Learner` but for its members, and for what servers need."""

    chunk = 1
    memory_capacity = 0

    def __init__(self, task: Task, inputs: columns.Settings) -> None:
        self.task = task
        self._features = math.prod(task.shape)
        self._inputs = _inputs(task, inputs)
        self._admitted = np.full(capacity_for(task.known), NEVER, np.int64)
        self._admitted[: task.known] = -1
        self._count = np.zeros(1, np.int64)

    @abstractmethod
    def _run(self, rows: Rows, about: About) -> Array:
        """Log-probabilities of rows; changes nothing."""

    @abstractmethod
    def _learn(self, rows: Rows, evidence: Array) -> tuple[Array, Mapping[str, float]]:
        """Log-probabilities of rows, each before its own label, and measures; learns those that are `rows.learned`."""

    @abstractmethod
    def _as_made(self) -> "RowByRow":
        """Another one, of the same settings, that has learned nothing."""

    @abstractmethod
    def _grow(self, capacity: int) -> None:
        """Make room for this many labels."""

    @abstractmethod
    def _parts(self) -> Mapping[str, State]:
        """States of what the learner is made of."""

    @abstractmethod
    def _restore_parts(self, state: State) -> None:
        """Restore what `_parts` gave."""

    def predict(self, x: Array, *, about: About = "auto") -> Array:
        """See `protocols.Learner`."""
        rows = self._asked(x)
        return self._run(rows, about).astype(np.float32) if rows.width else np.zeros((len(x), 0), np.float32)

    def answer(self, x: Array) -> Answer:
        """See `protocols.Learner`."""
        return Answer(self.predict(x), no_evidence(len(x)))

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`."""
        check_labels(batch.labels.tolist(), self.task.max_labels)
        if not len(batch):
            return LearnReport(np.zeros((0, 0), np.float32), np.zeros(0, bool))
        flat = np.asarray(batch.x, np.float32).reshape(len(batch), self._features)
        learned = self._inputs.learnable(flat)
        self._admit(batch.labels, learned)
        view = self._inputs.run(flat, learned)
        rows = self._rows(view, batch.labels, learned)
        logits, measures = self._learn(rows, batch.evidence)
        self._count += learned.sum()
        width = _width(self._admitted < rows.numbers[-1])
        return LearnReport(logits[:, :width].astype(np.float32), ~learned, measures)

    def _admit(self, labels: Array, learned: Array) -> None:
        numbers = self._numbers(learned)[learned]
        new, first = np.unique(labels[learned], return_index=True)
        if len(new) and (capacity := capacity_for(int(new[-1]) + 1)) > len(self._admitted):
            extra = np.full(capacity - len(self._admitted), NEVER, np.int64)
            self._admitted = np.concatenate([self._admitted, extra])
            self._grow(capacity)
        self._admitted[new] = np.minimum(self._admitted[new], numbers[first])

    def _numbers(self, learned: Array) -> Array:
        """How many rows were learned before each."""
        numbers: Array = np.cumsum(learned) - learned + self._count[0]
        return numbers

    def _rows(self, view: View, labels: Array, learned: Array) -> Rows:
        width = _width(self._admitted != NEVER)
        labels = np.ascontiguousarray(np.where(learned, labels, 0))
        return Rows(view.z, view.u, labels, learned, self._numbers(learned), self._admitted, width, view.lines)

    def _asked(self, x: Array) -> Rows:
        flat = np.asarray(x, np.float32).reshape(len(x), self._features)
        learned = np.zeros(len(flat), bool)
        return self._rows(self._inputs.run(flat, learned), np.zeros(len(flat), np.int64), learned)

    def question(self) -> Rows:
        """A row of zeros, asked now."""
        return self._asked(np.zeros((1, self._features), np.float32))

    def shown(self, question: Rows) -> Mapping[str, Array]:
        """For servers: what inputs become, and which labels may answer."""
        return {**self._inputs.arrays(), "active": (self._admitted[: question.width] != NEVER).astype(np.uint8)}

    def how_shown(self) -> Mapping[str, Json]:
        """For servers: how."""
        return {"clip": self._inputs.settings.clip, "columns": self._inputs.layout.values()}

    def size(self, part: int) -> Size:
        """What part number `part` of this learner is made for."""
        own, seed = self._inputs.layout, mixed_seed(self.task.seed, 4, part)
        kinds = {"categories": len(own.categorical), "slots": own.slots, "lines": own.lines, "gaps": len(own.gaps)}
        return Size(own.dense, len(self._admitted), self.task.dtype, seed, **kinds)

    def state(self) -> State:
        """See `protocols.Learner`."""
        own = State({"admitted": self._admitted.copy(), "count": self._count.copy()})
        return State.nest({"labels": own, "inputs": self._inputs.state(), **self._parts()})

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        labels = state.under("labels")
        capacity = len(labels.arrays.get("admitted", ()))
        if 0 < capacity < len(self._admitted):  # going back: what has grown since begins anew
            vars(self).update(vars(self._as_made()))
        if capacity > len(self._admitted):
            self._admitted = np.full(capacity, NEVER, np.int64)
            self._grow(capacity)
        put_back({"admitted": self._admitted, "count": self._count}, labels, part="labels")
        self._inputs.restore(state.under("inputs"))
        self._restore_parts(state)

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return {}


def _inputs(task: Task, settings: columns.Settings) -> Columns | Field:
    features, seed = math.prod(task.shape), mixed_seed(task.seed, 4, 0)
    if task.schema is not None:
        return Columns(settings, layout=Layout.of(task.schema), dtype=task.dtype, seed=seed)
    standardised = task.inputs.kind == "standardise" or len(task.shape) == 1
    if settings.kind == "columns" or (settings.kind == "auto" and standardised):
        return Columns(settings, layout=Layout.plain(features, missing=settings.missing), dtype=task.dtype, seed=seed)
    factor = task.inputs.factor if task.inputs.kind == "scale" else 1.0
    return Field(settings, features=features, factor=factor, dtype=task.dtype)


def _width(admitted: Array) -> int:
    rows = np.flatnonzero(admitted)
    return int(rows[-1]) + 1 if len(rows) else 0
