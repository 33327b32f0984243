"""Protobuf records: one named message of a file of descriptors, as `protoc` writes it.

Protobuf reads most bytes as some message, passing over what it does not know, and zero is what it says of a number that was
left out. So a message with fields of another version is refused unless `input.unknown` is ignore, and fields beside the
features must tell whether they are there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.unknown_fields import UnknownFieldSet

from streamlearn.decode.fields import Rules, refused, value_of
from streamlearn.decode.keys import ProtobufKeys
from streamlearn.decode.typed import BESIDE, sample_from
from streamlearn.errors import ConfigError
from streamlearn.records import Array, Record, Sample


class ProtobufDecoder:
    """Fields beside `features` as in JSON, or a flat message whose other fields are the named columns."""

    def __init__(self, rules: Rules, settings: ProtobufKeys) -> None:
        """Errors: ConfigError."""
        self._rules, self._name = rules, settings.message or ""
        self._kind = _kind(settings.descriptors or Path(), self._name)
        self._ignores = rules.schema is not None and rules.schema.unknown == "ignore"
        for name in BESIDE:
            field = self._kind.DESCRIPTOR.fields_by_name.get(name)
            if field is not None and not (field.has_presence or field.type == field.TYPE_STRING):
                raise ConfigError(
                    f"decode.protobuf: field '{name}' of {self._name} does not tell 0 from nothing: declare it `optional`"
                )

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        value = value_of(record, self._rules)
        message = self._kind()
        try:
            message.ParseFromString(value)
        except ProtobufError as error:
            raise refused(record, f"the value is no Protobuf message {self._name}: {error}") from error
        return sample_from(record, self._fields(record, message), out, self._rules)

    def _fields(self, record: Record, message: Any) -> dict[str, Any]:
        """By name; what can be left out and was is missing. Errors: DecodeError."""
        unknown = UnknownFieldSet(message)
        if len(unknown) and not self._ignores:
            raise refused(
                record,
                f"the value has a field of number {unknown[0].field_number}, which {message.DESCRIPTOR.full_name} has not:"
                " expected the message of decode.protobuf.descriptors, or input.unknown: ignore",
            )
        found: dict[str, Any] = {}
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if field.has_presence and not message.HasField(field.name):
                continue
            if field.is_repeated:
                found[field.name] = value if isinstance(value, Mapping) else list(value)
            elif field.message_type is not None:
                found[field.name] = self._fields(record, value)
            elif field.enum_type is not None:
                known = field.enum_type.values_by_number.get(value)
                found[field.name] = value if known is None else known.name
            elif not (field.type == field.TYPE_STRING and value == "" and not field.has_presence):
                found[field.name] = value
        return found


def _kind(path: Path, name: str) -> Any:
    """The class of a message. Errors: ConfigError."""
    pool, files = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorSet()
    try:
        files.ParseFromString(path.read_bytes())
        for each in files.file:
            pool.Add(each)
    except OSError as error:
        raise ConfigError(f"decode.protobuf.descriptors {path} cannot be read: {error.strerror}") from error
    except (ProtobufError, TypeError) as error:
        raise ConfigError(
            f"decode.protobuf.descriptors {path} is no set of descriptors: {error}; expected what"
            " `protoc --include_imports --descriptor_set_out` writes"
        ) from error
    try:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError as error:
        raise ConfigError(
            f"decode.protobuf.message '{name}' is not in {path}: expected a full name, package and all"
        ) from error
