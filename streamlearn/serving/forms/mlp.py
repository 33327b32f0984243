"""A multi-layer perceptron: `body.layers.{i}.weight` [in, out] and `.bias`, `head.weight` [C, width], `head.bias`."""

from collections.abc import Mapping

import numpy as np

from streamlearn.records import Array, Json
from streamlearn.serving.forms.inputs import masked, transformed


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, C] for raw inputs [n, *shape]."""
    h = transformed(arrays, settings, x).reshape(len(x), -1)
    layer = 0
    while (weight := arrays.get(f"body.layers.{layer}.weight")) is not None:
        h = np.maximum(h @ weight + arrays[f"body.layers.{layer}.bias"], 0.0)
        layer += 1
    return masked(arrays, h @ arrays["head.weight"].T + arrays["head.bias"])
