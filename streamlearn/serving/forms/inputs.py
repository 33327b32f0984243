"""The input transform as servers apply it: x ↦ clip((x − shift) · gain)."""

from collections.abc import Mapping

import numpy as np

from streamlearn.records import Array, Json


def transformed(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """float32 [n, *shape], from `input.shift`, `input.gain` and `clip` where the snapshot has them."""
    x = np.asarray(x, np.float32)
    if "input.gain" in arrays:
        x = (x - arrays["input.shift"]) * arrays["input.gain"]
    clip = settings.get("clip")
    return x if clip is None else x.clip(-clip, clip)


def masked(arrays: Mapping[str, Array], logits: Array) -> Array:
    """float32, −inf where `active` is 0."""
    return np.where(arrays["active"] > 0, logits, -np.inf).astype(np.float32)
