"""Nearest class mean on inputs: the control. It cannot forget, and needs no gradient, so others should beat it."""

from collections.abc import Mapping

import numpy as np

from streamlearn.errors import CheckpointError
from streamlearn.inputs import Inputs
from streamlearn.learners.chunkwise import joined_logits
from streamlearn.learners.task import Task, check_chunks, check_labels
from streamlearn.models.classifier import capacity_for
from streamlearn.records import About, Answering, Array, Batch, LearnReport, State
from streamlearn.settings import Section, key


class NearestMean:
    """Logits are x·μ − ½‖μ‖², which orders labels as −½‖x − μ‖² does. Means are exact, in float64, of raw inputs.

    Source  Welford 1962, one row at a time. The input transform is applied to mean and question alike.
    """

    class Settings(Section):
        """Nearest class mean."""

        chunk: int = key(1, "rows answered from one state", unit="rows", ge=1)

    memory_capacity = 0

    def __init__(self, settings: Settings, task: Task) -> None:
        self.chunk = settings.chunk
        self.task = task
        self._inputs = Inputs.fresh(task.inputs, task.shape)
        self._size = int(np.prod(task.shape))
        self._means = np.zeros((capacity_for(0), self._size))
        self._counts = np.zeros(capacity_for(0), np.int64)

    def predict(self, x: Array, *, about: About = "auto") -> Array:  # noqa: ARG002 the protocol's word; here all questions get one answer
        """See `protocols.Learner`."""
        means, active = self._transformed_means()
        flat = self._inputs.apply(np.asarray(x, np.float32)).reshape(len(x), self._size)
        logits = flat @ means.T - 0.5 * (means**2).sum(1)
        return np.where(active, logits, np.float32(-np.inf)).astype(np.float32)

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`. A row that would make a mean infinite is left out and reported."""
        check_chunks(len(batch), self.chunk)
        check_labels(batch.labels.tolist(), self.task.max_labels)
        logits, rejected = [], []
        for start in range(0, len(batch), self.chunk):
            rows = batch[start : start + self.chunk]
            with np.errstate(invalid="ignore"):  # a row that is not finite has no answer, and is left out below
                logits.append(self.predict(rows.x))
            rejected.append(not np.isfinite(rows.x).all())
            if not rejected[-1]:
                self._take(rows)
        return LearnReport(joined_logits(logits), np.repeat(np.array(rejected, bool), self.chunk))

    def _take(self, rows: Batch) -> None:
        self._grow(int(rows.labels.max()) + 1)
        self._inputs = self._inputs.learned(rows.x)
        for x, label in zip(rows.x.reshape(len(rows), self._size), rows.labels.tolist(), strict=True):
            self._counts[label] += 1
            self._means[label] += (x - self._means[label]) / self._counts[label]

    def _grow(self, rows: int) -> None:
        extra = capacity_for(rows) - len(self._counts)
        if extra > 0:
            self._means = np.pad(self._means, ((0, extra), (0, 0)))
            self._counts = np.pad(self._counts, (0, extra))

    def _transformed_means(self) -> tuple[Array, Array]:
        met = np.flatnonzero(self._counts)
        width = int(met[-1]) + 1 if len(met) else 0
        means = self._inputs.apply(self._means[:width].astype(np.float32).reshape(width, *self.task.shape))
        return means.reshape(width, self._size), self._counts[:width] > 0

    def state(self) -> State:
        """See `protocols.Learner`."""
        own = State({"means": self._means.copy(), "counts": self._counts.copy()})
        return State.nest({"classes": own, "inputs": self._inputs.state()})

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        classes = state.under("classes")
        means = np.array(classes.arrays["means"])
        if means.shape[1:] != (self._size,):
            raise CheckpointError(f"checkpoint holds class means of {means.shape[1]} features: expected {self._size}")
        self._inputs = self._inputs.restored(state.under("inputs"))
        self._means, self._counts = means, np.array(classes.arrays["counts"])

    def answering(self) -> Answering:
        """See `protocols.Learner`."""
        means, active = self._transformed_means()
        arrays = {"means": np.array(means), "active": active.astype(np.uint8)}
        return Answering("nearest_mean", arrays | self._inputs.arrays(), self._inputs.values())

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return {}
