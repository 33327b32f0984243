"""Avro records: bare ones of a schema that the configuration has, or those of a schema registry, each behind a zero byte and
the schema's id in four more.

With a reader's schema in the configuration, what was written under older or newer ones is brought to it by the rules of Avro,
as fastavro has them: fields by name or alias, defaults, wider numbers.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_reader
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from streamlearn.decode.avro_bytes import Walk, walk
from streamlearn.decode.fields import Rules, refused, value_of
from streamlearn.decode.keys import AvroKeys
from streamlearn.decode.registry import NoSchemaError, Registry
from streamlearn.decode.typed import sample_from
from streamlearn.errors import ConfigError
from streamlearn.records import Array, Json, Record, Sample
from streamlearn.schema import shown

MOST_SCHEMAS = 1000  # remembered; the one not used for longest goes first
MISSING_S = 10.0  # how long it is believed that there is no such schema
HEAD = 5  # bytes: zero, and the schema's id, big-endian
_UNREADABLE = (
    *(ValueError, TypeError, ArithmeticError, LookupError, EOFError, RecursionError),
    *(SchemaResolutionError, SchemaParseException, UnknownType),
)
"""What fastavro raises for bytes and for schemas."""


class Writer(NamedTuple):
    """A schema that records were written under."""

    name: str
    schema: Any
    walk: Walk


class Refusal(NamedTuple):
    """Why an id has no schema."""

    reason: str
    until: float


class AvroDecoder:
    """Fields beside `features` as in JSON, or a flat record whose other fields are the named columns."""

    def __init__(self, rules: Rules, settings: AvroKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Errors: ConfigError."""
        self._rules, self._clock = rules, clock
        self._known: OrderedDict[int, Writer | Refusal] = OrderedDict()
        self._own, self._reader, self._registry = _own(settings), None, None
        if settings.registry.url is not None:
            self._registry = Registry(settings.registry, clock=clock)
            self._reader = None if self._own is None else self._own.schema

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError; SourceError while the registry cannot say what an unknown id means."""
        value = value_of(record, self._rules)
        writer, at = self._written_by(record, value)
        try:
            end = writer.walk(value, at)
            if end != len(value):
                raise ValueError(f"it has {len(value)} bytes, and ends after {end}")
            whole = BytesIO(value)
            whole.seek(at)
            found = schemaless_reader(whole, writer.schema, self._reader)
        except IndexError as error:
            raise refused(record, f"the value ends within a field of {writer.name}") from error
        except _UNREADABLE as error:
            raise refused(record, f"the value is no Avro of {writer.name}: {shorter(error)}") from error
        if not isinstance(found, dict):
            raise refused(record, f"the value is {shown(found)}, expected an Avro record")
        return sample_from(record, found, out, self._rules)

    def _written_by(self, record: Record, value: bytes) -> tuple[Writer, int]:
        """The schema, and where the value begins. Errors: DecodeError, SourceError."""
        if self._registry is None:
            return self._own, 0  # type: ignore[return-value]  # without a registry there is one, or nobody asked for Avro
        if value[:1] != b"\0" or len(value) < HEAD:
            raise refused(
                record, f"the value begins with {value[:HEAD]!r}, expected a zero byte and the id of a schema in four"
            )
        number = int.from_bytes(value[1:HEAD], "big")
        known = self._known.get(number)
        if known is None or (isinstance(known, Refusal) and self._clock() >= known.until):
            known = self._known[number] = self._asked(self._registry, number)
        self._known.move_to_end(number)
        if len(self._known) > MOST_SCHEMAS:
            self._known.popitem(last=False)
        if isinstance(known, Refusal):
            raise refused(record, f"its schema has the id {number}: {known.reason}")
        return known, HEAD

    def _asked(self, registry: Registry, number: int) -> Writer | Refusal:
        try:
            return writer_of(registry.schemas(number), f"schema {number}")
        except NoSchemaError as error:
            return Refusal(str(error), self._clock() + MISSING_S)
        except _UNREADABLE as error:
            return Refusal(f"it is no Avro schema: {shorter(error)}", self._clock() + MISSING_S)


def writer_of(schemas: list[Json], name: str) -> Writer:
    """Of the last of these schemas; those before it are what it refers to. Errors: those of fastavro."""
    named: dict[str, Any] = {}
    parsed = [parse_schema(each, named_schemas=named) for each in schemas][-1]
    walks: dict[str, Walk] = {}
    return Writer(name, parsed, [walk(each, walks) for each in (*named.values(), parsed)][-1])


def shorter(error: Exception) -> str:
    """What a library said, in a line of 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _own(settings: AvroKeys) -> Writer | None:
    """The schema of the configuration. Errors: ConfigError."""
    where = "decode.avro.definition" if settings.file is None else f"decode.avro.file {settings.file}"
    found = settings.definition
    try:
        if settings.file is not None:
            found = settings.file.read_text()
        if isinstance(found, str) and found.lstrip()[:1] in ("{", "[", '"'):
            found = json.loads(found)
        return None if found is None else writer_of([found], "the configured schema")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}; expected an Avro schema") from error
    except _UNREADABLE as error:
        raise ConfigError(f"{where} is no Avro schema: {shorter(error)}") from error
