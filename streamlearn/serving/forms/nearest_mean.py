"""Nearest class mean: `means` [C, features], transformed already, and `active` [C]."""

from collections.abc import Mapping

from streamlearn.records import Array, Json
from streamlearn.serving.forms.inputs import masked, transformed


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, C] for raw inputs [n, *shape]: x·μ − ½‖μ‖²."""
    means = arrays["means"]
    flat = transformed(arrays, settings, x).reshape(len(x), means.shape[1])
    return masked(arrays, flat @ means.T - 0.5 * (means**2).sum(1))
