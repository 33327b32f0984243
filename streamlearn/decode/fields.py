"""What every format checks in the same way: size, shape, finite numbers, labels; and how a refusal is worded."""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from streamlearn.errors import DecodeError
from streamlearn.records import Array, Json, Label, Record, Sample
from streamlearn.schema import INT64, Cell, Schema, shown

LONGEST_LABEL = LONGEST_ID = 1024  # characters
INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

Scalar: TypeAlias = str | int | float | bool | None
"""What a wire field other than features may hold before it is checked: nothing that nests."""


class Rules(NamedTuple):
    """What the configuration asks of every record."""

    shape: tuple[int, ...]  # of the features
    max_bytes: int
    label_type: str = "any"  # any, string or integer
    schema: Schema | None = None  # of named columns, of which `shape` is the number


def refused(record: Record, reason: str) -> DecodeError:
    """The error for a record that breaks a rule."""
    return DecodeError(f"{record.place}: {reason}; the record goes to the dead letters")


def value_of(record: Record, rules: Rules) -> bytes:
    """The bytes to decode. Errors: DecodeError when there are none, or too many."""
    if record.value is None:
        raise refused(record, "the value is empty (a tombstone), expected a sample")
    if len(record.value) > rules.max_bytes:
        raise refused(record, f"the value has {len(record.value)} bytes, expected at most {rules.max_bytes}")
    return record.value


def write_features(record: Record, found: Array, out: Array, rules: Rules) -> None:
    """Put numbers of the right shape, or flat and of the right count, into `out`. Errors: DecodeError."""
    if found.shape not in (rules.shape, (out.size,)):
        raise refused(record, f"field 'features' has shape {_shown(found.shape)}, expected {_shown(rules.shape)}")
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 becomes infinite, and is refused below
        out[...] = found.reshape(rules.shape)
    if not np.isfinite(out).all():
        at = np.argwhere(~np.isfinite(out))[0].tolist()
        number = found.reshape(rules.shape)[tuple(at)]
        raise refused(record, f"field 'features{at}' is {number}, expected a finite number of 32 bits")


def write_cells(record: Record, cells: Sequence[Cell], out: Array, schema: Schema) -> None:
    """Put values of named columns, in their order, into `out`. Errors: DecodeError naming the column."""
    if len(cells) != len(out):
        raise refused(record, f"field 'features' has {len(cells)} values, expected one for each of {len(out)} columns")
    try:
        out[:] = schema.row(cells)
    except ValueError as error:
        raise refused(record, f"column {error}") from error


def sample_of(record: Record, rules: Rules, *, label: Json, id_: Json, time_ms: Json, context: Json) -> Sample:
    """The checked fields beside the features. The time is the sample's own or none: a broker's clock is not data (P5).

    Errors  DecodeError.
    """
    return Sample(
        label=None if label is None else label_of(record, label, rules.label_type),
        id=None if id_ is None else _id(record, id_),
        time_ms=None if time_ms is None else _integer(record, "time", time_ms),
        context=None if context is None else _integer(record, "context", context),
    )


def label_of(record: Record, found: Json, label_type: str) -> Label:
    """A label as the configuration wants it: `1` and `"1"` are different under any, and one under string or integer.

    Errors  DecodeError for anything else than a string or an integer of 64 bits, and for what `label_type` cannot become.
    """
    if type(found) is int and found in INT64:
        return str(found) if label_type == "string" else found
    if type(found) is str and 0 < len(found) <= LONGEST_LABEL:
        if label_type != "integer":
            return found
        if INTEGER.fullmatch(found) and int(found) in INT64:
            return int(found)
    wanted = {"string": "a string or an integer", "integer": "an integer"}.get(label_type, "a string or an integer")
    raise refused(record, f"field 'label' is {shown(found)}, expected {wanted} ({_bounds(label_type)})")


def header(record: Record, name: str) -> bytes | None:
    """The last header of this name."""
    for found, value in reversed(record.headers):
        if found == name:
            return value
    return None


def _id(record: Record, found: Json) -> str:
    if type(found) is int and found in INT64:
        return str(found)
    if type(found) is str and 0 < len(found) <= LONGEST_ID:
        return found
    raise refused(record, f"field 'id' is {shown(found)}, expected a string of 1 to {LONGEST_ID} characters")


def _integer(record: Record, name: str, found: Json) -> int:
    if type(found) is int and found in INT64:
        return found
    unit = "milliseconds since the epoch" if name == "time" else "an integer of 64 bits"
    raise refused(record, f"field '{name}' is {shown(found)}, expected {unit}")


def _bounds(label_type: str) -> str:
    return "of 64 bits" if label_type == "integer" else f"of 1 to {LONGEST_LABEL} characters, or of 64 bits"


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
