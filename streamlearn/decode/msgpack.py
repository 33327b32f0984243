"""MessagePack samples: the fields of JSON, with features as numbers or, much smaller, as raw bytes of little-endian float32."""

import msgspec
import numpy as np

from streamlearn.decode.fields import Rules
from streamlearn.decode.wire import decode_wire, type_of, wire_values
from streamlearn.records import Array, Label, Message, Record, Sample

CONTENT_TYPE = ("content-type", b"application/msgpack")


class MsgpackDecoder:
    """Features as bytes, or flat or nested as the configured shape."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._decoder = msgspec.msgpack.Decoder(type_of(rules, raw=True))

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        return decode_wire(self._decoder, record, out, self._rules)


def encode(
    features: Array,
    label: Label | None = None,
    *,
    id_: str | None = None,
    time_ms: int | None = None,
    context: int | None = None,
) -> Message:
    """A message that `MsgpackDecoder` reads back to the same numbers, rounded to float32."""
    value = {"features": np.ascontiguousarray(features, "<f4").tobytes(), **wire_values(label, id_, time_ms, context)}
    return Message(msgspec.msgpack.encode(value), id_.encode() if id_ else None, (CONTENT_TYPE,), time_ms)
