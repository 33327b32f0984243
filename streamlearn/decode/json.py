"""JSON samples: `{"id": "a", "features": [0.1, 0.2], "label": 7, "time": 1700000000000}`,
or with named columns `"features": {"colour": "red"}`.
"""

import msgspec

from streamlearn.decode.fields import Rules, refused, value_of
from streamlearn.decode.wire import decode_wire, type_of, wire_values
from streamlearn.records import Array, Label, Message, Record, Sample


class JsonDecoder:
    """Features flat or nested as the configured shape."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._decoder = msgspec.json.Decoder(type_of(rules, raw=False))

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        _check_text(record, self._rules)
        return decode_wire(self._decoder, record, out, self._rules)


def _check_text(record: Record, rules: Rules) -> None:
    """msgspec does not look at the names of fields it does not know: with one wrong byte `label` would be such a name."""
    try:
        value_of(record, rules).decode()
    except UnicodeDecodeError as error:
        raise refused(record, f"the value is no text in UTF-8: {error}") from error


def encode(
    features: Array,
    label: Label | None = None,
    *,
    id_: str | None = None,
    time_ms: int | None = None,
    context: int | None = None,
) -> Message:
    """A message that `JsonDecoder` reads back to the same numbers."""
    value = {"features": features.tolist(), **wire_values(label, id_, time_ms, context)}
    return Message(msgspec.json.encode(value), id_.encode() if id_ else None, time_ms=time_ms)
