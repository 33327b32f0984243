"""One snapshot as one safetensors file: arrays, label map and settings together, so that no reader can mix two of them.

Written here rather than by the safetensors library because a follower maps the file, checks every length and a digest over all
of it before it believes one, and puts the arrays where they are aligned; the library's own readers open the same file.
"""

import hashlib
import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from streamlearn.errors import SnapshotError
from streamlearn.records import Answering, Array, Json, Snapshot
from streamlearn.schema import Schema

FILE = "snapshot.safetensors"
SCHEMA = "4"


def write(snapshot: Snapshot, folder: Path) -> Path:
    """The snapshot as `folder/snapshot.safetensors`, replaced in one step. Not flushed to disk: checkpoints are for that.

    Errors  SnapshotError when the file cannot be written; the one before it stays.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in snapshot.answering.arrays.items()}
    header = _header(snapshot, arrays)
    beside, path = folder / f".{FILE}.tmp", folder / FILE
    try:
        with beside.open("wb") as file:
            file.write(header)
            for name in _order(arrays):
                file.write(_data(arrays[name]))
        beside.replace(path)
    except OSError as error:
        raise SnapshotError(f"{path} cannot be written ({error}); the snapshot before it stays") from error
    return path


def read(path: Path) -> Snapshot:
    """The snapshot of a file, its arrays mapped read-only.

    Errors  SnapshotError when the file is absent, torn, altered, or of another schema.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _parse(memoryview(mapped))
    except (OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise SnapshotError(f"{path} is not a snapshot: {error}") from error


_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[_Count]
    data_offsets: tuple[_Count, _Count]


class _Metadata(msgspec.Struct, forbid_unknown_fields=True):
    """safetensors allows text values only, so the structured ones are JSON in text."""

    schema: str
    number: str
    form: str
    settings: str
    labels: str
    shape: str
    published_ms: str
    positions: str
    schema_of_columns: str
    sets: str
    digest: str = ""


_HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR = msgspec.json.Decoder(_Tensor)
_METADATA = msgspec.json.Decoder(_Metadata)
_LABELS = msgspec.json.Decoder(tuple[str | int, ...])
_SHAPE = msgspec.json.Decoder(tuple[Annotated[int, msgspec.Meta(ge=1)], ...])
_NUMBER = msgspec.json.Decoder(_Count)
_SETTINGS = msgspec.json.Decoder(dict[str, Any])
_POSITIONS = msgspec.json.Decoder(dict[str, int])
_SETS = msgspec.json.Decoder(dict[str, float])
_SCHEMA = msgspec.json.Decoder(Schema | None)


def _header(snapshot: Snapshot, arrays: Mapping[str, Array]) -> bytes:
    metadata = _Metadata(
        schema=SCHEMA,
        number=str(snapshot.number),
        form=snapshot.answering.form,
        settings=_text(dict(snapshot.answering.settings)),
        labels=_text(list(snapshot.labels)),
        shape=_text(list(snapshot.shape)),
        published_ms=str(snapshot.published_ms),
        positions=_text(dict(snapshot.positions)),
        schema_of_columns=_text(snapshot.schema),
        sets=_text({str(coverage): threshold for coverage, threshold in snapshot.sets.items()}),
    )
    tensors = _table(arrays)
    metadata.digest = _digest(metadata, tensors, [_data(arrays[name]) for name in _order(arrays)])
    text = msgspec.json.encode({"__metadata__": metadata, **tensors})
    text += b" " * (-(8 + len(text)) % 64)  # the arrays then begin aligned, in the file and so in memory
    return len(text).to_bytes(8, "little") + text


def _table(arrays: Mapping[str, Array]) -> dict[str, _Tensor]:
    tensors, begin = {}, 0
    for name in _order(arrays):
        array = arrays[name]
        if array.dtype not in _NAMES:
            raise SnapshotError(f"array '{name}' of a snapshot has dtype {array.dtype}: expected one of {', '.join(_DTYPES)}")
        tensors[name] = _Tensor(_NAMES[array.dtype], list(array.shape), (begin, begin + array.nbytes))
        begin += array.nbytes
    return tensors


def _order(arrays: Mapping[str, Array]) -> list[str]:
    return sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # wide first keeps each one aligned


def _data(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _parse(view: memoryview) -> Snapshot:
    if len(view) < 8:
        raise ValueError(f"{len(view)} bytes, expected at least 8")
    size = int.from_bytes(view[:8], "little")
    if size > len(view) - 8:
        raise ValueError(f"its header claims {size} bytes, the file has {len(view)}")
    entries = _HEADER.decode(view[8 : 8 + size])
    metadata = _METADATA.decode(entries.pop("__metadata__", msgspec.Raw(b"{}")))
    if metadata.schema != SCHEMA:
        raise ValueError(
            f"written by schema {metadata.schema[:20]!r}, this program reads {SCHEMA!r}: use the same version on both sides"
        )
    tensors = {name: _TENSOR.decode(entry) for name, entry in entries.items()}
    data = view[8 + size :]
    _check_cover(tensors, len(data))
    digest, metadata.digest = metadata.digest, ""
    if digest != _digest(metadata, tensors, [data]):
        raise ValueError("its bytes do not match its digest")
    return _snapshot(metadata, {name: _array(tensor, data) for name, tensor in tensors.items()})


def _check_cover(tensors: Mapping[str, _Tensor], size_bytes: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise ValueError(f"array '{name[:40]}' has the unknown dtype {tensor.dtype[:20]!r}")
        length = math.prod(tensor.shape) * np.dtype(dtype).itemsize
        if tensor.data_offsets != (end, end + length):
            raise ValueError(f"array '{name[:40]}' lies at {tensor.data_offsets}, expected {(end, end + length)}")
        end += length
    if end != size_bytes:
        raise ValueError(f"its arrays take {end} bytes, the file holds {size_bytes}")


def _array(tensor: _Tensor, data: memoryview) -> Array:
    begin, end = tensor.data_offsets
    return np.frombuffer(data[begin:end], _DTYPES[tensor.dtype]).reshape(tensor.shape)


def _snapshot(metadata: _Metadata, arrays: Mapping[str, Array]) -> Snapshot:
    return Snapshot(
        number=_NUMBER.decode(metadata.number),
        answering=Answering(metadata.form, arrays, _SETTINGS.decode(metadata.settings)),
        labels=_LABELS.decode(metadata.labels),
        shape=_SHAPE.decode(metadata.shape),
        published_ms=_NUMBER.decode(metadata.published_ms),
        positions=_POSITIONS.decode(metadata.positions),
        schema=_SCHEMA.decode(metadata.schema_of_columns),
        sets={float(coverage): threshold for coverage, threshold in _SETS.decode(metadata.sets).items()},
    )


def _digest(metadata: _Metadata, tensors: Mapping[str, _Tensor], data: Sequence[memoryview]) -> str:
    """Of all that the file says but itself, so that a torn or altered file is noticed wherever it was changed."""
    digest = hashlib.blake2b(msgspec.json.encode((metadata, sorted(tensors.items()))), digest_size=16)
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _text(value: Json) -> str:
    return msgspec.json.encode(value).decode()
