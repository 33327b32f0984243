"""Streaming linear discriminant analysis: means of classes, compared in the directions in which classes do not spread.

On inputs, or after a warm start on the features that its network makes of them. As `nearest-mean` it takes no gradient, holds
no samples, and cannot forget: but for rounding, and for how often the inverse was made, the order of rows does not matter.
"""

from collections.abc import Mapping

import numpy as np

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.inputs import Inputs
from streamlearn.learners.chunkwise import inputs_of, joined_logits
from streamlearn.learners.discriminant import Discriminant
from streamlearn.learners.features import Features
from streamlearn.learners.task import Task, check_chunks, check_labels
from streamlearn.models.classifier import capacity_for
from streamlearn.records import About, Answer, Answering, Array, Batch, LearnReport, State, no_evidence
from streamlearn.settings import Section, key

FAR = 1e30  # no logit is further from 0


class StreamingLDA:
    """See `discriminant`. Rows are averaged as they are shown when they are learned."""

    class Settings(Section):
        """Streaming linear discriminant analysis."""

        chunk: int = key(1, "rows answered from one state", unit="rows", ge=1)
        shrinkage: float = key(
            0.1, "how far the common covariance is drawn to its diagonal: relations count for less", gt=0, lt=1
        )
        max_features: int = key(4096, "most features; the covariance takes 16 bytes times their square", ge=1)

    memory_capacity = 0

    def __init__(self, settings: Settings, task: Task) -> None:
        self.chunk, self.task = settings.chunk, task
        self._inputs = inputs_of(task)
        self._features = None if task.start is None else Features(task)
        self._size = int(np.prod(self._inputs.shape)) if self._features is None else self._features.size
        if self._size > settings.max_features:
            raise ConfigError(
                f"learner.max_features is {settings.max_features}, and there are {self._size} features: raise it;"
                f" their covariance takes {16 * self._size**2 / 1e6:,.0f} MB"
            )
        self._classes = Discriminant(self._size, shrinkage=settings.shrinkage)

    def predict(self, x: Array, *, about: About = "auto") -> Array:  # noqa: ARG002 the protocol's word; here all questions get one answer
        """See `protocols.Learner`."""
        weight, bias, active = self._linear()
        flat = self._shown(np.asarray(x, np.float32)).astype(
            np.float64
        )  # far classes cancel: rounding would depend on batch mates
        return np.where(active, flat @ weight.T + bias, -np.inf).astype(np.float32)

    def answer(self, x: Array) -> Answer:
        """See `protocols.Learner`."""
        return Answer(self.predict(x), no_evidence(len(x)))

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`. A row that is not finite is left out and reported."""
        check_chunks(len(batch), self.chunk)
        check_labels(batch.labels.tolist(), self.task.max_labels)
        logits, rejected = [], []
        for start in range(0, len(batch), self.chunk):
            rows = batch[start : start + self.chunk]
            with np.errstate(invalid="ignore"):  # a row that is not finite has no answer, and is left out below
                logits.append(self.predict(rows.x))
            rejected.append(not self._learnable(rows.x))
            if not rejected[-1]:
                self._take(rows)
        return LearnReport(joined_logits(logits), np.repeat(np.array(rejected, bool), self.chunk))

    def _take(self, rows: Batch) -> None:
        self._classes.grow(capacity_for(int(rows.labels.max()) + 1))
        self._inputs = self._inputs.learned(rows.x)
        for x, label in zip(self._shown(rows.x).astype(np.float64), rows.labels.tolist(), strict=True):
            self._classes.learn(x, label)

    def _learnable(self, x: Array) -> bool:
        found = np.isfinite(x) if isinstance(self._inputs, Inputs) else self._inputs.layout.learnable(x)
        return bool(found.all())

    def _shown(self, x: Array) -> Array:
        x = self._inputs.apply(x)
        return x.reshape(len(x), self._size) if self._features is None else self._features.of(x)

    def _linear(self) -> tuple[Array, Array, Array]:
        """float32 weights [C, size] and biases [C] up to the last label met, and which of them were."""
        met = np.flatnonzero(self._classes.counts)
        width = int(met[-1]) + 1 if len(met) else 0
        weight, bias = (np.clip(each[:width], -FAR, FAR).astype(np.float32) for each in self._classes.linear())
        return weight, bias, self._classes.counts[:width] > 0

    def state(self) -> State:
        """See `protocols.Learner`."""
        return State.nest({"classes": self._classes.state(), "inputs": self._inputs.state(), "start": self.task.state()})

    def restore(self, state: State) -> None:
        """See `protocols.Learner`."""
        self.task.check(state.under("start"))
        classes = state.under("classes")
        if classes.arrays["means"].shape[1:] != (self._size,):
            found = classes.arrays["means"].shape[1]
            raise CheckpointError(f"checkpoint holds class means of {found} features: expected {self._size}")
        self._inputs = self._inputs.restored(state.under("inputs"))
        self._classes.restore(classes)

    def answering(self) -> Answering:
        """See `protocols.Learner`: a linear head on inputs or features."""
        weight, bias, active = self._linear()
        head = {"head.weight": weight, "head.bias": bias, "active": active.astype(np.uint8)}
        if self._features is not None:
            return self._features.answering(head, self._inputs)
        return Answering("mlp", head | self._inputs.arrays(), self._inputs.values())

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return {}
