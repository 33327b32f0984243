"""The append-only label map: a label keeps its row for ever, whatever comes after it (P6)."""

from collections.abc import Sequence

from streamlearn.errors import CheckpointError, DecodeError
from streamlearn.records import Label, State


class LabelMap:
    """Label → row of the head. Rows count up from 0 in order of first admission; nothing is ever moved or removed.

    With `other`, the last free row is that label's, and every label that comes later shares it.
    """

    def __init__(self, *, max_labels: int, known: Sequence[Label] = (), other: Label | None = None) -> None:
        self.max_labels, self._other = max_labels, other
        self._rows: dict[Label, int] = {}
        self.by_row: tuple[Label, ...] = ()
        for label in known:
            self.row(label)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, label: Label) -> int:
        """The label's row, a new one for a new label. Errors: DecodeError when all `max_labels` rows are taken."""
        row = self._rows.get(label)
        return self._admit(label) if row is None else row

    def _admit(self, label: Label) -> int:
        if self._other is not None and label != self._other:
            taken = self._rows.get(self._other)
            if len(self._rows) >= self.max_labels - (taken is None):
                return self._admit(self._other) if taken is None else taken
        if len(self._rows) >= self.max_labels:
            raise DecodeError(
                f"label {label!r} is new, and all {self.max_labels} rows of the label map are taken: "
                "raise label.max_labels; record goes to the dead letters"
            )
        self._rows[label] = row = len(self._rows)
        self.by_row = (*self.by_row, label)
        return row

    def state(self) -> State:
        """Labels by row. JSON keeps text and integers apart, so the wire type is kept too."""
        return State(values={"labels": list(self.by_row)})

    def restore(self, state: State) -> None:
        """Take over a saved map. Errors: CheckpointError when it holds more labels than `max_labels` allows."""
        labels = state.values["labels"]
        if len(labels) > self.max_labels:
            raise CheckpointError(
                f"checkpoint holds {len(labels)} labels: expected at most label.max_labels = {self.max_labels}"
            )
        self._rows = {label: row for row, label in enumerate(labels)}
        self.by_row = tuple(labels)
