"""Distillation by remembered answers: what the network said of a row when it was stored is kept beside the row."""

from typing import NamedTuple

from torch import Tensor


class Recall(NamedTuple):
    """Answers as they were stored."""

    logits: Tensor  # [n, C]
    known: Tensor  # bool [n, C]: labels that were in the row's softmax then


def recall_gap(logits: Tensor, recall: Recall) -> Tensor:
    """Mean squared difference from stored answers, over all rows and the labels that each knew when it was stored.

    Shapes  `logits` [n, C], of the rows of `recall`.
    Source  Buzzega et al. 2020, Dark Experience Replay, equation 5. They take the mean over all labels; ours may be new.
    """
    gaps = (logits - recall.logits).masked_fill(~recall.known, 0.0)
    return (gaps**2).sum() / recall.known.sum().clamp(min=1)
