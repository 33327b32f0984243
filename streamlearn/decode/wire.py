"""The sample of JSON and MessagePack: `{id?, features, label?, time?, context?}`. Fields that are not known are passed over."""

from typing import Any

import msgspec
import numpy as np

from streamlearn.decode.fields import Rules, Scalar, refused, sample_of, value_of, write_features
from streamlearn.records import Array, Label, Record, Sample


def wire_type(shape: tuple[int, ...], *, raw: bool) -> type[msgspec.Struct]:
    """A struct that msgspec checks while it parses: features flat or nested as `shape`, and also as bytes when `raw`.

    Nothing in it nests deeper than the shape, so that what is decoded is bounded by the value's own length.
    """
    features: Any = list[float]
    for _ in shape[1:]:
        features = list[float | features]
    fields: list[tuple[str, Any, Any]] = [(name, Scalar, None) for name in ("label", "id", "time", "context")]
    return msgspec.defstruct("Wire", [("features", features | bytes if raw else features), *fields])


def decode_wire(decoder: Any, record: Record, out: Array, rules: Rules) -> Sample:
    """What both formats do once they differ no more. Errors: DecodeError."""
    try:
        wire = decoder.decode(value_of(record, rules))
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise refused(record, _explained(error)) from error
    write_features(record, _numbers(record, wire.features), out, rules)
    return sample_of(record, rules, label=wire.label, id_=wire.id, time_ms=wire.time, context=wire.context)


def _numbers(record: Record, found: Any) -> Array:
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
