"""What a detection says: where, by which detector, on what, and what moved most."""

from typing import Literal, NamedTuple

from streamlearn.records import Json

Signal = Literal["error", "inputs"]
SIGNALS: tuple[Signal, ...] = ("error", "inputs")


class Moved(NamedTuple):
    """A class or a feature that is no longer what it was."""

    which: int  # row of the label map, or index of the feature (`Features.names`)
    before: float | None  # share of its rows that were answered wrong, or mean; None for a class that is new
    now: float
    size: float  # now − before: of a class as it is, of a feature in its standard deviations


class Mark(NamedTuple):
    """A detection: at the row-th row that was scored, counted from 1 over the whole stream."""

    row: int
    detector: str
    on: Signal = "error"
    moved: tuple[Moved, ...] = ()  # most first

    def json(self) -> Json:
        """As a checkpoint keeps it."""
        return [self.row, self.detector, self.on, [list(each) for each in self.moved]]

    @classmethod
    def of(cls, values: Json) -> "Mark":
        """From `json`; one of an older program says less."""
        row, detector, *rest = values
        if not rest:
            return cls(row, detector)
        return cls(row, detector, rest[0], tuple(Moved(*each) for each in rest[1]))
