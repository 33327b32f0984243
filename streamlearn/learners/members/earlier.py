"""What a pool said when a row came whose label was not there yet: packed, to wait with it, and unpacked with its label."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.kernels.rows import Rows
from streamlearn.records import Array

FAR = 1 << 20
"""Rows are counted modulo so many: below 2²⁴, a float32 is exact."""


class Earlier(NamedTuple):
    """Of rows that are learned: what was said of those that were answered earlier."""

    lag: Array  # int64 [n]: rows learned since then; −1 for those that were not
    scores: Array  # float64 [n]: of the gate; NaN for those that were not
    answers: Mapping[str, Array]  # [n, C]; −∞ for labels not admitted then; no rows where none was answered earlier


def pack(answers: Sequence[Array], scores: Array, numbers: Array) -> Array:
    """float32 [n, k]: the gate's score, how many rows were learned, and label by label what each part said.

    So labels that are met later stand to the right.
    """
    said = np.stack(answers, axis=2).reshape(len(scores), -1)
    return np.concatenate([scores[:, None], numbers[:, None] % FAR, said], axis=1, dtype=np.float32, casting="unsafe")


def unpack(evidence: Array, names: Sequence[str], rows: Rows) -> Earlier:
    """What `pack` was given, for rows that are learned now."""
    lag, scores = np.full(len(evidence), -1), np.full(len(evidence), np.nan)
    if not evidence.shape[1]:
        return Earlier(lag, scores, dict.fromkeys(names, np.zeros((0, rows.width))))
    late = ~np.isnan(evidence[:, 0])
    scores[:] = evidence[:, 0]
    lag[late] = (rows.numbers[late] - evidence[late, 1].astype(np.int64)) % FAR
    labels = min(rows.width, (evidence.shape[1] - 2) // len(names))
    said = evidence[:, 2 : 2 + labels * len(names)].reshape(len(evidence), labels, len(names)).transpose(2, 0, 1)
    whole = np.full((len(names), len(evidence), rows.width), -np.inf)
    whole[:, :, :labels] = np.where(np.isnan(said), -np.inf, said)
    return Earlier(lag, scores, dict(zip(names, whole, strict=True)))
