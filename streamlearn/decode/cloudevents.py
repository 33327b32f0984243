"""CloudEvents 1.0 around records: structured, one JSON object a record, or binary, attributes in the headers `ce_…`.

The event's data is decoded as any record is, by its `datacontenttype`. What the data leaves out the event says: its `id` is the
sample's, its `time` that of the sample. A late label names its sample in its data, for its own event has another id.

Source  CloudEvents specification 1.0.2, its JSON format, and its Kafka protocol binding.
"""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from streamlearn.decode.fields import LONGEST_ID, Rules, header, refused, value_of
from streamlearn.protocols import Decoder
from streamlearn.records import KIND, Array, Record, Sample
from streamlearn.schema import shown

STRUCTURED = b"application/cloudevents"
TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Event(msgspec.Struct):
    """The attributes that are looked at."""

    specversion: _Text
    id: _Text
    source: _Text
    type: _Text
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


class CloudEvents:
    """Takes an event out of its envelope; what is in none goes to the other decoder as it is."""

    def __init__(self, inner: Decoder, rules: Rules, *, always: bool) -> None:
        """With `always`, a record whose headers do not say what its value is is a structured one."""
        self._inner, self._rules, self._always = inner, rules, always
        self._events = msgspec.json.Decoder(_Event)

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError, and those of the other decoder."""
        kind = b""
        if record.headers:
            kind = (header(record, "content-type") or b"").partition(b";")[0].strip().lower()
            if kind.startswith(STRUCTURED):
                if kind != STRUCTURED + b"+json":
                    raise refused(
                        record, f"the content type is {shown(kind)}, expected application/cloudevents+json: one event"
                    )
                return self._structured(record, out)
            if header(record, "ce_specversion") is not None:
                return self._binary(record, out)
        if self._always and not kind and not _is_ours(record):  # what clients post says that it is JSON
            return self._structured(record, out)
        return self._inner.decode(record, out)

    def _binary(self, record: Record, out: Array) -> Sample:
        told = {name: self._attribute(record, name) for name in ("specversion", "id", "source", "type", "time")}
        missing = [name for name in ("id", "source", "type") if not told[name]]
        if missing:
            raise refused(record, f"header 'ce_{missing[0]}' is missing, expected it in an event")
        _check_version(record, told["specversion"])
        return _filled(record, self._inner.decode(record, out), told["id"], told["time"])

    def _attribute(self, record: Record, name: str) -> str | None:
        found = header(record, f"ce_{name}")
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError as error:
            raise refused(record, f"header 'ce_{name}' is {shown(found)}, expected text in UTF-8") from error

    def _structured(self, record: Record, out: Array) -> Sample:
        value = value_of(record, self._rules)
        try:
            value.decode()  # msgspec does not look at the text of fields that it passes over
            event = self._events.decode(value)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise refused(record, f"the value is no CloudEvent in JSON: {error}") from error
        _check_version(record, event.specversion)
        kind = event.datacontenttype or ("application/json" if event.data_base64 is None else None)
        own = tuple(each for each in record.headers if each[0] != "content-type")
        headers = own if kind is None else (*own, ("content-type", kind.encode()))
        inside = record._replace(value=_data(record, event, kind or ""), headers=headers)
        return _filled(record, self._inner.decode(inside, out), event.id, event.time)


def _is_ours(record: Record) -> bool:
    """Answers that servers recorded are in no envelope."""
    return header(record, KIND) == b"answer"


def _data(record: Record, event: _Event, kind: str) -> bytes:
    """Errors: DecodeError."""
    data = bytes(event.data)
    if (data in (b"", b"null")) == (event.data_base64 is None):
        raise refused(
            record, f"the event has {'no data' if event.data_base64 is None else 'data twice'}, expected a sample in it"
        )
    if event.data_base64 is not None:
        try:
            return base64.b64decode(event.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise refused(record, f"field 'data_base64' is no base64: {error}") from error
    name = kind.partition(";")[0].strip().lower()
    if name.endswith(("/json", "+json")):
        return data
    try:
        return msgspec.json.decode(data, type=str).encode()
    except msgspec.MsgspecError as error:
        raise refused(record, f"field 'data' is no text, expected text for {shown(kind)}: {error}") from error


def _check_version(record: Record, found: str | None) -> None:
    if found != "1.0":
        raise refused(record, f"the event is of CloudEvents {shown(found)}, expected '1.0'")


def _filled(record: Record, sample: Sample, id_: str | None, time: str | None) -> Sample:
    """What the data left out, from the envelope. Errors: DecodeError."""
    time_ms = sample.time_ms if time is None or sample.time_ms is not None else milliseconds(record, time)
    if sample.kind != "sample" or sample.id is not None:
        return sample._replace(time_ms=time_ms)
    if not id_ or len(id_) > LONGEST_ID:
        raise refused(record, f"the event's id is {shown(id_)}, expected 1 to {LONGEST_ID} characters")
    return sample._replace(id=id_, time_ms=time_ms)


def milliseconds(record: Record, text: str) -> int:
    """Since the epoch, of a time of RFC 3339; digits below a millisecond are cut. Errors: DecodeError."""
    found = TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        day, clock, fraction, zone = found.groups()
        when = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        since = when - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise refused(record, f"the event's time is {shown(text)}, expected one like 2026-11-30T05:00:00Z") from error
    return since // timedelta(milliseconds=1) + int((fraction or "0").ljust(3, "0")[:3])
