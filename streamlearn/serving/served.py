"""One snapshot, ready to answer: its form found, tried once on zeros, and its labels turned to text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from streamlearn.errors import SnapshotError
from streamlearn.records import About, Array, Snapshot
from streamlearn.serving.forms import Form, Taken, taken_in
from streamlearn.serving.open_inference import Answer, LabelTexts, Question, RequestError

Forms: TypeAlias = Callable[[str], Form]
"""The form of a name, as `forms.form_named`; to each question's settings `about` is added."""


@dataclass(frozen=True, slots=True)
class Served:
    """Answers from one snapshot and nothing else."""

    snapshot: Snapshot
    labels: LabelTexts
    learned: bool  # whether any label has been learned
    taken: Taken

    @classmethod
    def of(cls, snapshot: Snapshot, forms: Forms) -> "Served":
        """Errors: SnapshotError when the form is not known, or cannot answer from these arrays."""
        try:
            taken = taken_in(forms(snapshot.answering.form), snapshot.answering.arrays, snapshot.answering.settings)
            trial = _logits(taken, snapshot, np.zeros((1, *snapshot.shape), np.float32), about="auto")
        except SnapshotError:
            raise
        except Exception as error:  # a form may fail in any way on arrays that are not its own
            raise SnapshotError(f"snapshot {snapshot.number} cannot answer: {type(error).__name__}: {error}") from error
        if trial.ndim != 2 or len(trial) != 1:
            raise SnapshotError(f"snapshot {snapshot.number} answers one row with shape {list(trial.shape)}, expected [1, C]")
        if np.isnan(trial).any():
            raise SnapshotError(f"snapshot {snapshot.number} answers zeros with NaN: its arrays are not finite")
        return cls(snapshot, LabelTexts.of(snapshot.labels), not np.isneginf(trial).all(), taken)

    def answer(self, question: Question) -> Answer:
        """Probabilities are a softmax over the learned labels; a label that was not learned has 0.

        Errors  RequestError: 503 before the first label, 400 for an input so large that the answer is not finite.
        """
        if not self.learned:
            raise RequestError("no label learned yet", status=503)
        logits = _logits(self.taken, self.snapshot, question.x, about=question.about)
        finite = np.isfinite(logits.max(axis=1))
        if np.count_nonzero(finite) < len(finite):
            raise RequestError(f"input row {int(finite.argmin())} is too large: the model's answer to it is not finite")
        probabilities = partial(_softmax, logits)
        return Answer(self.snapshot.number, self.labels, logits.argmax(axis=1), probabilities, self.snapshot.sets)


def _logits(taken: Taken, snapshot: Snapshot, x: Array, *, about: About) -> Array:
    """Columns past the known labels are rows kept ahead, never learned."""
    with np.errstate(all="ignore"):
        logits = taken(x, about)
    return np.asarray(logits)[:, : len(snapshot.labels)]


def _softmax(logits: Array) -> Array:
    """float32, over the last axis."""
    with np.errstate(over="ignore"):  # -inf is what a difference beyond the range of floats means here
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32, copy=False)
