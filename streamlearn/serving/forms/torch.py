"""Any other body, rebuilt with torch: a built-in one by its name, an own one only from a factory the *caller* names.

What a snapshot says about modules to import is never followed (P8).
"""

import json
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch

from streamlearn.errors import SnapshotError
from streamlearn.models.classifier import Classifier, ModelSettings, build
from streamlearn.records import Array, Json
from streamlearn.serving.forms.inputs import masked, transformed, weights_about
from streamlearn.settings import read


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array, *, module: str = "") -> Array:
    """float32 [n, C] for raw inputs [n, *shape].

    Errors  SnapshotError when the snapshot holds an own module and `module` does not name its factory.
    """
    if settings["model"].get("module") and not module:
        raise SnapshotError(
            f"snapshot was made by the own module {settings['model']['module']!r}: name it with --module to serve it; "
            "it is never imported because a file says so"
        )
    network = _network(json.dumps(settings["model"], sort_keys=True), tuple(settings["shape"]), module)
    params = {n: torch.tensor(a) for n, a in weights_about(arrays, settings).items()}
    with torch.no_grad():
        answer = network.logits(params, torch.tensor(transformed(arrays, settings, x)))
    return masked(arrays, np.asarray(answer))


@lru_cache(maxsize=8)
def _network(model: str, shape: tuple[int, ...], module: str) -> Classifier:
    return build(read(ModelSettings, {**json.loads(model), "module": module}, path="snapshot.model"), shape, seed=0)
