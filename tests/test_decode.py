"""Decoding: what is right arrives exactly; what is wrong is refused, saying where, what was found and what was expected."""

import io
import json
import struct
import sys
import time
import tracemalloc

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.schemas import AVRO, MESSAGE, descriptors, message
from streamlearn import decode
from streamlearn.decode import json as json_format
from streamlearn.decode import msgpack as msgpack_format
from streamlearn.decode import tensors as tensor_format
from streamlearn.errors import ConfigError, DecodeError
from streamlearn.protocols import Decoder
from streamlearn.records import Headers, Message, Record, Sample
from streamlearn.settings import read

SHAPE = (2, 3)
NUMBERS = [[1.5, -2.0, 0.0], [3.25, 4.0, 5.0]]
FLAT = [*NUMBERS[0], *NUMBERS[1]]
COLUMNS = {"columns": ["id", "a", "b", "c", "d", "e", "f", "label", "time"]}


def decoder(format_: str = "json", *, label_type: str = "any", **values: object) -> Decoder:
    schemas_ = {"avro": {"definition": AVRO}, "protobuf": {"descriptors": descriptors(), "message": MESSAGE}}
    section = read(decode.Settings, {"format": format_, "csv": COLUMNS, **schemas_, **values}, path="decode")
    return decode.decoder_for(section, SHAPE, label_type=label_type)


def decoded(value: bytes | None, how: Decoder | None = None, headers: Headers = ()) -> tuple[Sample, list[list[float]]]:
    out = np.full(SHAPE, np.nan, np.float32)
    sample = (how or decoder()).decode(Record("orders[3]", 88112, value, None, headers, 5), out)
    return sample, out.tolist()


def refusal(value: bytes | None, how: Decoder | None = None, headers: Headers = ()) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(value, how, headers)
    return str(caught.value)


def pack(**fields: object) -> bytes:
    return msgspec.msgpack.encode({"features": NUMBERS, **fields})


def text(**fields: object) -> bytes:
    return json.dumps({"features": NUMBERS, **fields}).encode()


def avro(**fields: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, AVRO, {"features": FLAT, **fields})
    return out.getvalue()


def protobuf(**fields: object) -> bytes:
    return message()(features=FLAT, **fields).SerializeToString()  # type: ignore[no-any-return]


TENSOR = struct.pack("<6f", *FLAT)
LINE = b"a7,1.5,-2,0,3.25,4,5,7,1700"


@pytest.mark.parametrize(
    ("format_", "value", "headers"),
    [
        ("json", text(label=7, id="a7", time=1700), ()),
        ("json", text(features=FLAT, label=7, id="a7", time=1700, more=[{}]), ()),
        ("msgpack", pack(label=7, id="a7", time=1700), ()),
        ("msgpack", pack(features=FLAT, label=7, id="a7", time=1700), ()),
        ("msgpack", pack(features=TENSOR, label=7, id="a7", time=1700), ()),
        ("tensor", TENSOR, (("label", b"7"), ("id", b"a7"), ("time", b"1700"), ("shape", b"2, 3"), ("dtype", b"<f4"))),
        ("avro", avro(label=7, id="a7", time=1700), ()),
        (
            "tensor",
            struct.pack("<6d", *FLAT),
            (("label", b"7"), ("id", b"a7"), ("time", b"1700"), ("dtype", b"<f8")),
        ),
    ],
)
def test_every_format_gives_the_same_sample(format_: str, value: bytes, headers: Headers) -> None:
    assert decoded(value, decoder(format_), headers) == (Sample(7, "a7", 1700), NUMBERS)


def test_a_csv_line_has_no_types_so_its_label_is_a_string_unless_integers_are_asked_for() -> None:
    assert decoded(LINE, decoder("csv")) == (Sample("7", "a7", 1700), NUMBERS)
    assert decoded(LINE, decoder("csv", label_type="integer")) == (Sample(7, "a7", 1700), NUMBERS)


def test_csv_takes_the_features_by_name_in_the_order_asked_for() -> None:
    columns = {**COLUMNS, "features": ["f", "e", "d", "c", "b", "a"], "delimiter": ";"}
    sample, numbers = decoded(b';1;2;3;4;5;6;"a;b";', decoder("csv", csv=columns))
    assert (sample, numbers) == (Sample("a;b"), [[6, 5, 4], [3, 2, 1]])


def test_all_but_the_features_may_be_left_out_and_a_brokers_clock_is_no_substitute() -> None:
    assert decoded(text()) == (Sample(None, None, None, None), NUMBERS)
    assert decoded(TENSOR, decoder("tensor")) == (Sample(None, None, None, None), NUMBERS)


@pytest.mark.parametrize("kind", ["json", "msgpack", "tensor"])
def test_a_tasks_context_is_read(kind: str) -> None:
    headers = (("context", b"3"),) if kind == "tensor" else ()
    value = {"json": text(context=3), "msgpack": pack(context=3), "tensor": TENSOR}[kind]
    assert decoded(value, decoder(kind), headers)[0].context == 3


def test_unsigned_bytes_are_taken_as_they_are() -> None:
    assert decoded(bytes([0, 1, 2, 3, 128, 255]), decoder("tensor"), (("dtype", b"|u1"),))[1] == [[0, 1, 2], [3, 128, 255]]


@pytest.mark.parametrize(
    ("found", "label_type", "label"),
    [
        (1, "any", 1),
        ("1", "any", "1"),
        (1, "string", "1"),
        ("1", "string", "1"),
        (1, "integer", 1),
        ("1", "integer", 1),
        ("-12", "integer", -12),
        (-(2**63), "any", -(2**63)),
        (2**63 - 1, "integer", 2**63 - 1),
    ],
)
def test_labels_become_what_the_configuration_asks_for(found: object, label_type: str, label: object) -> None:
    for how, value in ((decoder("json", label_type=label_type), text(label=found)),):
        got = decoded(value, how)[0].label
        assert (got, type(got)) == (label, type(label))
    header = (("label", json.dumps(found).encode()),)
    assert decoded(TENSOR, decoder("tensor", label_type=label_type), header)[0].label == label


@pytest.mark.parametrize("found", [True, False, 1.0, 7.5, 2**63, -(2**63) - 1, "", "x" * 1025, [1], {"a": 1}])
@pytest.mark.parametrize("label_type", ["any", "string", "integer"])
def test_a_label_is_a_string_or_an_integer_of_64_bits_and_nothing_else(found: object, label_type: str) -> None:
    assert "label" in refusal(text(label=found), decoder(label_type=label_type))
    header = (("label", json.dumps(found).encode()),)
    assert "label" in refusal(TENSOR, decoder("tensor", label_type=label_type), header)


@pytest.mark.parametrize("found", ["n/a", "1.0", " 1", "1_000", "١", "99999999999999999999"])
def test_a_text_that_is_no_integer_is_refused_where_integers_are_asked_for(found: str) -> None:
    message = refusal(text(label=found), decoder(label_type="integer"))
    assert message.startswith(f"orders[3]@88112: field 'label' is {found!r}, expected an integer")


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (None, "empty (a tombstone)"),
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b'{"label": 1}', "missing required field features"),
        (text(features=[1, 2, 3]), "shape [3], expected [2, 3]"),
        (text(features=[[1, 2], [3, 4], [5, 6]]), "shape [3, 2], expected [2, 3]"),
        (text(features=[5]), "shape [1], expected [2, 3]"),
        (text(features=[]), "shape [0], expected [2, 3]"),
        (text(features=[[1, 2], [3]]), "lists of different lengths"),
        (text(features=[[1, 2, "x"], [3, 4, 5]]), "field 'features[0][2]': expected float, got str"),
        (text(features=[[1, 2, True], [3, 4, 5]]), "features"),
        (text(features=[[1, 2, None], [3, 4, 5]]), "features"),
        (text(features=[[[1]]]), "features"),
        (text(features="abc"), "features"),
        (text(features=[[1, 2, 3], [4, 1e39, 6]]), "field 'features[1, 1]' is 1e+39, expected a finite number"),
        (text(time="now"), "field 'time' is 'now', expected milliseconds"),
        (text(time=1.5), "field 'time' is 1.5"),
        (text(id=""), "field 'id' is ''"),
        (text(id=[1]), "id"),
        (text(context="a"), "field 'context' is 'a'"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"features":[1,2,3,4,5,6],"x":' + b"[" * 100_000, "cannot be read"),
    ],
)
def test_wrong_json_is_refused_with_the_field_what_was_found_and_what_was_expected(value: bytes | None, part: str) -> None:
    message = refusal(value)
    assert message.startswith("orders[3]@88112: ")
    assert part in message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_with_their_index(number: float) -> None:
    flat = [0.0, 0.0, 0.0, 0.0, number, 0.0]
    assert "features[1, 1]" in refusal(pack(features=flat), decoder("msgpack"))
    assert "features[1, 1]" in refusal(struct.pack("<6f", *flat), decoder("tensor"))
    assert "features[1, 1]" in refusal(",".join(["", *map(str, flat), "", ""]).encode(), decoder("csv"))


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ((("shape", b"3,2"),), "header 'shape' is b'3,2', expected b'2,3'"),
        ((("shape", b"99999999999999,9"),), "header 'shape'"),
        ((("dtype", b"O"),), "header 'dtype' is b'O', expected one of <f4"),
        ((("dtype", b"<f8"),), "the value has 24 bytes, expected 48 for <f8"),
        ((("label", b"cat"),), "header 'label' is b'cat'"),
        ((("time", b"x"),), "header 'time' is b'x'"),
        ((("context", b""),), "header 'context' is b''"),
        ((("id", b"\xff"),), "header 'id' is b'\\xff'"),
    ],
)
def test_wrong_tensor_headers_are_refused(headers: Headers, part: str) -> None:
    assert part in refusal(TENSOR, decoder("tensor"), headers)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"a,1,2", "the line has 3 columns, expected 9"),
        (b"", "the line has 0 columns, expected 9"),
        (b"a,1,2,3,4,5,x,7,1", "field 'f' is 'x', expected a number"),
        (b"a,1,2,3,4,5,1_0,7,1", "field 'f' is '1_0', expected a number"),
        (b"a,1,2,3,4,5,,7,1", "field 'f' is '', expected a number"),
        (b"a,1,2,3,4,5,6,7,soon", "field 'time' is 'soon'"),
        (b'a,1,2,3,4,5,6,"7,1', "no line of CSV"),
        (b"\xff", "no line of CSV in UTF-8"),
    ],
)
def test_wrong_lines_are_refused(line: bytes, part: str) -> None:
    assert part in refusal(line, decoder("csv"))


@pytest.mark.parametrize("format_", list(decode.FORMATS))
def test_a_value_of_more_than_max_bytes_is_refused_before_it_is_parsed(format_: str) -> None:
    assert "has 51 bytes, expected at most 50" in refusal(b"x" * 51, decoder(format_, max_bytes=50))


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("field", [b"features", b"label", b"id", b"time", b"other"])
def test_lengths_that_lie_allocate_nothing(head: bytes, field: bytes) -> None:
    """The worst case: each level claims as many items as bytes follow, which a parser that trusts it allocates."""
    claim = head[:1] + struct.pack(">I", 1 << 20)
    value = b"\x82" + bytes([0xA0 + len(field)]) + field + claim * 900 + bytes(1 << 20)
    how, began = decoder("msgpack"), time.monotonic()
    tracemalloc.start()
    refusal(value, how)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert time.monotonic() - began < 2.0
    refusal(b"\x82" + bytes([0xA0 + len(field)]) + field + head, how)


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        (b"application/json", text()),
        (b"Application/JSON; charset=utf-8", text()),
        (b"application/msgpack", pack()),
        (b"application/x-msgpack", pack()),
        (b"application/vnd.msgpack", pack()),
        (b"application/x-tensor", TENSOR),
        (b"text/csv", LINE),
        (b"avro/binary", avro()),
        (b"application/avro", avro()),
        (b"application/protobuf", protobuf()),
        (b"application/x-protobuf", protobuf()),
    ],
)
def test_a_record_that_says_what_it_is_goes_to_that_decoder(content_type: bytes, value: bytes) -> None:
    for default in decode.FORMATS:
        assert decoded(value, decoder(default), (("content-type", content_type),))[1] == NUMBERS


def test_a_content_type_that_is_not_known_leaves_it_to_the_configuration() -> None:
    assert decoded(pack(), decoder("msgpack"), (("content-type", b"text/plain"),))[1] == NUMBERS


@pytest.mark.parametrize("format_", ["avro", "protobuf"])
def test_a_format_without_its_schema_or_its_package_is_a_configuration_error(
    format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=rf"decode.{format_}.* is (empty|missing): expected"):
        decode.decoder_for(decode.Settings(format=format_), SHAPE)  # type: ignore[arg-type]
    for name in ("fastavro", "google.protobuf", f"streamlearn.decode.{format_}"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"streamlearn.decode.{format_}")
    with pytest.raises(ConfigError, match=rf"decode.{format_} needs a package .* pip install 'streamlearn\[{format_}\]'"):
        decoder(format_, **{name: {} for name in ("avro", "protobuf") if name != format_})


def test_csv_without_columns_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="columns is missing"):
        decode.decoder_for(decode.Settings(format="csv"), SHAPE)
    with pytest.raises(ConfigError, match="names 1 features, expected 6"):
        decoder("csv", csv={"columns": ["a", "label"]})
    with pytest.raises(ConfigError, match="names 'z'"):
        decoder("csv", csv={"columns": ["a", "label"], "features": ["z"]})


FORMATS = {"json": json_format, "msgpack": msgpack_format, "tensor": tensor_format}
LABELS = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
)
FEATURES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6)


@pytest.mark.parametrize("format_", list(FORMATS))
@given(
    numbers=FEATURES,
    label=LABELS,
    id_=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    t=st.none() | st.integers(0, 2**42),
)
@settings(max_examples=200, deadline=None)
def test_what_is_encoded_comes_back(format_: str, numbers: list[float], label: object, id_: str | None, t: int | None) -> None:
    x = np.array(numbers, np.float32).reshape(SHAPE)
    message: Message = FORMATS[format_].encode(x, label, id_=id_, time_ms=t, context=4)
    out = np.empty(SHAPE, np.float32)
    sample = decoder(format_).decode(Record("a[0]", 0, message.value, message.key, message.headers, message.time_ms), out)
    assert sample == Sample(label, id_, t, 4)  # type: ignore[arg-type]
    assert type(sample.label) is type(label)
    assert out.tobytes() == x.tobytes()


def test_arrays_of_other_types_are_not_encoded_as_tensors() -> None:
    with pytest.raises(ValueError, match="complex"):
        tensor_format.encode(np.zeros(3, complex))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["features", "label", "id", "time", "x"]), inner)
    ),
    max_leaves=12,
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["content-type", "shape", "dtype", "label", "id", "time", "context"]), st.binary(max_size=12)),
    max_size=4,
)


def survives(how: Decoder, value: bytes | None, headers: Headers = ()) -> None:
    """Either a sample, finite and well typed, or a DecodeError."""
    out = np.zeros(SHAPE, np.float32)
    try:
        sample = how.decode(Record("a[0]", 0, value, None, headers), out)
    except DecodeError:
        return
    assert np.isfinite(out).all()
    assert sample.label is None or type(sample.label) in (str, int)
    assert sample.label is None or str(sample.label).encode() is not None


@pytest.mark.parametrize("format_", list(decode.FORMATS))
@given(value=st.none() | st.binary(max_size=200), headers=HEADERS)
@settings(max_examples=500, deadline=None)
def test_no_bytes_raise_anything_but_a_decode_error(
    format_: str, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    survives(decoder(format_), value, tuple(headers))


@given(value=JSON)
@settings(max_examples=500, deadline=None)
def test_no_document_raises_anything_but_a_decode_error(value: object) -> None:
    for features in (value, NUMBERS):
        document = {"features": features, "label": value, "id": value, "time": value, "context": value}
        survives(decoder("json"), json.dumps(document).encode())
        if not _huge(value):
            survives(decoder("msgpack"), msgspec.msgpack.encode(document))


def _huge(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_huge, value))
    if isinstance(value, dict):
        return any(map(_huge, value.values()))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@pytest.mark.parametrize("format_", list(decode.FORMATS))
def test_twenty_thousand_damaged_records_raise_nothing_but_decode_errors(format_: str) -> None:
    """Right records with a few bytes changed, cut short or made longer: closer to what really arrives than noise."""
    rng = np.random.default_rng(7)
    told = {"label": "a", "id": "b", "time": 1}
    right = {"json": text(**told), "msgpack": pack(**told), "tensor": TENSOR, "csv": LINE}
    right |= {"avro": avro(**told), "protobuf": protobuf(**told)}
    how, original = decoder(format_), np.frombuffer(right[format_], np.uint8)
    for _ in range(5000):
        damaged = original.copy()
        damaged[rng.integers(0, len(damaged), rng.integers(1, 4))] = rng.integers(0, 256)
        cut = int(rng.integers(0, 2 * len(damaged)))
        survives(how, damaged.tobytes())
        survives(how, damaged.tobytes()[:cut])
        survives(how, damaged.tobytes() + rng.bytes(4))
        survives(how, rng.bytes(int(rng.integers(0, 64))))


@pytest.mark.parametrize("format_", list(decode.FORMATS))
def test_decoding_depends_on_nothing_but_the_record(format_: str) -> None:
    right = {"json": text(label=1), "msgpack": pack(label=1), "tensor": TENSOR, "csv": LINE, "avro": avro(label=1)}
    right["protobuf"] = protobuf(label="1")
    how = decoder(format_)
    first = decoded(right[format_], how)
    refusal(b"\x00\x01", how)
    assert decoded(right[format_], how) == first == decoded(right[format_], decoder(format_))
