"""What a record says, by parsers that share nothing with the program's: the standard library's, `msgpack`, a slow one for CSV.

Each returns the sample and its features as float32, or raises `Refused`. The rules are the documentation's, written anew.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack

from benchmarks.fuzz import typed
from streamlearn.records import Headers

SHAPE = (2, 3)
SIZE = 6
MAX_BYTES = 2048
COLUMNS = ("id", "a", "b", "c", "d", "e", "f", "label", "time")


class Refused(Exception):  # noqa: N818  no error here: a verdict
    """The record is none; the message says why."""


class Found(NamedTuple):
    """What a record says."""

    features: bytes  # six little-endian float32
    label: str | int | None
    id: str | None
    time_ms: int | None
    context: int | None


def by_json(value: bytes, _: Headers) -> Found:
    """RFC 8259, by the standard library."""

    def no(word: str) -> None:
        raise Refused(f"{word} is no JSON")

    try:
        told = json.loads(value.decode("utf-8"), parse_constant=no)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    return _fields(told)


def by_msgpack(value: bytes, _: Headers) -> Found:
    """The `msgpack` package. Of a field that is not known the name need not be text, for it is not looked at."""
    try:
        told = msgpack.unpackb(value, raw=False, strict_map_key=False, unicode_errors="surrogateescape")
        _check_text(told if isinstance(told, dict) else {})
    except Exception as error:
        raise Refused(repr(error)) from error
    if isinstance(told, dict) and isinstance(told.get("features"), bytes):
        raw = told["features"]
        if len(raw) % 4:
            raise Refused("no whole number of floats")
        told = {**told, "features": list(struct.unpack(f"<{len(raw) // 4}f", raw))}
    return _fields(told)


def _check_text(told: dict[Any, Any]) -> None:
    """Errors: UnicodeEncodeError when a field holds what was no UTF-8."""
    for name, each in told.items():
        if name in ("features", "label", "id", "time", "context") and isinstance(each, str):
            each.encode()


def by_csv(value: bytes, _: Headers) -> Found:
    """RFC 4180, one character after the other."""
    try:
        cells = _cells(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refused(str(error)) from error
    if len(cells) != len(COLUMNS):
        raise Refused(f"{len(cells)} columns")
    row = dict(zip(COLUMNS, cells, strict=True))
    time = row["time"]
    if time and not re.fullmatch(r"[+-]?[0-9]{1,19}", time, re.ASCII):
        raise Refused("time")
    numbers = [_number(row[name]) for name in "abcdef"]
    return _sample(numbers, row["label"] or None, row["id"] or None, int(time) if time else None)


def by_tensor(value: bytes, headers: Headers) -> Found:
    """`struct`, header by header."""
    told = dict(headers)
    if told.get("shape", b"2,3").replace(b" ", b"") != b"2,3":
        raise Refused("shape")
    kind = KINDS.get(told.get("dtype", b"<f4"))
    if kind is None or len(value) != SIZE * struct.calcsize(f"<{kind}"):
        raise Refused("dtype or length")
    label = None
    if "label" in told:
        label = _scalar(told["label"])
    try:
        name = told["id"].decode() if "id" in told else None
    except UnicodeDecodeError as error:
        raise Refused("id") from error
    whole = {key: _whole(told[key]) if key in told else None for key in ("time", "context")}
    return _sample(list(struct.unpack(f"<{SIZE}{kind}", value)), label, name, whole["time"], whole["context"])


def by_avro(value: bytes, _: Headers) -> Found:
    """The schema of `schemas`."""
    return _fields(typed.avro(value, Refused))


def by_protobuf(value: bytes, _: Headers) -> Found:
    """The message of `schemas`."""
    told = typed.protobuf(value, Refused)
    return _fields(told | {"label": told.get("label") or None} if told.get("label") != "" else _no("label"))


def by_cloudevents(value: bytes, headers: Headers) -> Found:
    """A structured event with JSON in it."""
    data, id_, time = typed.event(value, Refused)
    found = by_json(data, headers)
    if found.id is None and len(id_) > 1024:
        _no("id")
    if time is not None and found.time_ms is None:
        found = found._replace(time_ms=typed.milliseconds(time, Refused))
    return found._replace(id=found.id or id_)


def _no(what: str) -> Any:
    raise Refused(what)


KINDS = dict(zip(b"<f4 <f8 <f2 |u1 |i1 <u2 <i2 <u4 <i4 <u8 <i8".split(), "fdeBbHhIiQq", strict=True))
PARSERS: Mapping[str, Callable[[bytes, Headers], Found]] = {
    "json": by_json,
    "msgpack": by_msgpack,
    "csv": by_csv,
    "tensor": by_tensor,
    "avro": by_avro,
    "protobuf": by_protobuf,
    "cloudevents": by_cloudevents,
}


def _scalar(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise Refused("label header") from error


def _not_json(word: str) -> None:
    raise ValueError(word)


def _whole(text: bytes) -> int:
    if not re.fullmatch(rb"[+-]?[0-9]{1,19}", text):
        raise Refused("no integer")
    return int(text)


def _cells(line: str) -> list[str]:
    cells, at = [], 0
    while True:
        cell, at = _quoted(line, at + 1) if line[at : at + 1] == '"' else _bare(line, at)
        cells.append(cell)
        if at == len(line):
            return cells
        if line[at] != ",":
            raise Refused("something behind a quoted cell")
        at += 1


def _quoted(line: str, at: int) -> tuple[str, int]:
    cell = ""
    while at < len(line):
        if line[at] == '"':
            if line[at + 1 : at + 2] != '"':
                return cell, at + 1
            at += 1
        cell += line[at]
        at += 1
    raise Refused("a quote that does not end")


def _bare(line: str, at: int) -> tuple[str, int]:
    end = line.find(",", at)
    end = len(line) if end < 0 else end
    cell = line[at:end]
    if "\n" in cell or "\r" in cell:
        raise Refused("a line break")
    return cell, end


def _number(text: str) -> float:
    if "_" in text:
        raise Refused("an underscore")
    try:
        return float(text)
    except ValueError as error:
        raise Refused("no number") from error


def _fields(told: Any) -> Found:
    if not isinstance(told, dict) or "features" not in told:
        raise Refused("no features")
    return _sample(_flat(told["features"]), *(told.get(name) for name in ("label", "id", "time", "context")))


def _flat(found: Any) -> list[float]:
    if not isinstance(found, list):
        raise Refused("features")
    if len(found) == SHAPE[0] and all(isinstance(row, list) and len(row) == SHAPE[1] for row in found):
        found = [number for row in found for number in row]
    if len(found) != SIZE or any(type(number) not in (int, float) for number in found):
        raise Refused("features")
    return list(found)


def _sample(numbers: list[Any], label: Any, id_: Any = None, time_ms: Any = None, context: Any = None) -> Found:
    packed = b""
    for number in numbers:
        try:
            if not math.isfinite(number):
                raise Refused("not finite")
            packed += struct.pack("<f", number)
        except OverflowError as error:
            raise Refused("too large for 32 bits") from error
    if label is not None and not (_is_text(label) or _is_int(label)):
        raise Refused("label")
    if id_ is not None and not (_is_text(id_) or _is_int(id_)):
        raise Refused("id")
    if not all(each is None or _is_int(each) for each in (time_ms, context)):
        raise Refused("time or context")
    return Found(packed, label, None if id_ is None else str(id_), time_ms, context)


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and 0 < len(found) <= 1024


def _is_int(found: Any) -> bool:
    return type(found) is int and -(2**63) <= found < 2**63
