"""One tensor for each named column ↔ rows. Pure.

A tensor has shape [n], or [n, 1]. Numbers come as any numeric datatype; categories as BYTES, or as integers, each of which is
the category of its decimal text. A value is missing that is null in JSON, NaN in a tensor of floats, or empty text; a
tensor that is left out is missing in every row. Where a column may not miss a value, all of these are refused.
"""

from collections.abc import Mapping, Sequence
from types import GenericAlias
from typing import Any

import msgspec
import numpy as np

from streamlearn.records import Array, Json
from streamlearn.schema import Cell, Column, Schema
from streamlearn.serving.tensors import DTYPES, Input, RequestError

TEXT = "BYTES"


def named_inputs(schema: Schema) -> list[dict[str, Json]]:
    """What a model's metadata says of its inputs."""
    datatypes = {"numeric": "FP32", "categorical": TEXT}
    return [{"name": column.name, "datatype": datatypes[column.kind], "shape": [-1]} for column in schema.columns]


def named_rows(inputs: Sequence[Input], binary: bytes, *, schema: Schema, max_rows: int) -> Array:
    """float32 [n, columns]. Errors: RequestError (400) that names the tensor."""
    rows = _count(inputs, max_rows)
    cells = {given.name: _cells(given, part, rows) for given, part in _parted(inputs, binary)}
    known = {column.name for column in schema.columns}
    if schema.unknown == "refuse" and (strange := [name for name in cells if name not in known]):
        raise RequestError(
            f"inputs: found {strange[0][:40]!r}, expected columns of the model: {', '.join(sorted(known))[:200]}"
        )
    x = np.empty((rows, len(schema.columns)), np.float32)
    for j, column in enumerate(schema.columns):
        x[:, j] = _values(column, cells.get(column.name, [None] * rows))
    return x


def _values(column: Column, cells: Sequence[Cell]) -> Array:
    try:
        return column.values(cells)
    except ValueError as error:
        raise RequestError(f"input {error}") from error


def _count(inputs: Sequence[Input], max_rows: int) -> int:
    """Rows, of which all tensors have as many."""
    names = [given.name for given in inputs]
    if not inputs or len(set(names)) < len(names):
        raise RequestError(
            f"inputs: found {len(inputs)} tensors, expected one for each column, at least one, none of them twice"
        )
    rows = inputs[0].shape[0] if inputs[0].shape else 0
    if not 1 <= rows <= max_rows:
        raise RequestError(f"'{names[0][:40]}' has {rows} rows, expected 1 to {max_rows} in one request")
    for given in inputs:
        if given.shape not in ([rows], [rows, 1]):
            raise RequestError(f"'{given.name[:40]}' has shape {given.shape[:10]}, expected [{rows}], as '{names[0][:40]}' has")
        if given.datatype != TEXT and given.datatype not in DTYPES:
            raise RequestError(
                f"'{given.name[:40]}' has datatype {given.datatype[:20]!r}, expected {TEXT}, {', '.join(DTYPES)}"
            )
    return rows


def _parted(inputs: Sequence[Input], binary: bytes) -> list[tuple[Input, bytes | None]]:
    """Each tensor with its bytes after the JSON, in order; None for one that stands in the JSON."""
    parts: list[tuple[Input, bytes | None]] = []
    at = 0
    for given in inputs:
        size = given.parameters.get("binary_data_size")
        if size is None:
            parts.append((given, None))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - at or bytes(given.data):
            left = len(binary) - at
            raise RequestError(
                f"'{given.name[:40]}' has binary_data_size {str(size)[:20]}, expected at most {left}, and no 'data'"
            )
        parts.append((given, binary[at : at + size]))
        at += size
    if at != len(binary):
        raise RequestError(f"{len(binary)} bytes follow the JSON, the inputs' binary_data_size make {at}")
    return parts


def _cells(given: Input, part: bytes | None, rows: int) -> Sequence[Cell]:
    try:
        found = _in_json(given) if part is None else _in_bytes(given.datatype, part)
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise RequestError(f"'{given.name[:40]}' does not fit {given.datatype}: {error}") from error
    if len(found) != rows:
        raise RequestError(f"'{given.name[:40]}' holds {len(found)} values, expected {rows}")
    return found


def _in_json(given: Input) -> Sequence[Cell]:
    kind = "BYTES" if given.datatype == TEXT else DTYPES[given.datatype].kind
    if len(given.shape) == 2 and bytes(given.data).lstrip()[1:].lstrip().startswith(b"["):
        return [cell for line in _NESTED[kind].decode(given.data) for cell in line]
    found: list[Cell] = _FLAT[kind].decode(given.data)
    return found


def _in_bytes(datatype: str, part: bytes) -> Sequence[Cell]:
    if datatype != TEXT:
        found: list[Cell] = np.frombuffer(part, DTYPES[datatype]).tolist()
        return found
    texts, at = [], 0
    while at < len(part):
        size = int.from_bytes(part[at : at + 4], "little")
        end = at + 4 + size
        if end > len(part):
            raise ValueError(f"a text of {size} bytes begins {len(part) - at} bytes before the end")
        texts.append(part[at + 4 : end].decode())
        at = end
    return texts


_CELLS: Mapping[str, Any] = {"BYTES": str | None, "f": float | None, "i": int | None, "u": int | None, "b": bool | None}
_FLAT = {kind: msgspec.json.Decoder(GenericAlias(list, cell)) for kind, cell in _CELLS.items()}
_NESTED = {kind: msgspec.json.Decoder(GenericAlias(list, GenericAlias(list, cell))) for kind, cell in _CELLS.items()}
