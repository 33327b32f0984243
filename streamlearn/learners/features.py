"""What the network of a warm start makes of an input, where nothing of that network moves."""

from collections.abc import Mapping

import torch

from streamlearn.inputs import Inputs
from streamlearn.learners.named import NamedInputs
from streamlearn.learners.task import Task
from streamlearn.models.classifier import Classifier, build
from streamlearn.models.mlp import MLP
from streamlearn.records import Answering, Array


class Features:
    """The body of a task's warm start."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._network: Classifier = build(task.model, task.shape, seed=task.seed, start=task.start)
        self._params = self._network.initial(0, torch.float32, "cpu")

    @property
    def size(self) -> int:
        """How many there are."""
        return self._network.width

    def of(self, x: Array) -> Array:
        """float32 [n, size] of transformed inputs."""
        with torch.no_grad():
            features: Array = self._network.features(self._params, torch.tensor(x)).numpy()
        return features

    def answering(self, head: Mapping[str, Array], inputs: Inputs | NamedInputs) -> Answering:
        """The network with a linear head: `head.weight` [C, size], `head.bias` [C] and `active` [C]."""
        body = {name: p.numpy().copy() for name, p in {**self._network.fixed, **self._params}.items()}
        settings = {"model": self.task.model.model_dump(mode="json"), "shape": list(self.task.shape)}
        form = "mlp" if isinstance(self._network.body, MLP) else "torch"
        return Answering(form, body | dict(head) | inputs.arrays(), settings | inputs.values())
