"""Bytes → features and raw label. Pure, one file for each format, and none of them trusts what it reads.

The same for all: a value longer than `max_bytes` is refused before it is parsed, features must have exactly the configured
shape and be finite, or be the configured columns with nothing missing that must be there, a label is a string or an integer.
A record that breaks a rule raises `DecodeError`, and nothing else, but for a registry that cannot be asked: `SourceError`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

from streamlearn.decode.cloudevents import CloudEvents
from streamlearn.decode.csv import CsvDecoder
from streamlearn.decode.fields import Rules, header
from streamlearn.decode.json import JsonDecoder
from streamlearn.decode.keys import AvroKeys, ProtobufKeys
from streamlearn.decode.late import ByKind
from streamlearn.decode.msgpack import MsgpackDecoder
from streamlearn.decode.tensors import TensorDecoder
from streamlearn.errors import ConfigError
from streamlearn.protocols import Decoder
from streamlearn.records import Array, Record, Sample
from streamlearn.schema import Schema
from streamlearn.settings import Section, key

Format: TypeAlias = Literal["json", "msgpack", "tensor", "csv", "avro", "protobuf"]
FORMATS: tuple[str, ...] = get_args(Format)

ALWAYS: Mapping[str, Any] = {"json": JsonDecoder, "msgpack": MsgpackDecoder, "tensor": TensorDecoder}
"""Formats that need no keys of their own."""
OPTIONAL: Mapping[str, tuple[str, str]] = {
    "avro": ("streamlearn.decode.avro", "AvroDecoder"),
    "protobuf": ("streamlearn.decode.protobuf", "ProtobufDecoder"),
}
"""Formats that need a library, which is imported when a configuration asks for them; the extra bears the format's name."""
CONTENT_TYPES: Mapping[bytes, str] = {
    b"application/json": "json",
    b"application/msgpack": "msgpack",
    b"application/x-msgpack": "msgpack",
    b"application/vnd.msgpack": "msgpack",
    b"application/x-tensor": "tensor",
    b"text/csv": "csv",
    b"application/avro": "avro",
    b"avro/binary": "avro",
    b"application/protobuf": "protobuf",
    b"application/x-protobuf": "protobuf",
}


class Settings(Section):
    """How the bytes of a record become features and a label."""

    format: Format = key(
        "json",
        "what values are, unless a record's content-type header says otherwise: json, msgpack, tensor, csv, avro, protobuf",
    )
    envelope: Literal["auto", "cloudevents"] = key(
        "auto", "auto: CloudEvents where a record's headers say so; cloudevents: also structured ones without headers"
    )
    max_bytes: int = key(4 << 20, "longest value that is decoded", unit="bytes", ge=1)
    csv: CsvDecoder.Settings = key(CsvDecoder.Settings(), "columns of csv lines")
    avro: AvroKeys = key(AvroKeys(), "schemas of Avro records")
    protobuf: ProtobufKeys = key(ProtobufKeys(), "the message of Protobuf records")


def decoder_for(settings: Settings, shape: Sequence[int], *, label_type: str = "any", schema: Schema | None = None) -> Decoder:
    """A decoder for features of `shape`, or for named columns, of which `shape` is the number.

    `label_type` is any, string or integer. Errors: ConfigError.
    """
    rules = Rules(tuple(shape), settings.max_bytes, label_type, schema)
    decoders: dict[str, Decoder] = {name: kind(rules) for name, kind in ALWAYS.items()}
    if settings.csv.columns:
        decoders["csv"] = CsvDecoder(rules, settings.csv)
    if settings.avro.is_given:
        decoders["avro"] = _optional("avro")(rules, settings.avro)
    if settings.protobuf.message is not None:
        decoders["protobuf"] = _optional("protobuf")(rules, settings.protobuf)
    if settings.format not in decoders:
        raise ConfigError(NEEDS[settings.format])
    by_kind = ByKind(ByContentType(decoders, settings.format), rules, format_=settings.format)
    return CloudEvents(by_kind, rules, always=settings.envelope == "cloudevents")


NEEDS: Mapping[str, str] = {
    "csv": "decode.csv.columns is missing: expected the names of a line's columns, in order",
    "avro": "decode.avro is empty: expected a schema, in `file` or `definition`, or the address of a registry, `registry.url`",
    "protobuf": "decode.protobuf.message is missing: expected the name of a message, and a file of `descriptors`",
}


def _optional(name: str) -> Any:
    """The class of a decoder whose library need not be there. Errors: ConfigError."""
    module, kind = OPTIONAL[name]
    try:
        return getattr(import_module(module), kind)
    except ImportError as error:
        raise ConfigError(
            f"decode.{name} needs a package that is missing: {error}; pip install 'streamlearn[{name}]'"
        ) from error


class ByContentType:
    """Each record by the decoder that its `content-type` header names; without one that is known, by the default."""

    def __init__(self, decoders: Mapping[str, Decoder], default: str) -> None:
        self._default = decoders[default]
        self._by_type = {name: decoders[kind] for name, kind in CONTENT_TYPES.items() if kind in decoders}

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError, SourceError."""
        decoder = self._default
        if record.headers and (found := header(record, "content-type")):
            decoder = self._by_type.get(found.partition(b";")[0].strip().lower(), decoder)
        return decoder.decode(record, out)
