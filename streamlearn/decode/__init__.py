"""Bytes → features and raw label. Pure, one file for each format, and none of them trusts what it reads.

The same for all: a value longer than `max_bytes` is refused before it is parsed, features must have exactly the configured
shape and be finite, a label is a string or an integer. A record that breaks a rule raises `DecodeError`, and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from streamlearn.decode.csv import CsvDecoder
from streamlearn.decode.fields import Rules, header
from streamlearn.decode.json import JsonDecoder
from streamlearn.decode.msgpack import MsgpackDecoder
from streamlearn.decode.tensors import TensorDecoder
from streamlearn.errors import ConfigError
from streamlearn.protocols import Decoder
from streamlearn.records import Array, Record, Sample
from streamlearn.settings import Section, key

Format: TypeAlias = Literal["json", "msgpack", "tensor", "csv"]

DECODERS: Mapping[str, Any] = {
    "json": JsonDecoder,
    "msgpack": MsgpackDecoder,
    "tensor": TensorDecoder,
    "csv": CsvDecoder,
}
CONTENT_TYPES: Mapping[bytes, str] = {
    b"application/json": "json",
    b"application/msgpack": "msgpack",
    b"application/x-msgpack": "msgpack",
    b"application/vnd.msgpack": "msgpack",
    b"application/x-tensor": "tensor",
    b"text/csv": "csv",
}


class Settings(Section):
    """How the bytes of a record become features and a label."""

    format: Format = key(
        "json", "what values are, unless a record's content-type header says otherwise: json, msgpack, tensor, csv"
    )
    max_bytes: int = key(4 << 20, "longest value that is decoded", unit="bytes", ge=1)
    csv: CsvDecoder.Settings = key(CsvDecoder.Settings(), "columns of csv lines")


def decoder_for(settings: Settings, shape: Sequence[int], *, label_type: str = "any") -> Decoder:
    """A decoder for features of `shape`. `label_type` is any, string or integer. Errors: ConfigError."""
    rules = Rules(tuple(shape), settings.max_bytes, label_type)
    decoders: dict[str, Decoder] = {n: kind(rules) for n, kind in DECODERS.items() if n != "csv"}
    if settings.csv.columns:
        decoders["csv"] = CsvDecoder(rules, settings.csv)
    if settings.format not in decoders:
        raise ConfigError("decode.csv.columns is missing: expected the names of a line's columns, in order")
    return ByContentType(decoders, settings.format)


class ByContentType:
    """Each record by the decoder that its `content-type` header names; without one that is known, by the default."""

    def __init__(self, decoders: Mapping[str, Decoder], default: str) -> None:
        self._default = decoders[default]
        self._by_type = {name: decoders[kind] for name, kind in CONTENT_TYPES.items() if kind in decoders}

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        decoder = self._default
        if record.headers and (found := header(record, "content-type")):
            decoder = self._by_type.get(found.partition(b";")[0].strip().lower(), decoder)
        return decoder.decode(record, out)
