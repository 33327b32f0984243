"""A pool of members, or one alone, without weights. `now` and `ever` name the members of the present pool and of the fallback.

Each member's arrays bear its name, `NAME.part`; `now.weights` and `ever.weights` are the pools'; `presence.*` are a Gaussian
of the newest rows and one of all, what a row's score is made of, and the score below which the fallback answers.
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
    if about == "auto" and "presence.threshold" in arrays:
        _answer_past(answers, arrays, settings, rows)
    return masked(arrays, answers)


def _mixed(arrays: Mapping[str, Array], settings: Mapping[str, Json], rows: Shown, pool: str) -> Array:
    names: Sequence[str] = settings[pool]
    if f"{pool}.weights" not in arrays:
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


def _answer_past(answers: Array, arrays: Mapping[str, Array], settings: Mapping[str, Json], rows: Shown) -> None:
    """Put the fallback's answers where it is asked.

    No log-probability is above 0, so a row that passes with one of 0 from the fallback passes with any: only of the others is
    the fallback's answer needed.
    """
    scores = arrays["presence.per"][0] * likelihood(arrays, rows)
    lead, threshold = arrays["presence.per"][1], arrays["presence.threshold"][0]
    doubtful = np.flatnonzero(scores + lead * answers.max(1) < threshold)
    if len(doubtful):
        fallback = _mixed(arrays, settings, rows.some(doubtful), "ever")
        past = scores[doubtful] + lead * (answers[doubtful].max(1) - fallback.max(1)) < threshold
        answers[doubtful[past]] = fallback[past]


def likelihood(arrays: Mapping[str, Array], rows: Shown) -> Array:
    """float64 [n]: log of how much likelier rows are among the newest than among all."""
    directions, z = arrays["presence.directions"], rows.z.astype(np.float64)
    seen = z @ directions.astype(np.float64) if len(directions) else z
    newest, all_rows = (_log_density(seen, arrays, which) for which in (0, 1))
    found: Array = newest - all_rows
    return found


def _log_density(seen: Array, arrays: Mapping[str, Array], which: int) -> Array:
    """But for a constant."""
    away = (seen - arrays["presence.centre"][which]) @ arrays["presence.whiten"][which]
    density: Array = -0.5 * (away * away).sum(1) - arrays["presence.volume"][which]
    return density
