"""Avro: what a schema says is what arrives; bytes that fastavro would read wrongly are refused."""

import io
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pytest

from benchmarks.fuzz import trial
from streamlearn import decode
from streamlearn.decode import avro as avro_format
from streamlearn.errors import ConfigError, DecodeError
from streamlearn.protocols import Decoder
from streamlearn.records import Record, Sample
from streamlearn.schema import Column, Schema, bucket
from streamlearn.settings import read

COLUMNS = Schema((Column("amount"), Column("carrier", "categorical", buckets=4096)))
BESIDE = [{"name": name, "type": ["null", kind], "default": None} for name, kind in (("id", "string"), ("label", "string"))]
FLAT = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "amount", "type": "double"}, {"name": "carrier", "type": ["null", "string"]}, *BESIDE],
}


def record_of(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def decoder(definition: Any, shape: tuple[int, ...] = (2,), *, schema: Schema | None = None, **avro: Any) -> Decoder:
    settings = read(decode.Settings, {"format": "avro", "avro": {"definition": definition, **avro}}, path="decode")
    return decode.decoder_for(settings, shape, schema=schema)


def decoded(how: Decoder, value: bytes, shape: tuple[int, ...] = (2,)) -> tuple[Sample, list[Any]]:
    out = np.full(shape, np.nan, np.float32)
    sample = how.decode(Record("orders[3]", 88112, value), out)
    return sample, out.tolist()


def refusal(how: Decoder, value: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(how, value)
    assert str(caught.value).startswith("orders[3]@88112: ")
    return str(caught.value)


def test_a_flat_record_gives_columns_by_name() -> None:
    how = decoder(FLAT, schema=COLUMNS)
    value = written(FLAT, {"amount": 3.25, "carrier": "AA", "id": "o1", "label": "late"})
    assert decoded(how, value) == (Sample("late", "o1"), [3.25, float(bucket("AA", 4096))])
    sample, (amount, carrier) = decoded(how, written(FLAT, {"amount": 3.25, "carrier": None}))
    assert (sample, amount) == (Sample(), 3.25)
    assert np.isnan(carrier)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (record_of(("amount", "double"), ("carrier", "string")), {"amount": 3.25, "carrier": "AA"}),
        ({"type": "map", "values": ["double", "string"]}, {"amount": 3.25, "carrier": "AA"}),
        ({"type": "array", "items": ["double", "string"]}, [3.25, "AA"]),
    ],
)
def test_features_of_their_own_are_taken_as_in_json(kind: Any, value: Any) -> None:
    schema = {"type": "record", "name": "Order", "fields": [{"name": "features", "type": kind}, *BESIDE]}
    found = decoded(decoder(schema, schema=COLUMNS), written(schema, {"features": value, "label": "late"}))
    assert found == (Sample("late"), [3.25, float(bucket("AA", 4096))])


def test_a_field_that_is_no_column_is_refused_or_passed_over_as_configured() -> None:
    schema = record_of(("amount", "double"), ("carrier", "string"), ("colour", "string"))
    value = written(schema, {"amount": 1.0, "carrier": "AA", "colour": "red"})
    assert "field 'colour' is no column" in refusal(decoder(schema, schema=COLUMNS), value)
    assert decoded(decoder(schema, schema=COLUMNS._replace(unknown="ignore")), value)[1][0] == 1.0


def test_a_column_with_the_name_of_another_field_must_stand_under_features() -> None:
    columns = Schema((Column("time"), Column("amount")))
    flat = record_of(("time", "long"), ("amount", "double"))
    assert "column 'time' bears the name of a field of its own" in refusal(
        decoder(flat, schema=columns), written(flat, {"time": 1, "amount": 2.0})
    )
    nested = record_of(("features", {**flat, "name": "F"}))
    value = written(nested, {"features": {"time": 1, "amount": 2.0}})
    assert decoded(decoder(nested, schema=columns), value) == (Sample(), [1.0, 2.0])


WHEN = datetime(2026, 11, 30, 5, 0, 0, 123456, tzinfo=UTC)
WHEN_MS = 1796014800123


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("long", WHEN_MS),
        ({"type": "long", "logicalType": "timestamp-millis"}, WHEN),
        ({"type": "long", "logicalType": "timestamp-micros"}, WHEN.astimezone(timezone(timedelta(hours=5)))),
    ],
)
def test_times_are_milliseconds_whatever_they_were_written_in(kind: Any, value: Any) -> None:
    schema = record_of(("features", {"type": "array", "items": "float"}), ("time", kind))
    assert decoded(decoder(schema), written(schema, {"features": [1, 2], "time": value}))[0].time_ms == WHEN_MS


def test_a_time_without_a_zone_is_refused() -> None:
    kind = {"type": "long", "logicalType": "local-timestamp-micros"}
    schema = record_of(("features", {"type": "array", "items": "float"}), ("time", kind))
    value = written(schema, {"features": [1, 2], "time": WHEN.replace(tzinfo=None)})
    assert "field 'time' is a local time" in refusal(decoder(schema), value)


def test_decimals_and_days_are_numbers_and_enums_are_text() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    carriers = {"type": "enum", "name": "Carrier", "symbols": ["AA", "BB"]}
    schema = record_of(("amount", decimal), ("carrier", carriers), ("label", {"type": "int", "logicalType": "date"}))
    value = written(schema, {"amount": Decimal("-12.5"), "carrier": "BB", "label": date(1970, 1, 8)})
    assert decoded(decoder(schema, schema=COLUMNS), value) == (Sample(7), [-12.5, float(bucket("BB", 4096))])


@pytest.mark.parametrize(
    ("kind", "value", "part"),
    [
        ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, b"\x01", "symbol -1 of an enum of 2"),
        ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, b"\x04", "symbol 2 of an enum of 2"),
        (["null", "int"], b"\x01\x02", "branch -1 of a union of 2"),
        (["null", "int"], b"\x04\x02", "branch 2 of a union of 2"),
        ("bytes", b"\x01abc", "-1 bytes are announced"),
        ("string", b"\xfe\xff\xff\xff\x0fabc", "2147483647 bytes are announced where 3 follow"),
        ("string", b"\x04\xff\xfe", "utf-8"),
        ("long", b"\xff" * 12 + b"\x01", "an integer of more than 64 bits"),
        ("long", b"\xff" * 9 + b"\x7f", "an integer of more than 64 bits"),
        ("int", b"\xfe\xff\xff\xff\x7f", "an int is 17179869183"),
        ("boolean", b"\x07", "a boolean is 7"),
        ("boolean", b"\x01\x01", "it has 2 bytes, and ends after 1"),
        ("long", b"\x80", "ends within a field"),
        ("float", b"\x80", "4 bytes are announced where 1 follow"),
        ({"type": "array", "items": "null"}, b"\x80\x89\x7a\x00", "1000000 items are announced where 1 bytes follow"),
        ({"type": "array", "items": "null"}, b"\x02\x00", "items that take no bytes"),
        ({"type": "array", "items": "int"}, b"\x05\x63\x02\x04\x06\x00", "a block of items does not end where it says"),
        ({"type": "array", "items": "double"}, b"\x04" + b"\x00" * 15, "16 bytes are announced where 15 follow"),
        ({"type": "fixed", "name": "F", "size": 1 << 60}, b"abc", "bytes are announced where 3 follow"),
        ({"type": "long", "logicalType": "timestamp-millis"}, b"\xff" * 9 + b"\x01", "too large"),
    ],
)
def test_bytes_that_are_no_value_of_the_schema_are_refused(kind: Any, value: bytes, part: str) -> None:
    for name in ("label", "passed_over"):
        reader = decoder(record_of((name, kind)))
        assert part in refusal(reader, value)


def test_a_schema_that_holds_itself_ends_in_a_refusal_and_not_in_a_crash() -> None:
    nested = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
    assert "recursion" in refusal(decoder(nested), b"\x02" * 1_000_000)
    assert "'features' is missing" in refusal(decoder(nested), b"\x02" * 50 + b"\x00")


def test_blocks_of_any_size_are_read() -> None:
    schema = record_of(("features", {"type": "array", "items": "float"}))
    one, two = np.float32(1.5).tobytes(), np.float32(-2).tobytes()
    for value in (
        b"\x02" + one + b"\x02" + two + b"\x00",
        b"\x03\x10" + one + two + b"\x00",
        b"\x01\x08" + one + b"\x02" + two + b"\x00",
    ):
        assert decoded(decoder(schema), value)[1] == [1.5, -2.0]


def test_without_the_walk_over_the_bytes_the_fuzz_would_find_wrong_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    right = avro_format.writer_of
    monkeypatch.setattr(avro_format, "writer_of", lambda *given: right(*given)._replace(walk=lambda value, _: len(value)))
    assert trial.run("avro", 600, 0).wrong


@pytest.mark.parametrize(
    ("avro", "part"),
    [
        ({"file": "/no/such.avsc"}, "decode.avro.file /no/such.avsc cannot be read: No such file"),
        ({"definition": "{"}, "decode.avro.definition is no Avro schema"),
        ({"definition": {"type": "record", "name": "r", "fields": [{"name": "a"}]}}, "missing 'type'"),
        ({"definition": "no such type"}, "no such type"),
        ({"definition": 7}, "decode.avro.definition is no Avro schema"),
        ({"definition": "int", "file": "a.avsc"}, "file and definition: found both"),
        ({"registry": {"url": "ftp://a"}}, "decode.avro.registry.url"),
        ({"registry": {"url": "http://user:password@a"}}, "decode.avro.registry.url"),
        ({"registry": {"url": "http://a:b"}}, "decode.avro.registry"),
        ({"registry": {"url": "http://a", "user": "u"}}, "user and password_file: found one"),
        ({"registry": {"url": "http://a", "token_file": "/no/such"}}, "token_file names a file that cannot be read"),
        ({"registry": {"url": "https://a", "ca_file": "/no/such"}}, "decode.avro.registry"),
    ],
)
def test_a_wrong_configuration_is_told_at_the_start(avro: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode.decoder_for(read(decode.Settings, {"format": "avro", "avro": avro}, path="decode"), (2,))
    assert part in str(caught.value)
    assert "user:password" not in str(caught.value)


def test_a_schema_in_a_file_is_as_good(tmp_path: Any) -> None:
    path = tmp_path / "order.avsc"
    path.write_text(str(FLAT).replace("'", '"').replace("None", "null"))
    settings = read(decode.Settings, {"format": "avro", "avro": {"file": str(path)}}, path="decode")
    how = decode.decoder_for(settings, (2,), schema=COLUMNS)
    assert decoded(how, written(FLAT, {"amount": 3.25, "carrier": "AA", "label": "late"}))[0] == Sample("late")


def test_an_array_of_true_and_false_is_no_array_of_numbers() -> None:
    schema = record_of(("features", {"type": "array", "items": ["double", "boolean"]}))
    assert "holds True, expected numbers alone" in refusal(decoder(schema), written(schema, {"features": [1.0, True]}))
