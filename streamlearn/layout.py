"""What the columns of a row are to those who learn from rows: numbers, gaps where a value may be missing, and categories.

A category appears in three ways, each a function of its bucket alone. As a line of a table, to linear members. As three of
`slots` inputs that are not 0, to networks: the weights of these inputs, which the network learns, are the category's embedding.
And as a place in [0, 1], in an order drawn by chance, to those who cut or measure columns. numpy only.

Source  Serrà and Karatzoglou 2017, Getting deep recommenders fit: Bloom embeddings. Steele, Lea, Flood 2014, SplitMix64.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array, Json
from streamlearn.schema import Schema

HASHES = 3
"""Inputs that one category sets: of 64 there are 45,760 choices, so hardly any two categories make the same."""


class Layout(NamedTuple):
    """Indices into a row. A column may have a gap and be a number or a category."""

    numeric: tuple[int, ...]
    gaps: tuple[int, ...]  # where a value may be missing
    categorical: tuple[int, ...] = ()
    buckets: tuple[int, ...] = ()  # of each categorical column
    slots: int = 64  # inputs of a network for each categorical column

    @classmethod
    def of(cls, schema: Schema) -> "Layout":
        """Of named columns."""
        columns = list(enumerate(schema.columns))
        return cls(
            numeric=tuple(i for i, column in columns if column.kind == "numeric"),
            gaps=tuple(i for i, column in columns if column.missing),
            categorical=tuple(i for i, column in columns if column.kind == "categorical"),
            buckets=tuple(column.buckets for column in schema.columns if column.kind == "categorical"),
            slots=schema.slots,
        )

    @classmethod
    def plain(cls, features: int, *, missing: bool) -> "Layout":
        """Of features without names, all numbers."""
        every = tuple(range(features))
        return cls(numeric=every, gaps=every if missing else ())

    @classmethod
    def read(cls, values: Mapping[str, Json]) -> "Layout":
        """What `values` gave."""
        indices = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**indices, slots=values["slots"])

    def values(self) -> dict[str, Json]:
        """For servers."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}

    @property
    def features(self) -> int:
        """Columns of a row; the squared length of a usual one as a network sees it, which its first weights are drawn for."""
        return len(self.numeric) + len(self.categorical)

    @property
    def dense(self) -> int:
        """Numbers and gaps."""
        return len(self.numeric) + len(self.gaps)

    @property
    def width(self) -> int:
        """Inputs of a network."""
        return self.dense + len(self.categorical) * self.slots

    @property
    def lines(self) -> int:
        """Lines of a table with one for each bucket of each column."""
        return sum(self.buckets)

    def learnable(self, x: Array) -> Array:
        """bool [n]: rows of which every value is finite, or missing where it may be."""
        optional = np.zeros(x.shape[1], bool)
        optional[list(self.gaps)] = True
        found: Array = np.asarray((np.isfinite(x) | (np.isnan(x) & optional)).all(1))
        return found

    def standardised(self, x: Array, mean: Array, gain: Array, clip: float) -> Array:
        """float32 [n, numeric]: numbers in deviations from their mean, bounded; 0 where one is missing."""
        numbers = x[:, list(self.numeric)]
        filled = np.where(np.isnan(numbers), mean, numbers)
        z: Array = ((filled - mean) * gain).clip(-clip, clip).astype(np.float32)
        return z

    def inputs(self, x: Array, z: Array) -> Array:
        """float32 [n, width]: what a network is given: standardised numbers, gaps, categories."""
        return np.concatenate([z, self.missing(x), self.embedded(self.codes(x))], axis=1, dtype=np.float32)

    def missing(self, x: Array) -> Array:
        """float32 [n, gaps]: 1 where a value that may be missing is."""
        gaps: Array = np.isnan(x[:, list(self.gaps)]).astype(np.float32)
        return gaps

    def codes(self, x: Array) -> Array:
        """int64 [n, categorical]: buckets; −1 where a category is missing, or is none."""
        given = x[:, list(self.categorical)]
        with np.errstate(invalid="ignore"):
            known = (given >= 0) & (given < np.array(self.buckets, np.float32))
        codes: Array = np.where(known, given, -1.0).astype(np.int64)
        return codes

    def table_lines(self, codes: Array) -> Array:
        """int64 [n, categorical]: each category's line in a table with one for each bucket; −1 where there is none."""
        starts = np.concatenate([[0], np.cumsum(self.buckets, dtype=np.int64)])[:-1]
        lines: Array = np.ascontiguousarray(np.where(codes < 0, -1, codes + starts), np.int64)
        return lines

    def embedded(self, codes: Array) -> Array:
        """float32 [n, categorical · slots]: each category as `HASHES` inputs, of length 1 unless two are one; none, as 0."""
        out = np.zeros((len(codes), len(self.categorical), self.slots), np.float32)
        rows, share = np.arange(len(codes)), np.float32(1.0 / math.sqrt(HASHES))
        for j in range(len(self.categorical)):
            mixed = _mixed(codes[:, j], j)
            for k in range(HASHES):
                slot = (mixed >> np.uint64(16 * k)) % np.uint64(self.slots)
                out[rows, j, slot.astype(np.int64)] += np.where(codes[:, j] < 0, np.float32(0.0), share)
        return out.reshape(len(codes), len(self.categorical) * self.slots)

    def places(self, codes: Array) -> Array:
        """float32 [n, categorical]: where each category stands in an order drawn by chance; ½ for none."""
        out = np.zeros(codes.shape, np.float32)
        for j in range(codes.shape[1]):
            place = (_mixed(codes[:, j], j) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
            out[:, j] = np.where(codes[:, j] < 0, np.float32(0.5), place)
        return out


_FIRST, _SECOND, _GOLDEN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


def _mixed(codes: Array, column: int) -> Array:
    """uint64 [n]: 64 well-mixed bits of each code in this column."""
    state = (codes.astype(np.uint64) + np.uint64(column << 32) + np.uint64(1)) * _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: Array = state ^ (state >> np.uint64(31))
    return mixed
