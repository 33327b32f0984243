"""Gradient descent on the stream as it comes: no memory, no meta-learning."""

from collections.abc import Mapping

from streamlearn.adapt.params import clipped, gradient, moved
from streamlearn.learners.chunkwise import Chunkwise
from streamlearn.learners.task import Task
from streamlearn.memory import Columns
from streamlearn.settings import Section, key


class OnlineSGD(Chunkwise):
    """One step of gradient descent per glance at each chunk."""

    class Settings(Section):
        """Online SGD."""

        chunk: int = key(1, "rows of one update", unit="rows", ge=1)
        glances: int = key(1, "updates per chunk", ge=1)
        learning_rate: float = key(0.03, "step size", gt=0)
        clip_norm: float | None = key(2.0, "bound on the global norm of the gradient; empty: none", gt=0)
        max_contexts: int = key(0, "contexts with a softmax of their own (multi-head); 0 ignores contexts", ge=0)

    def __init__(self, settings: Settings, task: Task) -> None:
        """After a warm start, rate and bound are those it was made for, where settings do not give them."""
        made_for = {} if task.start is None else {"learning_rate": task.start.learning_rate, "clip_norm": None}
        left_out = {name: value for name, value in made_for.items() if name not in settings.model_fields_set}
        self.settings = settings.model_copy(update=left_out)
        super().__init__(task, chunk=settings.chunk, max_contexts=settings.max_contexts)

    def _update(self, columns: Columns) -> Mapping[str, float]:
        fresh = self._rows(columns)
        for _ in range(self.settings.glances):
            slow = self.point.weights["slow"]
            grads = gradient(self._loss, slow, fresh)
            if self.settings.clip_norm is not None:
                grads = clipped(grads, self.settings.clip_norm)
            self.point = self.point._replace(weights={"slow": moved(slow, grads, self.settings.learning_rate)})
        return {}
