"""The sample of JSON and MessagePack: `{id?, features, label?, time?, context?}`. Fields that are not known are passed over.

Features are an array, or with named columns an object of them, of which a field that is left out or null is missing; a list of
values in the columns' order is taken too. `input.unknown` says what becomes of features that are no column.
"""

from typing import Any

import msgspec
import numpy as np

from streamlearn.decode.fields import Rules, Scalar, refused, sample_of, value_of, write_cells, write_features
from streamlearn.records import Array, Label, Record, Sample
from streamlearn.schema import Cell, Schema

_CELLS: dict[str, Any] = {"numeric": float | None, "categorical": Cell}


def wire_type(shape: tuple[int, ...], *, raw: bool) -> type[msgspec.Struct]:
    """A struct that msgspec checks while it parses: features flat or nested as `shape`, and also as bytes when `raw`.

    Nothing in it nests deeper than the shape, so that what is decoded is bounded by the value's own length.
    """
    features: Any = list[float]
    for _ in shape[1:]:
        features = list[float | features]
    return _wire(features | bytes if raw else features)


def named_type(schema: Schema) -> type[msgspec.Struct]:
    """The same for named columns: by name, or all of them in order."""
    cells = [(f"column_{i}", _CELLS[column.kind], None) for i, column in enumerate(schema.columns)]
    names = {field: column.name for (field, _, _), column in zip(cells, schema.columns, strict=True)}
    forbids = schema.unknown == "refuse"
    by_name: Any = msgspec.defstruct("Features", cells, rename=names, forbid_unknown_fields=forbids)
    return _wire(by_name | list[Cell])


def _wire(features: Any) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = [(name, Scalar, None) for name in ("label", "id", "time", "context")]
    return msgspec.defstruct("Wire", [("features", features), *fields])


def type_of(rules: Rules, *, raw: bool) -> type[msgspec.Struct]:
    """Whichever of the two `rules` ask for."""
    return wire_type(rules.shape, raw=raw) if rules.schema is None else named_type(rules.schema)


def decode_wire(decoder: Any, record: Record, out: Array, rules: Rules) -> Sample:
    """What both formats do once they differ no more. Errors: DecodeError."""
    try:
        wire = decoder.decode(value_of(record, rules))
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise refused(record, _explained(error)) from error
    if rules.schema is None:
        write_features(record, numbers(record, wire.features), out, rules)
    else:
        found = wire.features
        write_cells(record, found if isinstance(found, list) else msgspec.structs.astuple(found), out, rules.schema)
    return sample_of(record, rules, label=wire.label, id_=wire.id, time_ms=wire.time, context=wire.context)


def numbers(record: Record, found: Any) -> Array:
    """Numbers, or bytes of little-endian float32, as an array. Errors: DecodeError."""
    try:
        return np.frombuffer(found, "<f4") if isinstance(found, bytes) else np.asarray(found, np.float64)
    except ValueError as error:
        what = f"{len(found)} bytes" if isinstance(found, bytes) else "a list of lists of different lengths"
        raise refused(record, f"field 'features' is {what}, expected whole numbers of 4 bytes or a full array") from error


def wire_values(label: Label | None, id_: str | None, time_ms: int | None, context: int | None) -> dict[str, Any]:
    """The fields beside the features, without those that are not given."""
    values = {"label": label, "id": id_, "time": time_ms, "context": context}
    return {name: value for name, value in values.items() if value is not None}


def _explained(error: Exception) -> str:
    """`Expected float, got str - at $.features[0]` → `field 'features[0]': expected float, got str`."""
    what, _, where = str(error).replace("`", "").partition(" - at $")
    what = what[:1].lower() + what[1:]
    return f"field '{where.lstrip('.')}': {what}" if where else f"the value cannot be read: {what}"
