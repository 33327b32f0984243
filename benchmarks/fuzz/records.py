"""Records to decode: right ones in every spelling that a format allows, and what becomes of them when something is broken."""

import base64
import io
import json
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

import fastavro
import msgpack

from benchmarks.fuzz import schemas
from streamlearn.records import Headers

Fuzzed = tuple[bytes, Headers]

TRICKY = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "inf",
        "1e999",
        "-1e999",
        "1e38",
        "3.5e38",
        "1e-50",
        "-0",
        "-0.0",
        "01",
        "0x10",
        "1_0",
    ),
    *("1.", ".5", "+1", "1e", "1e+5", "1E5", "9007199254740993", "18446744073709551616", "-9223372036854775809", "1" * 400),
    *(
        "true",
        "null",
        '"1"',
        "[]",
        "{}",
        "[[1]]",
        "١",
        "１",
        " 1",
        "1 ",
        "\t1",
        '"\\ud800"',
        '"\\u0000"',
        '"é"',
        "1/2",
        "--1",
        "",
    ),
    *("1.7976931348623157e308", "4.9e-324", "16777217", "0.1", "3.4028235677973366e38", "1e-46"),
)
DEEP = (b"[" * 3000, b'{"a":' * 1500, b"\x91" * 3000, b"\x81\xa1a" * 900)
LIES = (  # MessagePack: lengths that nothing stands behind
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"),
    *(b"\xdd\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff", b"\xc5\xff\xff", b"\xda\xff\xff"),
)


def fuzzed(format_: str, draw: random.Random) -> Fuzzed:
    """A right record in three of ten, a broken one otherwise."""
    value, headers = RIGHT[format_](draw)
    if draw.random() < 0.3:
        return value, headers
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        value = draw.choice(BREAKS)(value, draw)
    if headers and draw.random() < 0.5:
        headers = _broken_headers(headers, draw)
    return value, headers


def sample(draw: random.Random) -> dict[str, Any]:
    """Fields of a record, most of them right."""
    numbers = [_number(draw) for _ in range(6)]
    told: dict[str, Any] = {"features": numbers if draw.random() < 0.5 else [numbers[:3], numbers[3:]]}
    for name in ("label", "id", "time", "context"):
        if draw.random() < 0.6:
            told[name] = _scalar(draw) if name in ("label", "id") else draw.choice((0, -1, 2**62, draw.getrandbits(40)))
    if draw.random() < 0.2:
        told["more"] = draw.choice(([1, {"a": [None]}], "text", 1.5, {"features": [1]}, {}))
    items = list(told.items())
    draw.shuffle(items)
    return dict(items)


def in_json(draw: random.Random) -> Fuzzed:
    """Spaces and escapes as they come."""
    style: Mapping[str, Any] = draw.choice(({}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}))
    text = json.dumps(sample(draw), **style)
    if draw.random() < 0.2:
        text = text.replace("0", draw.choice(TRICKY), 1)
    return text.encode("utf-8", "surrogatepass"), ()


def in_msgpack(draw: random.Random) -> Fuzzed:
    """Features as numbers of either width, or as bytes."""
    told = sample(draw)
    if draw.random() < 0.5:
        numbers = [draw.gauss(0, 1) for _ in range(6)]
        told["features"] = struct.pack("<6f", *numbers)
    narrow = draw.random() < 0.5
    try:
        value = msgpack.packb(told, use_single_float=narrow)
    except OverflowError:  # a number beyond 32 bits has one width only
        value = msgpack.packb(told)
    return value, ()


def in_csv(draw: random.Random) -> Fuzzed:
    """Some cells quoted."""
    cells = [str(_scalar(draw)), *(repr(_number(draw)) for _ in range(6)), str(_scalar(draw)), str(draw.getrandbits(40))]
    if draw.random() < 0.3:
        cells[draw.randrange(9)] = draw.choice(TRICKY)
    quoted = [
        '"' + cell.replace('"', '""') + '"' if draw.random() < 0.3 or set(cell) & set(',"\r\n') else cell for cell in cells
    ]
    return ",".join(quoted).encode(), ()


def in_tensor(draw: random.Random) -> Fuzzed:
    """Any type, and headers in any order."""
    name, kind = draw.choice(list(zip(b"<f4 <f8 <f2 |u1 |i1 <u2 <i2 <u4 <i4 <u8 <i8".split(), "fdeBbHhIiQq", strict=True)))
    bits = draw.randbytes(6 * struct.calcsize(f"<{kind}"))
    value = struct.pack(f"<6{kind}", *(draw.gauss(0, 1) for _ in range(6))) if kind in "fde" and draw.random() < 0.7 else bits
    told = [("dtype", name)] if draw.random() < 0.9 else []
    told += [("shape", draw.choice((b"2,3", b"2, 3", b" 2,3 ")))] if draw.random() < 0.5 else []
    told += [("label", json.dumps(_scalar(draw)).encode())] if draw.random() < 0.7 else []
    told += [("id", str(_scalar(draw)).encode())] if draw.random() < 0.4 else []
    told += [(key, str(draw.getrandbits(40)).encode()) for key in ("time", "context") if draw.random() < 0.4]
    draw.shuffle(told)
    return value, tuple(told)


def in_avro(draw: random.Random) -> Fuzzed:
    """With and without the record that nobody asks for."""
    told = dict.fromkeys(("label", "id", "time", "context", "more")) | sample(draw)
    more: Any = None
    for _ in range(draw.choice((0, 0, 1, 3))):
        tags = {"é" * draw.randint(0, 3): draw.choice((None, "x", "y" * 70)) for _ in range(draw.randint(0, 2))}
        flag, kind, small = draw.random() < 0.5, draw.choice("abc"), draw.randint(-(2**31), 2**31 - 1)
        raw = draw.randbytes(draw.randint(0, 5))
        more = {
            "flag": flag,
            "kind": kind,
            "small": small,
            "tags": tags,
            "nothing": [],
            "three": b"abc",
            "raw": raw,
            "inner": more,
        }
    told |= {"features": [float(each) for each in _flattened(told["features"])], "more": more}
    if told["context"] is not None:
        told["context"] = draw.randint(-(2**31), 2**31 - 1)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _AVRO, told)
    return out.getvalue(), ()


def in_protobuf(draw: random.Random) -> Fuzzed:
    """Each field there or not."""
    told, message = sample(draw), schemas.message()()
    message.features.extend(float(each) for each in _flattened(told["features"]))
    for name in ("label", "id"):
        if name in told:
            setattr(message, name, str(told[name]))
    if "time" in told:
        message.time = told["time"]
    if "context" in told:
        message.context = draw.randint(-(2**31), 2**31 - 1)
    return message.SerializeToString(), ()


def in_cloudevents(draw: random.Random) -> Fuzzed:
    """Around JSON, as it is or in base64."""
    inner = sample(draw)
    told: dict[str, Any] = {"specversion": "1.0", "id": "e" * draw.randint(1, 1100), "source": "/a", "type": "b", "data": inner}
    if draw.random() < 0.3:
        told["data_base64"] = base64.b64encode(json.dumps(told.pop("data")).encode()).decode()
    if draw.random() < 0.6:
        zone = draw.choice(("Z", "z", "+02:00", "-23:59", "+24:00"))
        fraction = draw.choice(("", ".5", ".123456789", "."))
        told["time"] = (
            f"{draw.randint(0, 9999):04}-{draw.randint(0, 13):02}-{draw.randint(1, 31):02}T23:59:{draw.randint(0, 60):02}"
        )
        told["time"] += fraction + zone
    told |= draw.choice(({}, {"subject": "x"}, {"datacontenttype": "application/json"}, {"more": [1]}, {"specversion": "0.3"}))
    items = list(told.items())
    draw.shuffle(items)
    return json.dumps(dict(items)).encode(), ()


_AVRO = fastavro.parse_schema(schemas.AVRO)


def _flattened(features: Any) -> list[Any]:
    return [each for row in features for each in row] if isinstance(features[0], list) else list(features)


RIGHT: Mapping[str, Callable[[random.Random], Fuzzed]] = {
    "json": in_json,
    "msgpack": in_msgpack,
    "csv": in_csv,
    "tensor": in_tensor,
    "avro": in_avro,
    "protobuf": in_protobuf,
    "cloudevents": in_cloudevents,
}


def _number(draw: random.Random) -> float | int:
    return draw.choice(
        (draw.gauss(0, 1), draw.gauss(0, 1e6), draw.randint(-1000, 1000), 0, draw.gauss(0, 1) * 10.0 ** draw.randint(-44, 38))
    )


def _scalar(draw: random.Random) -> str | int:
    return draw.choice(
        (draw.randint(-5, 5), draw.getrandbits(62), "cat", "a b", 'q"uote', "é\u2028,", "7", "x" * draw.randint(1, 1100))
    )


def _flip(value: bytes, draw: random.Random) -> bytes:
    if not value:
        return value
    at = draw.randrange(len(value))
    return value[:at] + bytes([value[at] ^ (1 << draw.randrange(8))]) + value[at + 1 :]


def _cut(value: bytes, draw: random.Random) -> bytes:
    return value[: draw.randrange(len(value) + 1)]


def _drop(value: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(value) + 1)
    return value[:at] + value[at + draw.randint(1, 4) :]


def _repeat(value: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(value) + 1)
    return value[:at] + value[at : at + draw.randint(1, 30)] * draw.randint(2, 4) + value[at:]


def _insert(value: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(value) + 1)
    piece = draw.choice(
        (draw.randbytes(draw.randint(1, 8)), draw.choice(TRICKY).encode(), draw.choice(LIES), draw.choice(DEEP))
    )
    return value[:at] + piece + value[at + draw.choice((0, 0, 1, len(piece))) :]


def _wrap(value: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"[%b]", b" %b \n", b"\xef\xbb\xbf%b", b"%b%b", b"\x00%b", b"%b\x00", b"%b}", b"%b,")).replace(
        b"%b", value
    )


def _lie(value: bytes, draw: random.Random) -> bytes:
    return draw.choice(LIES) + (value if draw.random() < 0.5 else b"")


def _swell(value: bytes, draw: random.Random) -> bytes:
    return value + b" " * draw.choice((2048, 5000, 100_000))


BREAKS = (_flip, _flip, _flip, _cut, _drop, _repeat, _insert, _insert, _wrap, _lie, _swell)


def _broken_headers(headers: Headers, draw: random.Random) -> Headers:
    at = draw.randrange(len(headers))
    name, value = headers[at]
    broken = draw.choice(BREAKS)(value, draw) if draw.random() < 0.7 else draw.choice(TRICKY).encode()
    return (*headers[:at], (name, broken), *headers[at + 1 :])
