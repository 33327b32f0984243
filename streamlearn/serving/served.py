"""One snapshot, ready to answer: its form found, tried once on zeros, and its labels turned to text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from streamlearn.errors import SnapshotError
from streamlearn.records import Array, Snapshot
from streamlearn.serving.forms import Form
from streamlearn.serving.open_inference import Answer, LabelTexts, Question, RequestError

Forms: TypeAlias = Callable[[str], Form]
"""The form of a name, as `forms.form_named`; to each question's settings `about` is added."""


@dataclass(frozen=True, slots=True)
class Served:
    """Answers from one snapshot and nothing else."""

    snapshot: Snapshot
    labels: LabelTexts
    learned: bool  # whether any label has been learned
    form: Form

    @classmethod
    def of(cls, snapshot: Snapshot, forms: Forms) -> "Served":
        """Errors: SnapshotError when the form is not known, or cannot answer from these arrays."""
        try:
            form = forms(snapshot.answering.form)
            trial = _logits(form, snapshot, np.zeros((1, *snapshot.shape), np.float32), about="auto")
        except SnapshotError:
            raise
        except Exception as error:  # a form may fail in any way on arrays that are not its own
            raise SnapshotError(f"snapshot {snapshot.number} cannot answer: {type(error).__name__}: {error}") from error
        if trial.ndim != 2 or len(trial) != 1:
            raise SnapshotError(f"snapshot {snapshot.number} answers one row with shape {list(trial.shape)}, expected [1, C]")
        if np.isnan(trial).any():
            raise SnapshotError(f"snapshot {snapshot.number} answers zeros with NaN: its arrays are not finite")
        return cls(snapshot, LabelTexts.of(snapshot.labels), not np.isneginf(trial).all(), form)

    def answer(self, question: Question) -> Answer:
        """Probabilities are a softmax over the learned labels; a label that was not learned has 0.

        Errors  RequestError: 503 before the first label, 400 for an input so large that the answer is not finite.
        """
        if not self.learned:
            raise RequestError("no label learned yet", status=503)
        logits = _logits(self.form, self.snapshot, question.x, about=question.about)
        best = logits.max(axis=1, keepdims=True)
        if not np.isfinite(best).all():
            row = int(np.isfinite(best).argmin())
            raise RequestError(f"input row {row} is too large: the model's answer to it is not finite")
        with np.errstate(over="ignore"):  # -inf is what a difference beyond the range of floats means here
            powers = np.exp(logits - best)
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return Answer(self.snapshot.number, self.labels, logits.argmax(axis=1), probabilities, self.snapshot.sets)


def _logits(form: Form, snapshot: Snapshot, x: Array, *, about: str) -> Array:
    """Columns past the known labels are rows kept ahead, never learned."""
    with np.errstate(all="ignore"):
        logits = form(snapshot.answering.arrays, {**snapshot.answering.settings, "about": about}, x)
    return np.asarray(logits)[:, : len(snapshot.labels)]
