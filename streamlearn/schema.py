"""Named columns: what a record may hold, and how one value on the wire becomes one number of a row.

Numbers stay as they are. A category becomes the bucket that its text hashes to, so that no list of categories is kept and one
that was never met before has a place already: of k categories in b buckets about 1 − exp(−(k − 1)/b) share theirs with another,
and two that share one are one to everything that learns. A missing value is NaN. numpy only: servers read requests with it.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

INT64 = range(-(1 << 63), 1 << 63)
MOST_BUCKETS = 1 << 24
"""float32 holds every whole number up to here."""
LONGEST_CATEGORY = 1024  # characters

Cell: TypeAlias = str | int | float | bool | None
"""One value on the wire."""


class Column(NamedTuple):
    """One named column of a row."""

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    missing: bool = True  # whether a value may be missing
    buckets: int = 0  # that categories are hashed into; 0 where there are none

    def values(self, cells: Sequence[Cell]) -> NDArray[np.float32]:
        """float32 [n] for values of this column. Errors: ValueError: `'NAME' is …, expected …`."""
        if self.kind == "numeric" and all(cell is None or type(cell) in (int, float) for cell in cells):
            found = np.array(cells, np.float64)
            if (np.abs(found) <= _GREATEST).all() or (self.missing and not (np.abs(found) > _GREATEST).any()):
                return found.astype(np.float32)
        return np.array([_number(self, cell) for cell in cells], np.float32)


class Schema(NamedTuple):
    """The columns of a row, in order."""

    columns: tuple[Column, ...]
    unknown: Literal["refuse", "ignore"] = "refuse"  # what becomes of fields that are no column
    slots: int = 64  # inputs that a network has for each categorical column

    def row(self, cells: Sequence[Cell]) -> NDArray[np.float32]:
        """float32 [columns] for values in the columns' order. Errors: ValueError: `'NAME' is …, expected …`."""
        found = [_number(column, value) for column, value in zip(self.columns, cells, strict=True)]
        return np.array(found, np.float32)


@lru_cache(1 << 16)
def bucket(text: str, buckets: int) -> int:
    """Where a category's text falls: the first 64 bits of BLAKE2b of its UTF-8, modulo `buckets`. The same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") % buckets


def shown(found: Any) -> str:
    """What was found, short."""
    text = repr(found) if not isinstance(found, int) or found in INT64 else "an integer of more than 64 bits"
    return text if len(text) <= 40 else text[:37] + "..."


def _number(column: Column, found: Cell) -> float:
    if column.kind == "categorical":
        text = _category(column, found)
        return math.nan if text is None else float(bucket(text, column.buckets))
    if found is None or _is_nan(found):
        return _missing(column, found)
    if type(found) in (int, float) and abs(found) <= _GREATEST:  # type: ignore[arg-type]  # bool and text are other types
        return float(found)
    raise ValueError(_refusal(column, found))


def _category(column: Column, found: Cell) -> str | None:
    """As text, so that 3, 3.0 and "3" are one category, as 3 and "3" are in a line of CSV; None where it is missing."""
    if found is None or found == "" or _is_nan(found):
        _missing(column, found)
        return None
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, int) and found in INT64:
        return str(found)
    if isinstance(found, str) and len(found) <= LONGEST_CATEGORY:
        return found
    raise ValueError(_refusal(column, found))


def _is_nan(found: Cell) -> bool:
    return isinstance(found, float) and math.isnan(found)


def _missing(column: Column, found: Cell) -> float:
    if not column.missing:
        raise ValueError(_refusal(column, found))
    return math.nan


def _refusal(column: Column, found: Any) -> str:
    what = "missing" if found is None or found == "" or _is_nan(found) else shown(found)
    return f"'{column.name}' is {what}, expected {_EXPECTED[column.kind]}" + (" or nothing" if column.missing else "")


_GREATEST = float(np.finfo(np.float32).max)
_EXPECTED = {
    "numeric": "a finite number of 32 bits",
    "categorical": f"text of at most {LONGEST_CATEGORY} characters or an integer of 64 bits",
}
