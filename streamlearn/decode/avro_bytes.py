"""Whether bytes are a value of an Avro schema, to the last one.

fastavro trusts what it reads: index −1 of an enum is its last symbol there, an integer of 90 bits is cut, what follows the
value is passed over, and an array of nulls takes as much memory as its count says. This walks over the bytes first.

Source  Apache Avro 1.12 specification, Binary Encoding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

Walk: TypeAlias = Callable[[bytes, int], int]
"""Where the value that begins at this place ends. Errors: IndexError when the bytes end before; ValueError; RecursionError."""


def walk(schema: Any, named: dict[str, Walk] | None = None) -> Walk:
    """Of a schema as fastavro's `parse_schema` returns it."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return partial(_union, [walk(each, named) for each in schema])
    if isinstance(schema, str):
        return PRIMITIVE[schema] if schema in PRIMITIVE else partial(_named, named, schema)
    kind = schema["type"]
    if kind in ("record", "error"):
        walked = partial(_record, [walk(each["type"], named) for each in schema["fields"]])
    elif kind == "enum":
        walked = partial(_enum, len(schema["symbols"]))
    elif kind == "fixed":
        walked = partial(_bytes, schema["size"])
    elif kind == "array":
        return partial(_blocks, walk(schema["items"], named))
    elif kind == "map":
        return partial(_blocks, partial(_record, [_text, walk(schema["values"], named)]))
    else:
        return walk(kind, named)
    named[schema["name"]] = walked
    return walked


def integer(value: bytes, at: int) -> tuple[int, int]:
    """A zig-zag integer of 64 bits, and where it ends."""
    found = shift = 0
    while True:
        byte = value[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            break
    if found >> 64 or byte >= 0x80:
        raise ValueError("an integer of more than 64 bits")
    return (found >> 1) ^ -(found & 1), at


def _named(named: dict[str, Walk], name: str, value: bytes, at: int) -> int:
    return named[name](value, at)  # which may be one that this one is in


def _long(value: bytes, at: int) -> int:
    return integer(value, at)[1]


def _int(value: bytes, at: int) -> int:
    found, at = integer(value, at)
    if not -(1 << 31) <= found < 1 << 31:
        raise ValueError(f"an int is {found}")
    return at


def _boolean(value: bytes, at: int) -> int:
    if value[at] > 1:
        raise ValueError(f"a boolean is {value[at]}")
    return at + 1


def _bytes(size: int, value: bytes, at: int) -> int:
    if not 0 <= size <= len(value) - at:
        raise ValueError(f"{size} bytes are announced where {len(value) - at} follow")
    return at + size


def _text(value: bytes, at: int) -> int:
    size, at = integer(value, at)
    return _bytes(size, value, at)


def _record(fields: list[Walk], value: bytes, at: int) -> int:
    for field in fields:
        at = field(value, at)
    return at


def _union(branches: list[Walk], value: bytes, at: int) -> int:
    index, at = integer(value, at)
    if not 0 <= index < len(branches):
        raise ValueError(f"branch {index} of a union of {len(branches)}")
    return branches[index](value, at)


def _enum(symbols: int, value: bytes, at: int) -> int:
    index, at = integer(value, at)
    if not 0 <= index < symbols:
        raise ValueError(f"symbol {index} of an enum of {symbols}")
    return at


def _blocks(item: Walk, value: bytes, at: int) -> int:
    """Of an array or a map; an item takes a byte at least, so that no count can ask for more than what is there."""
    while True:
        count, at = integer(value, at)
        if count == 0:
            return at
        end = None
        if count < 0:
            size, at = integer(value, at)
            count, end = -count, at + size
        if count > len(value) - at:
            raise ValueError(f"{count} items are announced where {len(value) - at} bytes follow")
        width = WIDTHS.get(item)
        at = _items(item, count, value, at) if width is None else _bytes(count * width, value, at)
        if end not in (None, at):
            raise ValueError("a block of items does not end where it says")


def _items(item: Walk, count: int, value: bytes, at: int) -> int:
    for _ in range(count):
        before, at = at, item(value, at)
        if at == before:
            raise ValueError("items that take no bytes")
    return at


def _nothing(_: bytes, at: int) -> int:
    return at


_FLOAT, _DOUBLE = partial(_bytes, 4), partial(_bytes, 8)
WIDTHS: dict[Any, int] = {_FLOAT: 4, _DOUBLE: 8}
PRIMITIVE: dict[str, Walk] = {
    "null": _nothing,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "float": _FLOAT,
    "double": _DOUBLE,
    "bytes": _text,
    "string": _text,
}
