"""A schema registry that speaks Confluent's REST API, asked by the prefetch thread.

What it once said of an id stays: the schema of an id never changes. While it cannot be asked, an id that is not known yet is a
`SourceError`: the record waits, and is not refused for what is no fault of its own.
"""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from streamlearn.decode.keys import RegistryKeys
from streamlearn.errors import ConfigError, SourceError
from streamlearn.records import Json

MOST_REFERENCES = 64
MISSING = (40401, 40402, 40403)  # subject, version, schema: the codes by which a registry says that there is none
PIECE = 1 << 16


class NoSchemaError(Exception):
    """The registry answered, and there is no such schema, or none that can be used. The message says why."""


class Registry:
    """Asks for schemas; each answer is bounded in bytes and in time, and no redirect is followed."""

    def __init__(self, settings: RegistryKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Errors: ConfigError."""
        self._settings, self._clock = settings, clock
        self._address = urlsplit(settings.url or "")
        try:
            self._address.port  # noqa: B018  raises for what is no port
            self._tls = ssl.create_default_context(cafile=settings.ca_file) if self._address.scheme == "https" else None
        except (ValueError, OSError) as error:
            raise ConfigError(f"decode.avro.registry: {error}") from error
        self._signed()  # what cannot be read is told at the start

    def schemas(self, number: int) -> list[Json]:
        """The schema of an id, after all those that it refers to. Errors: NoSchemaError; SourceError."""
        answer = self._ask(f"/schemas/ids/{number}", f"schema {number}")
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise NoSchemaError(f"schema {number} is of the type {kind}, expected AVRO")
        try:
            referred = self._referred(answer, {})
        except (LookupError, TypeError, ValueError) as error:
            raise NoSchemaError(f"schema {number} refers to others in a way that is not understood: {error!r}") from error
        return [*referred.values(), _json(answer, f"schema {number}")]

    def _referred(self, answer: Json, found: dict[str, Json]) -> dict[str, Json]:
        for each in answer.get("references") or ():
            path = f"/subjects/{quote(str(each['subject']), safe='')}/versions/{int(each['version'])}"
            if path in found:
                continue
            if len(found) >= MOST_REFERENCES:
                raise NoSchemaError(f"it refers to more than {MOST_REFERENCES} others")
            found[path] = None  # one that refers to itself ends here
            told = self._ask(path, f"version {each['version']} of '{each['subject']}'")
            self._referred(told, found)
            del found[path]
            found[path] = _json(told, path)
        return found

    def _ask(self, path: str, what: str) -> dict[str, Any]:
        status, body = self._get(path)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if status == 404 and isinstance(answer, dict) and answer.get("error_code") in MISSING:
            raise NoSchemaError(f"the registry has no {what}")
        if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            hint = {401: ": credentials are missing or wrong", 403: ": these credentials may not read it"}.get(status, "")
            raise SourceError(f"{self._where} answered {status} for {what}{hint}, expected a schema; it is asked again")
        return answer

    def _get(self, path: str) -> tuple[int, bytes]:
        deadline = self._clock() + self._settings.timeout_s
        host, port = self._address.hostname or "", self._address.port
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=self._settings.timeout_s)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self._settings.timeout_s, context=self._tls)
        try:
            headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json", **self._signed()}
            connection.request("GET", self._address.path.rstrip("/") + path, headers=headers)
            with connection.getresponse() as answer:
                return answer.status, self._body(answer, deadline)
        except (OSError, http.client.HTTPException, ConfigError) as error:
            raise SourceError(f"{self._where} cannot be asked: {error or type(error).__name__}; it is asked again") from error
        finally:
            connection.close()

    def _body(self, answer: http.client.HTTPResponse, deadline: float) -> bytes:
        body = b""
        while piece := answer.read1(PIECE):
            body += piece
            if len(body) > self._settings.max_bytes:
                raise NoSchemaError(f"the answer is longer than decode.avro.registry.max_bytes, {self._settings.max_bytes}")
            if self._clock() > deadline:
                raise TimeoutError(f"no whole answer within {self._settings.timeout_s:g} s")
        return body

    def _signed(self) -> dict[str, str]:
        """Files are read each time: what is rotated is used at once. Errors: ConfigError."""
        if self._settings.token_file is not None:
            return {"Authorization": f"Bearer {_secret(self._settings.token_file, 'token_file')}"}
        if self._settings.user is not None and self._settings.password_file is not None:
            pair = f"{self._settings.user}:{_secret(self._settings.password_file, 'password_file')}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        return {}

    @property
    def _where(self) -> str:
        return f"schema registry {self._address.scheme}://{self._address.netloc}"


def _json(answer: Json, what: str) -> Json:
    try:
        return json.loads(answer["schema"])
    except (ValueError, RecursionError) as error:
        raise NoSchemaError(f"{what} is no JSON: {error}") from error


def _secret(path: Path, name: str) -> str:
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"decode.avro.registry.{name} names a file that cannot be read: {reason}") from error
    if not found or not found.isprintable():
        raise ConfigError(f"decode.avro.registry.{name} names a file without one line of text in it")
    return found
