"""Sections of the formats that need a library of their own, apart from the files that import it."""

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from streamlearn.settings import Section, key


class RegistryKeys(Section):
    """A schema registry that speaks Confluent's REST API."""

    url: str | None = key(
        None, "address of a Confluent-compatible schema registry; empty: records are bare Avro", pattern="^https?://[^@]+$"
    )
    timeout_s: float = key(3.0, "how long one answer may take", unit="seconds", gt=0, le=60)
    max_bytes: int = key(1 << 20, "longest answer that is read", unit="bytes", ge=1 << 10)
    user: str | None = key(None, "name, for basic authentication")
    password_file: Path | None = key(None, "file that holds its password")
    token_file: Path | None = key(None, "file that holds a bearer token, instead of a name")
    ca_file: Path | None = key(None, "certificates that are trusted, PEM; empty: the system's")

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file: found one, expected both or neither")
        if self.user is not None and self.token_file is not None:
            raise ValueError("user and token_file: found both, expected one")
        return self


class AvroKeys(Section):
    """What Avro records look like."""

    file: Path | None = key(None, "schema file (.avsc); with a registry the reader's schema, without one the writer's too")
    definition: Any = key(None, "the schema itself, instead of a file")
    registry: RegistryKeys = key(RegistryKeys(), "where writers' schemas are")

    @model_validator(mode="after")
    def _has_one_schema(self) -> Self:
        if self.file is not None and self.definition is not None:
            raise ValueError("file and definition: found both, expected one")
        return self

    @property
    def is_given(self) -> bool:
        """Whether anything says what Avro records look like."""
        return not (self.file is None and self.definition is None and self.registry.url is None)


class ProtobufKeys(Section):
    """What Protobuf records look like."""

    descriptors: Path | None = key(None, "file of `protoc --include_imports --descriptor_set_out FILE`")
    message: str | None = key(None, "full name of the message that a record is, like orders.v1.Order")

    @model_validator(mode="after")
    def _names_a_message_in_a_file(self) -> Self:
        if (self.descriptors is None) != (self.message is None):
            raise ValueError("descriptors and message: found one, expected both or neither")
        return self
