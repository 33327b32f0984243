"""Tensors of a request ↔ arrays: JSON numbers, flat or nested, or raw bytes after the JSON. Pure.

Source  kserve/open-inference-protocol, inference_rest; the binary extension as Triton describes it (`binary_data_size`).
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from streamlearn.errors import StreamlearnError
from streamlearn.records import Array

INPUT = "features"
DTYPES: Mapping[str, "np.dtype[Any]"] = {
    "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "FP16": np.dtype("<f2"), "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
}  # fmt: skip


class RequestError(StreamlearnError):
    """Handled by `http`: the answer is `status` and `{"error": message}`."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


GONE = 499
"""Of a question that nobody waits for any more; nginx gives it the same number."""


def status_of(error: BaseException | None) -> int:
    """What a question that ended so is counted as."""
    if isinstance(error, asyncio.CancelledError):
        return GONE
    return 200 if error is None else error.status if isinstance(error, RequestError) else 500


Parameters = dict[str, Any]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Input(msgspec.Struct):
    """An input tensor as it came."""

    name: str
    shape: list[_Size]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: Parameters = {}


def features(given: Input, binary: bytes, *, shape: tuple[int, ...], max_rows: int) -> Array:
    """float32 [n, *shape] of the one tensor that holds arrays. Errors: RequestError (400)."""
    if given.datatype not in DTYPES:
        raise RequestError(f"'{INPUT}' has datatype {given.datatype[:20]!r}, expected one of {', '.join(DTYPES)}")
    if tuple(given.shape[1:]) != shape or not given.shape:
        expected = ", ".join(map(str, ("n", *shape)))
        raise RequestError(f"'{INPUT}' has shape {given.shape[:10]}, expected [{expected}]")
    if not 1 <= given.shape[0] <= max_rows:
        raise RequestError(f"'{INPUT}' has {given.shape[0]} rows, expected 1 to {max_rows} in one request")
    if "binary_data_size" in given.parameters:
        return finite_rows(from_bytes(given, binary).reshape(given.shape))
    if binary:
        raise RequestError(f"{len(binary)} bytes follow the JSON, but '{INPUT}' has no 'binary_data_size'")
    return finite_rows(numbers(given.data, given.datatype, tuple(given.shape)))


def numbers(data: msgspec.Raw, datatype: str, shape: tuple[int, ...]) -> Array:
    """JSON numbers, in a flat list or nested like `shape`, as an array of it. Errors: RequestError (400)."""
    depth, dtype = _depth(data), DTYPES[datatype]
    if depth not in {1, len(shape)} or depth > _DEEPEST:
        raise RequestError(f"'{INPUT}' is nested {depth} deep, expected a flat list of numbers, or one nested like its shape")
    kind = {"f": float, "b": bool}.get(dtype.kind, int)
    try:
        found = np.array(_DATA[kind, depth].decode(data), np.float64 if kind is float else dtype)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise RequestError(f"'{INPUT}' does not fit {datatype} of shape {list(shape)}: {error}") from error
    if found.shape != (shape if depth > 1 else (math.prod(shape),)):
        raise RequestError(f"'{INPUT}' holds numbers of shape {list(found.shape)}, expected {list(shape)}")
    return found.reshape(shape)


def finite_rows(found: Array) -> Array:
    """The same as float32. Errors: RequestError (400) naming the first row that is not finite then."""
    with np.errstate(over="ignore"):
        x = found.astype(np.float32)
    finite = np.isfinite(x)
    if np.count_nonzero(finite) < finite.size:
        row = int(finite.reshape(len(x), -1).all(axis=1).argmin())
        raise RequestError(f"'{INPUT}' row {row} holds a value that is not finite as a 32-bit float")
    return x


def from_bytes(given: Input, binary: bytes) -> Array:
    """Flat, of its datatype: all that follows the JSON. Errors: RequestError (400)."""
    dtype, size = DTYPES[given.datatype], given.parameters["binary_data_size"]
    expected = math.prod(given.shape) * dtype.itemsize
    if size != expected or isinstance(size, bool):
        raise RequestError(f"'{given.name[:40]}' has binary_data_size {str(size)[:20]}, its shape and datatype need {expected}")
    if len(binary) != expected or bytes(given.data):
        raise RequestError(f"{len(binary)} bytes follow the JSON, expected {expected}, and no 'data' beside them")
    return np.frombuffer(binary, np.uint8) != 0 if dtype.kind == "b" else np.frombuffer(binary, dtype)


def _depth(data: msgspec.Raw) -> int:
    """How many lists open before the first value."""
    depth = 0
    for byte in memoryview(data):
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


_DEEPEST = 8


def _nested(kind: type, depth: int) -> Any:
    return kind if depth == 0 else list[_nested(kind, depth - 1)]  # type: ignore[misc]  # a type made at run time


_DATA = {
    (kind, depth): msgspec.json.Decoder(_nested(kind, depth)) for kind in (float, int, bool) for depth in range(1, _DEEPEST + 1)
}
