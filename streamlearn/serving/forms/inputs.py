"""What forms have in common: the input transform x ↦ clip((x − shift) · gain), or that of named columns; mask and weights."""

from collections.abc import Mapping

import numpy as np

from streamlearn.layout import Layout
from streamlearn.records import Array, Json


def transformed(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, *shape], from `input.shift`, `input.gain` and `clip` where there are any; [n, width] of named columns."""
    x = np.asarray(x, np.float32)
    if "columns" in settings:
        layout = Layout.read(settings["columns"])
        return layout.inputs(x, layout.standardised(x, arrays["input.mean"], arrays["input.gain"], settings["clip"]))
    if "input.gain" in arrays:
        x = (x - arrays["input.shift"]) * arrays["input.gain"]
    clip = settings.get("clip")
    return x if clip is None else x.clip(-clip, clip)


def masked(arrays: Mapping[str, Array], logits: Array) -> Array:
    """float32, −inf where `active` is 0."""
    return np.where(arrays["active"] > 0, logits, -np.inf).astype(np.float32, copy=False)


def weights_about(arrays: Mapping[str, Array], settings: Mapping[str, Json]) -> Mapping[str, Array]:
    """The weights that answer a question, by their names without `prefix_about`."""
    prefix = prefix_about(arrays, settings)
    names = (name.removeprefix(prefix) for name in arrays if name.startswith(prefix))
    return {name: arrays[prefix + name] for name in names if name.startswith(("body.", "head."))}


def prefix_about(arrays: Mapping[str, Array], settings: Mapping[str, Json]) -> str:
    """`ever/` where a question is `about` that and there are weights for it, else nothing."""
    return "ever/" if settings.get("about") == "ever" and "ever/head.weight" in arrays else ""
