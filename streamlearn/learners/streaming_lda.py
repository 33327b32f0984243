"""Streaming linear discriminant analysis: means of classes, compared in the directions in which classes do not spread.

On inputs, or after a warm start on the features that its network makes of them. As `nearest-mean` it takes no gradient, holds
no samples, and cannot forget: but for rounding, and for how often the inverse was made, the order of rows does not matter.
"""

import numpy as np

from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.learners.class_means import ClassMeans
from streamlearn.learners.discriminant import Discriminant
from streamlearn.learners.task import Task
from streamlearn.models.classifier import capacity_for
from streamlearn.records import About, Answering, Array, Batch, State
from streamlearn.settings import Section, key

FAR = 1e30  # no logit is further from 0


class StreamingLDA(ClassMeans):
    """See `discriminant`. Rows are averaged as they are shown when they are learned."""

    class Settings(Section):
        """Streaming linear discriminant analysis."""

        chunk: int = key(1, "rows answered from one state", unit="rows", ge=1)
        shrinkage: float = key(
            0.1, "how far the common covariance is drawn to its diagonal: relations count for less", gt=0, lt=1
        )
        max_features: int = key(4096, "most features; the covariance takes 16 bytes times their square", ge=1)

    def __init__(self, settings: Settings, task: Task) -> None:
        super().__init__(task, chunk=settings.chunk)
        if self._size > settings.max_features:
            raise ConfigError(
                f"learner.max_features is {settings.max_features}, and there are {self._size} features: raise it;"
                f" their covariance takes {16 * self._size**2 / 1e6:,.0f} MB"
            )
        self._classes = Discriminant(self._size, shrinkage=settings.shrinkage)

    def predict(self, x: Array, *, about: About = "auto") -> Array:  # noqa: ARG002 the protocol's word; here all questions get one answer
        """See `protocols.Learner`."""
        weight, bias, active = self._linear()
        # in float64: far classes cancel, and rounding would depend on batch mates
        flat = self._shown(np.asarray(x, np.float32)).astype(np.float64)
        return np.where(active, flat @ weight.T + bias, -np.inf).astype(np.float32)

    def _take(self, rows: Batch) -> None:
        self._classes.grow(capacity_for(int(rows.labels.max()) + 1))
        self._inputs = self._inputs.learned(rows.x)
        for x, label in zip(self._shown(rows.x).astype(np.float64), rows.labels.tolist(), strict=True):
            self._classes.learn(x, label)

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
