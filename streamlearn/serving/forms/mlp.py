"""A multi-layer perceptron: `body.layers.{i}.weight` [in, out] and `.bias`, `head.weight` [C, width], `head.bias`.

Where there is a second set under `ever/`, it answers questions about all that was ever learned.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streamlearn.records import About, Array, Json
from streamlearn.serving.forms.inputs import masked, prefix_about, transformed

SMALL = 1 << 18  # weights; of more a copy for every snapshot would cost more than it saves


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, C] for raw inputs [n, *shape]."""
    h = transformed(arrays, settings, x).reshape(len(x), -1)
    prefix = prefix_about(arrays, settings)
    for weight, bias in _body(arrays, prefix):
        h = np.maximum(h @ weight + bias, 0.0)
    return masked(arrays, h @ arrays[f"{prefix}head.weight"].T + arrays[f"{prefix}head.bias"])


def taken_in(arrays: Mapping[str, Array], settings: Mapping[str, Json]) -> Callable[[Array, About], Array] | None:
    """The same within rounding, in half the calls of numpy, which is what a small network's answer costs; None for a large one.

    From the first layer on a unit that is always 1 goes along: it brings in the biases after it, and −inf for masked labels.
    """
    if sum(array.size for array in arrays.values()) > SMALL:
        return None
    now = _joined(arrays, "")
    ever = _joined(arrays, "ever/") if "ever/head.weight" in arrays else now

    def answer(x: Array, about: About) -> Array:
        first, bias, others = ever if about == "ever" else now
        h = transformed(arrays, settings, x).reshape(len(x), -1) @ first + bias
        for weight in others:
            h = np.maximum(h, 0.0) @ weight
        return h

    return answer


def _body(arrays: Mapping[str, Array], prefix: str) -> Sequence[tuple[Array, Array]]:
    layers, layer = [], f"{prefix}body.layers.0"
    while (weight := arrays.get(f"{layer}.weight")) is not None:
        layers.append((weight, arrays[f"{layer}.bias"]))
        layer = f"{prefix}body.layers.{len(layers)}"
    return layers


def _joined(arrays: Mapping[str, Array], prefix: str) -> tuple[Array, Array, Sequence[Array]]:
    """Weight and bias of the first layer, and each layer after it with its bias as its last row."""
    head = arrays[f"{prefix}head.weight"].T, masked(arrays, arrays[f"{prefix}head.bias"])
    (first, bias), *others = [*_body(arrays, prefix), head]
    if not others:
        return first, bias, []
    joined = [np.vstack(each) for each in others]
    for i, weight in enumerate(joined[:-1]):
        joined[i] = _wider(weight)
        joined[i][-1, -1] = 1.0
    return _wider(first), np.append(bias, np.float32(1)), joined


def _wider(weight: Array) -> Array:
    """By a column of zeros."""
    wider = np.zeros((len(weight), weight.shape[1] + 1), np.float32)
    wider[:, :-1] = weight
    return wider
