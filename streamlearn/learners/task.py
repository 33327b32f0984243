"""What every learner is given beside its own settings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from streamlearn.inputs import InputSettings
from streamlearn.models.classifier import ModelSettings


@dataclass(frozen=True, slots=True)
class Task:
    """The question: inputs of this shape, at most this many labels. `known` rows are in the softmax from the start."""

    shape: tuple[int, ...]
    max_labels: int = 1000
    known: int = 0
    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    inputs: InputSettings = field(default_factory=InputSettings)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"


def check_labels(labels: Iterable[int], max_labels: int) -> None:
    """Errors: ValueError when a label row is outside [0, max_labels)."""
    for row in labels:
        if not 0 <= row < max_labels:
            raise ValueError(f"label row {row}: expected 0 to {max_labels - 1}; the label map admits no other")


def check_chunks(rows: int, chunk: int) -> None:
    """Errors: ValueError when rows are no whole number of chunks."""
    if rows % chunk:
        raise ValueError(f"batch has {rows} rows: expected a whole number of chunks of {chunk}")
