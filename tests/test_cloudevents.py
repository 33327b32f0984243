"""CloudEvents: the data is decoded as any record; what it leaves out the event says."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from streamlearn import decode
from streamlearn.errors import DecodeError
from streamlearn.records import LABEL, Headers, Record, Sample
from streamlearn.settings import read
from tests.test_decode import AVRO, FLAT, LINE, NUMBERS, SHAPE, TENSOR, avro, pack, text

EVENT = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "order", "time": "2026-11-30T05:00:00.123456Z"}
TIME_MS = 1796014800123
STRUCTURED: Headers = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
CSV = {"columns": ["id", "a", "b", "c", "d", "e", "f", "label", "time"]}


def binary(content_type: bytes = b"application/json", **changes: bytes | None) -> Headers:
    told = {name: value.encode() for name, value in EVENT.items()} | changes
    return (("content-type", content_type), *((f"ce_{name}", value) for name, value in told.items() if value is not None))


def event(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (EVENT | changes).items() if value is not ...}).encode()


def decoded(value: bytes | None, headers: Headers = (), **changes: Any) -> tuple[Sample, list[Any]]:
    settings = read(decode.Settings, {"csv": CSV, "avro": {"definition": AVRO}, **changes}, path="decode")
    out = np.full(SHAPE, np.nan, np.float32)
    sample = decode.decoder_for(settings, SHAPE).decode(Record("orders[3]", 88112, value, None, headers), out)
    return sample, out.tolist()


def refusal(value: bytes | None, headers: Headers = (), **changes: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(value, headers, **changes)
    assert str(caught.value).startswith("orders[3]@88112: ")
    return str(caught.value)


def coded(value: bytes) -> str:
    return base64.b64encode(value).decode()


DATA = {"features": NUMBERS, "label": 7}


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (event(data=DATA), STRUCTURED),
        (event(data=DATA, datacontenttype="application/json"), STRUCTURED),
        (event(data=DATA, datacontenttype="application/vnd.shop+json"), STRUCTURED),
        (event(data_base64=coded(text(label=7))), STRUCTURED),
        (event(data_base64=coded(pack(label=7)), datacontenttype="application/msgpack"), STRUCTURED),
        (event(data_base64=coded(avro(label=7)), datacontenttype="avro/binary"), STRUCTURED),
        (event(data_base64=coded(TENSOR), datacontenttype="application/x-tensor"), (*STRUCTURED, ("label", b"7"))),
        (text(label=7), binary()),
        (pack(label=7), binary(b"application/msgpack")),
        (avro(label=7), binary(b"avro/binary")),
        (TENSOR, (*binary(b"application/x-tensor"), ("label", b"7"))),
    ],
)
def test_an_event_around_any_format_gives_its_id_and_time(value: bytes, headers: Headers) -> None:
    assert decoded(value, headers) == (Sample(7, "e1", TIME_MS), NUMBERS)


def test_text_in_the_data_of_a_structured_event_is_a_record_of_its_format() -> None:
    told = event(data=LINE.decode(), datacontenttype="text/csv")
    assert decoded(told, STRUCTURED) == (Sample("7", "a7", 1700), NUMBERS)


def test_what_the_data_says_itself_stands() -> None:
    data = DATA | {"id": "own", "time": 5}
    assert decoded(event(data=data), STRUCTURED)[0] == Sample(7, "own", 5)
    assert decoded(json.dumps(data).encode(), binary())[0] == Sample(7, "own", 5)


def test_a_late_label_names_its_sample_itself_for_its_event_has_another_id() -> None:
    label = {"kind": "label", "id": "p7", "label": "late"}
    for value, headers in ((event(data=label), STRUCTURED), (json.dumps(label).encode(), binary())):
        assert decoded(value, headers)[0] == Sample("late", "p7", TIME_MS, kind="label")
    marked = {"id": "p7", "label": "late"}
    assert decoded(event(data=marked), (*STRUCTURED, *LABEL))[0] == Sample("late", "p7", TIME_MS, kind="label")
    assert "id" in refusal(event(data={"kind": "label", "label": "late"}), STRUCTURED)


def test_without_headers_the_configuration_says_that_records_are_events() -> None:
    assert decoded(event(data=DATA), envelope="cloudevents")[0] == Sample(7, "e1", TIME_MS)
    assert "missing required field features" in refusal(event(data=DATA))
    assert "no CloudEvent" in refusal(text(label=7), envelope="cloudevents")
    posted: Headers = (("content-type", b"application/json"),)
    assert decoded(text(label=7), posted, envelope="cloudevents")[0] == Sample(7), "as `POST …/samples` writes it"


def test_a_time_is_not_needed_and_digits_below_a_millisecond_are_cut() -> None:
    assert decoded(event(data=DATA, time=...), STRUCTURED)[0].time_ms is None
    assert decoded(text(label=7), binary(time=None))[0].time_ms is None
    for found, ms in (("1970-01-01T00:00:00.0019Z", 1), ("1969-12-31T23:59:59.9Z", -100), ("1970-01-01T02:00:00+02:00", 0)):
        assert decoded(event(data=DATA, time=found), STRUCTURED)[0].time_ms == ms


@pytest.mark.parametrize(
    ("value", "headers", "part"),
    [
        (event(data=DATA, specversion="0.3"), STRUCTURED, "CloudEvents '0.3', expected '1.0'"),
        (event(data=DATA, id=...), STRUCTURED, "missing required field `id`"),
        (event(data=DATA, source=...), STRUCTURED, "missing required field `source`"),
        (event(data=DATA, id=""), STRUCTURED, "length >= 1"),
        (event(data=DATA, id=7), STRUCTURED, "no CloudEvent in JSON"),
        (event(data=DATA, id="x" * 1025), STRUCTURED, "expected 1 to 1024 characters"),
        (event(data=DATA, time="yesterday"), STRUCTURED, "the event's time is 'yesterday'"),
        (event(data=DATA, time="2026-02-30T00:00:00Z"), STRUCTURED, "the event's time is"),
        (event(data=DATA, time="2026-02-03T00:00:00"), STRUCTURED, "the event's time is"),
        (event(data=DATA, time="2026-02-03T24:00:00Z"), STRUCTURED, "the event's time is"),
        (event(data=DATA, time="2026-02-03T00:00:00+02:80"), STRUCTURED, "the event's time is"),
        (event(), STRUCTURED, "no data"),
        (event(data=None), STRUCTURED, "no data"),
        (event(data=DATA, data_base64="aa"), STRUCTURED, "data twice"),
        (event(data_base64="a!"), STRUCTURED, "no base64"),
        (event(data=DATA, datacontenttype="text/csv"), STRUCTURED, "field 'data' is no text"),
        (b"[]", STRUCTURED, "no CloudEvent in JSON"),
        (b"{" + b'"x":[' * 100_000, STRUCTURED, "no CloudEvent in JSON"),
        (event(data=DATA).replace(b"/shop", b"\xff"), STRUCTURED, "no CloudEvent in JSON"),
        (None, STRUCTURED, "tombstone"),
        (event(data=DATA), (("content-type", b"application/cloudevents-batch+json"),), "expected application/cloudevents+json"),
        (event(data=DATA), (("content-type", b"application/cloudevents+avro"),), "expected application/cloudevents+json"),
        (text(), binary(id=None), "header 'ce_id' is missing"),
        (text(), binary(source=None), "header 'ce_source' is missing"),
        (text(), binary(specversion=b"0.3"), "CloudEvents '0.3'"),
        (text(), binary(id=b"\xff"), "header 'ce_id' is b'\\xff'"),
        (text(), binary(time=b"now"), "the event's time is 'now'"),
        (None, binary(), "tombstone"),
    ],
)
def test_wrong_events_are_refused(value: bytes | None, headers: Headers, part: str) -> None:
    assert part in refusal(value, headers)


def test_the_bound_on_a_value_is_that_of_the_whole_event() -> None:
    assert "expected at most 50" in refusal(event(data=DATA), STRUCTURED, max_bytes=50)


def test_a_record_in_no_envelope_is_what_it_was() -> None:
    assert decoded(text(label=7, features=FLAT)) == (Sample(7), NUMBERS)
