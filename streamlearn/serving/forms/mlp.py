"""A multi-layer perceptron: `body.layers.{i}.weight` [in, out] and `.bias`, `head.weight` [C, width], `head.bias`.

Where there is a second set under `ever/`, it answers questions about all that was ever learned.
"""

from collections.abc import Mapping

import numpy as np

from streamlearn.records import Array, Json
from streamlearn.serving.forms.inputs import masked, transformed, weights_about


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, C] for raw inputs [n, *shape]."""
    h = transformed(arrays, settings, x).reshape(len(x), -1)
    weights, layer = weights_about(arrays, settings), 0
    while (weight := weights.get(f"body.layers.{layer}.weight")) is not None:
        h = np.maximum(h @ weight + weights[f"body.layers.{layer}.bias"], 0.0)
        layer += 1
    return masked(arrays, h @ weights["head.weight"].T + weights["head.bias"])
