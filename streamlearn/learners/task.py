"""What every learner is given beside its own settings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from streamlearn.errors import CheckpointError
from streamlearn.inputs import InputSettings
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Initialisation, State
from streamlearn.schema import Schema


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
    start: Initialisation | None = None  # a warm start, made with this shape, model and inputs
    schema: Schema | None = None  # of named columns, of which `shape` is the number
    fan_in: int | None = None  # squared length of a usual input, where that is not its size

    def state(self) -> State:
        """What a checkpoint remembers of the warm start, whose fixed parameters it does not hold."""
        return State(values={"fingerprint": self.start.fingerprint if self.start else None})

    def check(self, state: State) -> None:
        """Errors: CheckpointError when `state` was given under another warm start."""
        kept, ours = state.values.get("fingerprint"), self.state().values["fingerprint"]
        if kept != ours:
            raise CheckpointError(
                f"checkpoint went on from the warm start {kept or 'none'}, the configuration names {ours or 'none'}: "
                "name the same file under warm_start, or start from an empty state"
            )


def check_labels(labels: Iterable[int], max_labels: int) -> None:
    """Errors: ValueError when a label row is outside [0, max_labels)."""
    for row in labels:
        if not 0 <= row < max_labels:
            raise ValueError(f"label row {row}: expected 0 to {max_labels - 1}; the label map admits no other")


def check_chunks(rows: int, chunk: int) -> None:
    """Errors: ValueError when rows are no whole number of chunks."""
    if rows % chunk:
        raise ValueError(f"batch has {rows} rows: expected a whole number of chunks of {chunk}")
