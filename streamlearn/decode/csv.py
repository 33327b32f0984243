"""CSV lines: one sample a line, its columns named in the configuration. What is quoted may hold commas, but no line breaks.

A line has no types: a label is a string, unless `label.type` is integer. An empty label, id or time is none, and so is an empty
value of a named column.
"""

import csv
from collections.abc import Sequence

import numpy as np

from streamlearn.decode.fields import INTEGER, Rules, refused, sample_of, value_of, write_cells, write_features
from streamlearn.errors import ConfigError
from streamlearn.records import Array, Record, Sample
from streamlearn.schema import Cell, shown
from streamlearn.settings import Section, key


class CsvDecoder:
    """Features are the named columns, in the order of the configuration."""

    class Settings(Section):
        """Columns of csv lines."""

        columns: tuple[str, ...] = key((), "names of a line's columns, in order")
        features: tuple[str, ...] = key((), "columns that are features, in order; left out, all that are nothing else")
        label: str | None = key("label", "column of the label; not needed in `columns`")
        id: str | None = key("id", "column of the sample's id; not needed in `columns`")
        time: str | None = key("time", "column of the event's time in ms since the epoch; not needed in `columns`")
        delimiter: str = key(",", "what stands between columns", min_length=1, max_length=1)

    def __init__(self, rules: Rules, settings: Settings) -> None:
        self._rules, self._settings, self._columns = rules, settings, list(settings.columns)
        others = {settings.label, settings.id, settings.time}
        named = () if rules.schema is None else tuple(column.name for column in rules.schema.columns)
        features = named or settings.features or tuple(name for name in settings.columns if name not in others)
        unknown = [name for name in features if name not in self._columns]
        if unknown:
            where = "input.columns" if named else "decode.csv.features"
            raise ConfigError(f"{where} names '{unknown[0]}', expected names of decode.csv.columns")
        if named and settings.features:
            raise ConfigError("decode.csv.features is given, expected nothing: input.columns names the features")
        if len(features) != int(np.prod(rules.shape)):
            raise ConfigError(
                f"decode.csv names {len(features)} features, expected {int(np.prod(rules.shape))} for the input's shape"
            )
        self._features = [(name, self._columns.index(name)) for name in features]
        self._categorical = {c.name for c in rules.schema.columns if c.kind == "categorical"} if rules.schema else set()
        self._label, self._id, self._time = (self._place(name) for name in (settings.label, settings.id, settings.time))

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        row = self._row(record)
        if self._rules.schema is None:
            found = np.fromiter((_number(record, name, row[i]) for name, i in self._features), np.float64, len(self._features))
            write_features(record, found, out, self._rules)
        else:
            write_cells(record, [self._cell(record, name, row[i]) for name, i in self._features], out, self._rules.schema)
        time_ms = _cell(row, self._time)
        if time_ms is not None and not INTEGER.fullmatch(time_ms):
            raise refused(record, f"field 'time' is {shown(time_ms)}, expected milliseconds since the epoch")
        return sample_of(
            record,
            self._rules,
            label=_cell(row, self._label),
            id_=_cell(row, self._id),
            time_ms=None if time_ms is None else int(time_ms),
            context=None,
        )

    def _cell(self, record: Record, name: str, text: str) -> Cell:
        return (text if name in self._categorical else _number(record, name, text)) if text else None

    def _row(self, record: Record) -> list[str]:
        try:
            line = value_of(record, self._rules).decode()
            rows = list(csv.reader([line], delimiter=self._settings.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise refused(record, f"the value is no line of CSV in UTF-8: {error}") from error
        if len(rows) != 1 or len(rows[0]) != len(self._columns):
            raise refused(record, f"the line has {len(rows[0]) if rows else 0} columns, expected {len(self._columns)}")
        return rows[0]

    def _place(self, name: str | None) -> int | None:
        return self._columns.index(name) if name in self._columns else None


def _cell(row: Sequence[str], at: int | None) -> str | None:
    return (row[at] or None) if at is not None else None


def _number(record: Record, name: str, text: str) -> float:
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError as error:
        raise refused(record, f"field '{name}' is {shown(text)}, expected a number") from error
