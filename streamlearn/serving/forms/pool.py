"""A pool of members, or one alone. `now` and `ever` name the members of the present pool and of the fallback.

Each member's arrays bear its name, `NAME.part`; `now.weights` and `ever.weights` are the pools'; `presence.now`,
`presence.ever` [features, rows] and `presence.threshold` say which questions the fallback gets.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from streamlearn.records import Array, Json
from streamlearn.serving.forms.columns import Shown, shown
from streamlearn.serving.forms.inputs import masked
from streamlearn.serving.forms.members import MEMBERS


def logits(arrays: Mapping[str, Array], settings: Mapping[str, Json], x: Array) -> Array:
    """Log-probabilities float32 [n, C] for raw inputs [n, *shape]."""
    rows, about = shown(arrays, settings, x), settings.get("about", "auto")
    if not len(arrays["active"]):
        return np.zeros((len(x), 0), np.float32)
    if about == "ever" and "slow.layers.0" in arrays:
        return masked(arrays, _log_probabilities(arrays, rows, "slow"))
    answers = _mixed(arrays, settings, rows, "now")
    if about == "auto" and "presence.ever" in arrays:
        past = ~present(arrays, settings, rows)
        if past.any():
            some = Shown(rows.filled[past], rows.gain, rows.z[past], rows.u[past])
            answers[past] = _mixed(arrays, settings, some, "ever")
    return masked(arrays, answers)


def _mixed(arrays: Mapping[str, Array], settings: Mapping[str, Json], rows: Shown, pool: str) -> Array:
    names: Sequence[str] = settings[pool]
    if len(names) == 1:
        return _log_probabilities(arrays, rows, names[0])
    active, floor = arrays["active"] > 0, settings["floor"]
    scores = np.zeros((len(rows.u), len(active)))
    for name, weight in zip(names, arrays[f"{pool}.weights"], strict=True):
        chances = np.exp(_log_probabilities(arrays, rows, name).astype(np.float64))
        scores += weight * np.log((1.0 - floor) * chances + floor / active.sum())
    return _log_softmax(scores, active)


def _log_probabilities(arrays: Mapping[str, Array], rows: Shown, name: str) -> Array:
    prefix = f"{name}."
    own = {part.removeprefix(prefix): array for part, array in arrays.items() if part.startswith(prefix)}
    return _log_softmax(MEMBERS[name](own, rows), arrays["active"] > 0)


def _log_softmax(scores: Array, active: Array) -> Array:
    scores = np.where(active, scores, -np.inf)
    scores = scores - scores.max(1, keepdims=True)
    answers: Array = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return answers


def present(arrays: Mapping[str, Array], settings: Mapping[str, Json], rows: Shown) -> Array:
    """bool [n]: rows that resemble the present at least as much as the threshold asks."""
    now, ever = (
        np.array([_nearest(arrays[f"presence.{part}"], settings, x, rows.gain) for x in rows.filled]) for part in PARTS
    )
    scores = 0.5 * (np.log(ever + 1e-12) - np.log(now + 1e-12))
    found: Array = scores >= arrays["presence.threshold"][0]
    return found


PARTS = ("now", "ever")


def _nearest(kept: Array, settings: Mapping[str, Json], x: Array, gain: Array) -> float:
    away = (kept - x[:, None]) * gain[:, None]
    if settings["reach"] is not None:
        away = away.clip(-settings["reach"], settings["reach"])
    return float((away * away).sum(0).min())
