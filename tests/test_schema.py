"""Named columns: what decoders make of records with fields, and what configuration says of them."""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import decode
from streamlearn.config import configure
from streamlearn.errors import ConfigError, DecodeError
from streamlearn.protocols import Decoder
from streamlearn.records import Headers, Record, Sample
from streamlearn.schema import MOST_BUCKETS, Column, Schema, bucket
from streamlearn.settings import read

COLUMNS: dict[str, Any] = {
    "temperature": "numeric",
    "carrier": {"type": "categorical", "buckets": 512},
    "max speed": {"type": "numeric", "missing": "refuse"},
}
CSV = {"columns": ["id", "carrier", "max speed", "temperature", "label"]}
VALUES = {"temperature": 3.25, "carrier": "AA", "max speed": 7}
PLACE = "orders[3]@88112"


def schema(**changes: Any) -> Schema:
    """As the configuration makes it."""
    loaded = configure({"source": {"type": "log"}, "input": {"columns": COLUMNS, **changes}})
    assert loaded.input.named is not None
    assert loaded.input.row == (3,)
    return loaded.input.named


def decoder(format_: str = "json", **changes: Any) -> Decoder:
    section = read(decode.Settings, {"format": format_, "csv": CSV}, path="decode")
    return decode.decoder_for(section, (3,), schema=schema(**changes))


def decoded(value: bytes, how: Decoder | None = None, headers: Headers = ()) -> tuple[Sample, np.ndarray]:
    out = np.full(3, -1, np.float32)
    return (how or decoder()).decode(Record("orders[3]", 88112, value, None, headers), out), out


def refusal(value: bytes, how: Decoder | None = None, headers: Headers = ()) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(value, how, headers)
    assert str(caught.value).startswith(f"{PLACE}: ")
    assert str(caught.value).endswith("; the record goes to the dead letters")
    return str(caught.value).removeprefix(f"{PLACE}: ").removesuffix("; the record goes to the dead letters")


def text(**changes: Any) -> bytes:
    """A JSON record; a change to `...` leaves a field out."""
    values = {name: value for name, value in {**VALUES, **changes}.items() if value is not ...}
    return json.dumps({"id": "a7", "features": values, "label": "late"}).encode()


def code_of(category: str, buckets: int = 512) -> int:
    """Slowly: the digest as a number, divided by hand."""
    digest = hashlib.blake2b(category.encode(), digest_size=8).digest()
    return sum(byte << (8 * i) for i, byte in enumerate(digest)) % buckets


RIGHT = [3.25, float(code_of("AA")), 7.0]


@pytest.mark.parametrize(
    ("format_", "value"),
    [
        ("json", text()),
        ("json", json.dumps({"id": "a7", "label": "late", "features": [3.25, "AA", 7]}).encode()),
        ("msgpack", msgspec.msgpack.encode({"id": "a7", "label": "late", "features": VALUES})),
        ("msgpack", msgspec.msgpack.encode({"id": "a7", "label": "late", "features": [3.25, "AA", 7.0]})),
        ("csv", b"a7,AA,7,3.25,late"),
    ],
)
def test_every_format_makes_the_same_row_of_named_values(format_: str, value: bytes) -> None:
    sample, row = decoded(value, decoder(format_))
    assert (sample, row.tolist()) == (Sample("late", "a7"), RIGHT)


def test_an_array_holds_the_columns_in_order_with_whole_numbers_for_categories() -> None:
    row = decoded(struct.pack("<3f", 3.25, 12.0, 7.0), decoder("tensor"), (("label", b'"late"'),))[1]
    assert row.tolist() == [3.25, float(code_of("12")), 7.0]
    assert refusal(struct.pack("<3f", 3.25, 12.5, 7.0), decoder("tensor")).startswith("column 'carrier' is 12.5, expected text")
    gaps = decoded(struct.pack("<3f", math.nan, math.nan, 7.0), decoder("tensor"))[1]
    assert np.isnan(gaps).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("format_", "value"),
    [
        ("json", text(temperature=..., carrier=...)),
        ("json", text(temperature=None, carrier=None)),
        ("json", text(temperature=None, carrier="")),
        ("msgpack", msgspec.msgpack.encode({"features": {"max speed": 7, "temperature": math.nan}})),
        ("csv", b"a7,,7,,late"),
        ("csv", b"a7,,7,nan,late"),
    ],
)
def test_what_is_left_out_null_or_empty_is_missing(format_: str, value: bytes) -> None:
    row = decoded(value, decoder(format_))[1]
    assert np.isnan(row).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (text(temperature="warm"), "field 'features.temperature': expected `float | null`, got `str`".replace("`", "")),
        (text(temperature=True), "field 'features.temperature': expected float | null, got bool"),
        (text(carrier=["AA"]), "field 'features.carrier': expected"),
        (
            text(carrier=1.5),
            "column 'carrier' is 1.5, expected text of at most 1024 characters or an integer of 64 bits or nothing",
        ),
        (text(carrier="x" * 1025), "column 'carrier' is 'xxx"),
        (text(temperature=1e39), "column 'temperature' is 1e+39, expected a finite number of 32 bits or nothing"),
        (text(**{"max speed": None}), "column 'max speed' is missing, expected a finite number of 32 bits"),
        (text(**{"max speed": ...}), "column 'max speed' is missing, expected a finite number of 32 bits"),
        (text(humidity=1), "field 'features': object contains unknown field humidity"),
        (b'{"features": [1, "AA"]}', "field 'features' has 2 values, expected one for each of 3 columns"),
        (b'{"features": ["warm", "AA", 7]}', "column 'temperature' is 'warm', expected a finite number of 32 bits or nothing"),
        (b'{"features": 7}', "field 'features': expected"),
    ],
)
def test_a_refusal_names_the_column_what_was_found_and_what_was_expected(value: bytes, message: str) -> None:
    assert refusal(value).startswith(message)


def test_refusals_of_csv_name_the_column() -> None:
    assert refusal(b"a7,AA,7,warm,late", decoder("csv")) == "field 'temperature' is 'warm', expected a number"
    assert refusal(b"a7,AA,,3,late", decoder("csv")).startswith("column 'max speed' is missing")
    assert refusal(b"a7,AA,inf,3,late", decoder("csv")).startswith("column 'max speed' is inf, expected a finite number")


def test_fields_that_are_no_column_are_passed_over_where_the_configuration_says_so() -> None:
    assert decoded(text(humidity=[1]), decoder(unknown="ignore"))[1].tolist() == RIGHT


@pytest.mark.parametrize("same", [7, 7.0, "7"])
def test_a_whole_number_and_its_text_are_one_category(same: object) -> None:
    assert decoded(text(carrier=same))[1][1] == code_of("7")


def test_buckets_are_stable_and_whole_in_32_bits() -> None:
    """`printf AA | b2sum -l 64` says 445150aafea91e9b, least byte first."""
    assert bucket("AA", MOST_BUCKETS) == 0x505144
    top = Schema((Column("c", "categorical", True, MOST_BUCKETS),))
    for i in range(2000):
        assert float(top.row([f"category {i}"])[0]) == code_of(f"category {i}", MOST_BUCKETS)


@given(st.integers(2, 300), st.integers(8, 5000))
def test_collisions_are_about_as_many_as_chance_makes_them(categories: int, buckets: int) -> None:
    """Of k categories in b buckets, k − b(1 − (1 − 1/b)^k) find their bucket taken; its deviation is below √k."""
    used = len({bucket(f"{categories}/{i}", buckets) for i in range(categories)})
    expected = buckets * (1.0 - (1.0 - 1.0 / buckets) ** categories)
    assert abs(used - expected) <= 6.0 * math.sqrt(categories)


numbers = st.one_of(st.none(), st.integers(-(2**60), 2**60), st.floats(width=32, allow_nan=False, allow_infinity=False))
categories = st.one_of(st.none(), st.text(max_size=20), st.integers(-(2**63), 2**63 - 1))
fields = st.fixed_dictionaries(
    {"max speed": st.floats(width=32, allow_nan=False, allow_infinity=False)},
    optional={"temperature": numbers, "carrier": categories},
)


@given(fields)
def test_rows_come_back_from_json_and_messagepack(values: Mapping[str, Any]) -> None:
    expected = np.full(3, np.nan, np.float32)
    carrier, temperature = values.get("carrier"), values.get("temperature")
    if carrier not in (None, ""):
        expected[1] = int.from_bytes(hashlib.blake2b(str(carrier).encode(), digest_size=8).digest(), "little") % 512
    if temperature is not None:
        expected[0] = temperature
    expected[2] = values["max speed"]
    for format_, write in (("json", msgspec.json.encode), ("msgpack", msgspec.msgpack.encode)):
        np.testing.assert_array_equal(decoded(write({"features": values}), decoder(format_))[1], expected)


@given(st.binary(max_size=80))
def test_noise_is_a_row_or_a_refusal_and_nothing_else(noise: bytes) -> None:
    for how in (decoder("json"), decoder("msgpack"), decoder("csv"), decoder("tensor")):
        try:
            decoded(noise, how)
        except DecodeError as error:
            assert str(error).startswith(PLACE)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "input: shape and columns: found neither"),
        ({"shape": [2], "columns": {"a": "numeric"}}, "input: shape and columns: found both"),
        ({"columns": {"a": "number"}}, r"input.columns.a.type is 'number': expected 'numeric' or 'categorical'"),
        ({"columns": {"a": {"type": "numeric", "bucket": 3}}}, r"input.columns.a.bucket is not a known key"),
        ({"columns": {"a": {"type": "categorical", "buckets": 2**24 + 1}}}, r"input.columns.a.buckets is 16777217"),
        ({"columns": {"a": "numeric"}, "transform": {"kind": "scale"}}, "transform.kind is 'scale' beside columns"),
        ({"columns": {"": "numeric"}}, "columns has an empty name"),
        ({"columns": ["a"]}, "input.columns is a list: expected a section of keys"),
    ],
)
def test_what_cannot_be_meant_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure({"source": {"type": "log"}, "input": section})


def test_csv_must_hold_every_column_and_name_features_once() -> None:
    short = read(decode.Settings, {"csv": {"columns": ["carrier", "label"]}}, path="decode")
    with pytest.raises(ConfigError, match=r"input.columns names 'temperature', expected names of decode.csv.columns"):
        decode.decoder_for(short, (3,), schema=schema())
    twice = read(decode.Settings, {"csv": {**CSV, "features": ["carrier"]}}, path="decode")
    with pytest.raises(ConfigError, match=r"decode.csv.features is given, expected nothing"):
        decode.decoder_for(twice, (3,), schema=schema())
