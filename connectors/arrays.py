"""Rows of arrays as tensor records: the value is the raw little-endian array, its shape, type and label stand in headers."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn.errors import SourceError
from streamlearn.records import Array, Headers

CONTENT_TYPE = ("content-type", b"application/x-tensor")


class Rows:
    """The rows of an npz file with the inputs under one name and, where it has them, the labels under another."""

    def __init__(self, path: Path, *, inputs: str, labels: str) -> None:
        """Errors: OSError, SourceError when the file does not hold what was asked for."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                if inputs not in arrays:
                    raise SourceError(f"{path} has arrays {', '.join(arrays)}, expected '{inputs}' among them")
                self._x = plain(arrays[inputs])
                self._y = arrays.get(labels)
        except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} is no npz file of numbers and strings: {error}") from error
        if not self._x.ndim:
            raise SourceError(f"{path} has one number as '{inputs}', expected rows")
        if self._y is not None and self._y.shape != self._x.shape[:1]:
            raise SourceError(f"{path} has {len(self._x)} inputs, but labels of shape {list(self._y.shape)}")
        self._next = 0

    def seek(self, row: int) -> bool:
        """The next row read has this number. False when the file has fewer rows before it."""
        self._next = row
        return row <= len(self._x)

    def read(self, n: int) -> list[tuple[bytes, Headers]]:
        """Up to n rows as values and headers of tensor records."""
        rows = range(self._next, min(self._next + n, len(self._x)))
        self._next = rows.stop
        return [tensor(self._x[i], None if self._y is None else self._y[i].item()) for i in rows]

    def count(self) -> int:
        """Rows in the file."""
        return len(self._x)

    def close(self) -> None:
        """Let go of the arrays."""
        self._x = self._x[:0]


def tensor(array: Array, label: Any = None) -> tuple[bytes, Headers]:
    """Value and headers of one tensor record; the array is little-endian already, as `plain` makes it."""
    headers: Headers = (CONTENT_TYPE, ("shape", ",".join(map(str, array.shape)).encode()), ("dtype", array.dtype.str.encode()))
    return array.tobytes(), headers if label is None else (*headers, ("label", json.dumps(label).encode()))


def plain(array: Array) -> Array:
    """Little-endian; truth values as bytes 0 and 1."""
    return array.astype(np.uint8) if array.dtype == bool else array.astype(array.dtype.newbyteorder("<"), copy=False)
