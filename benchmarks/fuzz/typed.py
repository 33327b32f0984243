"""Independent readers of Avro, Protobuf and CloudEvents: slow, one byte after the other, written from the specifications."""

import base64
import calendar
import json
import re
import struct
from collections.abc import Callable
from typing import Any

from benchmarks.fuzz.schemas import AVRO

Fail = Callable[[str], Exception]


class Bytes:
    """What is left to read. Errors: what `fail` makes."""

    def __init__(self, value: bytes, fail: Fail) -> None:
        self.value, self.at, self.fail = value, 0, fail

    @property
    def left(self) -> int:
        """Bytes that nobody has read."""
        return len(self.value) - self.at

    def take(self, n: int) -> bytes:
        """The next n."""
        if not 0 <= n <= self.left:
            raise self.fail(f"{n} of {self.left} bytes")
        self.at += n
        return self.value[self.at - n : self.at]

    def varint(self, most: int = 10) -> int:
        """Seven bits a byte, the last one without the eighth."""
        digits: list[int] = []
        while not digits or digits[-1] > 127:
            if len(digits) == most:
                raise self.fail("a varint that does not end")
            digits += self.take(1)
        return sum((each & 127) << (7 * i) for i, each in enumerate(digits))


def avro(value: bytes, fail: Fail) -> dict[str, Any]:
    """A value of the schema `AVRO`, and nothing behind it."""
    data, named = Bytes(value, fail), dict[str, Any]()
    try:
        found = _avro(AVRO, data, named)
    except (UnicodeDecodeError, RecursionError) as error:
        raise fail(str(error)) from error
    if data.left:
        raise fail("something behind it")
    return dict(found)


def _avro(schema: Any, data: Bytes, named: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        branch = _zigzag(data)
        if branch not in range(len(schema)):
            raise data.fail("branch")
        return _avro(schema[branch], data, named)
    if isinstance(schema, dict):
        named |= {schema["name"]: schema} if "name" in schema else {}
        kind = schema["type"]
        if kind == "record":
            return {each["name"]: _avro(each["type"], data, named) for each in schema["fields"]}
        if kind == "enum":
            symbol = _zigzag(data)
            if symbol not in range(len(schema["symbols"])):
                raise data.fail("symbol")
            return schema["symbols"][symbol]
        return data.take(schema["size"]) if kind == "fixed" else _many(schema, data, named)
    return _avro(named[schema], data, named) if schema in named else _PLAIN[schema](data)


def _many(schema: Any, data: Bytes, named: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    while count := _zigzag(data):
        end = None
        if count < 0:
            size = _zigzag(data)
            count, end = -count, data.at + size
        if count > data.left or schema.get("items") == "null":
            raise data.fail("more items than bytes")
        for _ in range(count):
            if schema["type"] == "map":
                _text(data)
            found.append(_avro(schema["items" if schema["type"] == "array" else "values"], data, named))
        if end not in (None, data.at):
            raise data.fail("size of a block")
    return found


def _zigzag(data: Bytes, bits: int = 64) -> int:
    found = data.varint()
    if found >= 2**64:
        raise data.fail("64 bits")
    number = found // 2 if found % 2 == 0 else -(found // 2) - 1
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise data.fail(f"{bits} bits")
    return number


def _text(data: Bytes) -> str:
    return data.take(_zigzag(data)).decode("utf-8")


def _flag(data: Bytes) -> bool:
    found = data.take(1)
    if found not in (b"\0", b"\1"):
        raise data.fail("boolean")
    return found == b"\1"


_PLAIN: dict[str, Callable[[Bytes], Any]] = {
    "null": lambda _: None,
    "boolean": _flag,
    "int": lambda data: _zigzag(data, 32),
    "long": _zigzag,
    "double": lambda data: struct.unpack("<d", data.take(8))[0],
    "bytes": lambda data: data.take(_zigzag(data)),
    "string": _text,
}


def protobuf(value: bytes, fail: Fail) -> dict[str, Any]:
    """The message of `PROTO`; a field that it has not, or of another wire type, is refused."""
    data, told = Bytes(value, fail), dict[str, Any](features=[], id="")
    while data.left:
        tag = data.varint(5)
        if tag >= 2**32:
            raise fail("tag")
        if tag == 0x09:
            told["features"] += struct.unpack("<d", data.take(8))
        elif tag == 0x0A:
            packed = data.take(data.varint())
            if len(packed) % 8:
                raise fail("packed doubles")
            told["features"] += struct.unpack(f"<{len(packed) // 8}d", packed)
        elif tag in (0x12, 0x1A):
            try:
                told["label" if tag == 0x12 else "id"] = data.take(data.varint()).decode("utf-8")
            except UnicodeDecodeError as error:
                raise fail(str(error)) from error
        elif tag == 0x20:
            whole = data.varint() % 2**64
            told["time"] = whole - 2**64 if whole >= 2**63 else whole
        elif tag == 0x28:
            whole = data.varint() % 2**32
            told["context"] = whole // 2 if whole % 2 == 0 else -(whole // 2) - 1
        else:
            raise fail(f"tag {tag}")
    return told | {"id": told["id"] or None}


def event(value: bytes, fail: Fail) -> tuple[bytes, str, str | None]:
    """Data, id and time of a CloudEvent in JSON."""

    def no(word: str) -> None:
        raise fail(f"{word} is no JSON")

    try:
        told = json.loads(value.decode("utf-8"), parse_constant=no)
    except (ValueError, RecursionError) as error:
        raise fail(str(error)) from error
    if not isinstance(told, dict):
        raise fail("no object")
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(told.get(name), str) or not told[name]:
            raise fail(name)
    if told["specversion"] != "1.0":
        raise fail("version")
    for name in ("time", "datacontenttype", "data_base64"):
        if not isinstance(told.get(name, ""), str | None):
            raise fail(name)
    if (told.get("data") is None) == (told.get("data_base64") is None):
        raise fail("data")
    if told.get("data_base64") is not None:
        try:
            return base64.b64decode(told["data_base64"], validate=True), told["id"], told.get("time")
        except ValueError as error:
            raise fail(str(error)) from error
    return json.dumps(told["data"]).encode(), told["id"], told.get("time")


def milliseconds(text: str, fail: Fail) -> int:
    """RFC 3339."""
    found = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|([+-])([0-9]{2}):([0-9]{2}))",
        text,
    )
    if not found:
        raise fail("time")
    year, month, day, hour, minute, second = (int(each) for each in found.groups()[:6])
    try:
        days = calendar.monthrange(year, month)[1] if year else 0
    except (calendar.IllegalMonthError, ValueError) as error:
        raise fail("month") from error
    away = (int(found[10]), int(found[11])) if found[9] else (0, 0)
    if not 1 <= day <= days or hour > 23 or minute > 59 or second > 59 or away[0] > 23 or away[1] > 59:
        raise fail("time of day")
    shift_s = (60 * away[0] + away[1]) * (-60 if found[9] == "-" else 60)
    fraction = int(((found[7] or ".")[1:] + "000")[:3])
    return 1000 * (calendar.timegm((year, month, day, hour, minute, second)) - shift_s) + fraction
