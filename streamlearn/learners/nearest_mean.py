"""Nearest class mean: the control. It cannot forget, and needs no gradient, so others should beat it.

On inputs, or after a warm start on the features that its network makes of them.
"""

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.inputs import Inputs
from streamlearn.learners.class_means import ClassMeans
from streamlearn.learners.task import Task
from streamlearn.models.classifier import capacity_for
from streamlearn.records import About, Answering, Array, Batch, State
from streamlearn.settings import Section, key


class NearestMean(ClassMeans):
    """Logits are x·μ − ½‖μ‖², which orders labels as −½‖x − μ‖² does. Means are exact, in float64, of raw inputs or features.

    Source  Welford 1962, one row at a time. On arrays, the transform is applied to mean and question alike; named columns are
            averaged as they are shown when their row is learned.
    """

    class Settings(Section):
        """Nearest class mean."""

        chunk: int = key(1, "rows answered from one state", unit="rows", ge=1)

    def __init__(self, settings: Settings, task: Task) -> None:
        super().__init__(task, chunk=settings.chunk)
        self._means = np.zeros((capacity_for(0), self._size))
        self._counts = np.zeros(capacity_for(0), np.int64)

    def predict(self, x: Array, *, about: About = "auto") -> Array:  # noqa: ARG002 the protocol's word; here all questions get one answer
        """See `protocols.Learner`."""
        means, active = self._transformed_means()
        flat = self._shown(np.asarray(x, np.float32))
        logits = flat @ means.T - 0.5 * (means**2).sum(1)
        return np.where(active, logits, np.float32(-np.inf)).astype(np.float32)

    def _take(self, rows: Batch) -> None:
        self._grow(int(rows.labels.max()) + 1)
        self._inputs = self._inputs.learned(rows.x)
        features = rows.x.reshape(len(rows), self._size) if self._takes_raw else self._shown(rows.x)
        for x, label in zip(features, rows.labels.tolist(), strict=True):
            self._counts[label] += 1
            self._means[label] += (x - self._means[label]) / self._counts[label]

    @property
    def _takes_raw(self) -> bool:
        """Whether means are of rows as decoded: not of a network's features, nor of categories."""
        return self._features is None and isinstance(self._inputs, Inputs)

    def _grow(self, rows: int) -> None:
        extra = capacity_for(rows) - len(self._counts)
        if extra > 0:
            self._means = np.pad(self._means, ((0, extra), (0, 0)))
            self._counts = np.pad(self._counts, (0, extra))

    def _transformed_means(self) -> tuple[Array, Array]:
        met = np.flatnonzero(self._counts)
        width = int(met[-1]) + 1 if len(met) else 0
        means = self._means[:width].astype(np.float32)
        if self._takes_raw:
            means = self._inputs.apply(means.reshape(width, *self.task.shape)).reshape(width, self._size)
        return means, self._counts[:width] > 0

    def state(self) -> State:
        """See `protocols.Learner`."""
        own = State({"means": self._means.copy(), "counts": self._counts.copy()})
        return State.nest({"classes": own, "inputs": self._inputs.state(), "start": self.task.state()})

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        self.task.check(state.under("start"))
        classes = state.under("classes")
        means = np.array(classes.arrays["means"])
        if means.shape[1:] != (self._size,):
            raise CheckpointError(f"checkpoint holds class means of {means.shape[1]} features: expected {self._size}")
        self._inputs = self._inputs.restored(state.under("inputs"))
        self._means, self._counts = means, np.array(classes.arrays["counts"])

    def answering(self) -> Answering:
        """See `protocols.Learner`."""
        means, active = self._transformed_means()
        if self._features is not None:  # a linear head: rows μ, biases −½‖μ‖²
            head = {"head.weight": means.copy(), "head.bias": -0.5 * (means**2).sum(1), "active": active.astype(np.uint8)}
            return self._features.answering(head, self._inputs)
        arrays = {"means": np.array(means), "active": active.astype(np.uint8)}
        return Answering("nearest_mean", arrays | self._inputs.arrays(), self._inputs.values())
