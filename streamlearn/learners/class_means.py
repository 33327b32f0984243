"""What `nearest-mean` and `streaming-lda` share: statistics of classes, on inputs or on features, by no gradient."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from streamlearn.inputs import Inputs
from streamlearn.learners.chunkwise import inputs_of, joined_logits
from streamlearn.learners.features import Features
from streamlearn.learners.task import Task, check_chunks, check_labels
from streamlearn.records import About, Answer, Array, Batch, LearnReport, no_evidence


class ClassMeans(ABC):
    """Answers, then takes, chunk by chunk. A chunk that is not finite is left out and reported."""

    memory_capacity = 0

    def __init__(self, task: Task, *, chunk: int) -> None:
        self.chunk, self.task = chunk, task
        self._inputs = inputs_of(task)
        self._features = None if task.start is None else Features(task)
        self._size = int(np.prod(self._inputs.shape)) if self._features is None else self._features.size

    @abstractmethod
    def predict(self, x: Array, *, about: About = "auto") -> Array:
        """See `protocols.Learner`."""

    @abstractmethod
    def _take(self, rows: Batch) -> None:
        """Learn rows that are finite."""

    def answer(self, x: Array) -> Answer:
        """See `protocols.Learner`."""
        return Answer(self.predict(x), no_evidence(len(x)))

    def learn(self, batch: Batch) -> LearnReport:
        """See `protocols.Learner`."""
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

    def _learnable(self, x: Array) -> bool:
        found = np.isfinite(x) if isinstance(self._inputs, Inputs) else self._inputs.layout.learnable(x)
        return bool(found.all())

    def _shown(self, x: Array) -> Array:
        """What is compared with the means, [n, size]."""
        x = self._inputs.apply(x)
        return x.reshape(len(x), self._size) if self._features is None else self._features.of(x)

    def memory_labels(self) -> Mapping[int, int]:
        """See `protocols.Learner`."""
        return {}
