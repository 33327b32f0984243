"""The sample of formats with a schema: fields by name, already of the types that the schema gives them.

Either `features` beside `label`, `id`, `time` and `context`, as in JSON, or, with named columns, a flat record: what is none of
those four is a column.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from streamlearn.decode.fields import Rules, refused, sample_of, write_cells, write_features
from streamlearn.decode.wire import numbers
from streamlearn.records import Array, Record, Sample
from streamlearn.schema import Schema, shown

BESIDE = ("label", "id", "time", "context")


def sample_from(record: Record, found: Mapping[str, Any], out: Array, rules: Rules) -> Sample:
    """Errors: DecodeError."""
    beside = {name: plain(found.get(name)) for name in BESIDE}
    if isinstance(found.get("time"), datetime) and found["time"].tzinfo is None:
        raise refused(record, "field 'time' is a local time, expected one with a time zone, or milliseconds since the epoch")
    if rules.schema is not None:
        write_cells(record, _cells(record, found, rules.schema), out, rules.schema)
    elif found.get("features") is None:
        raise refused(record, "field 'features' is missing, expected an array: input.shape is configured, not input.columns")
    else:
        write_features(record, numbers(record, _plain_numbers(record, found["features"])), out, rules)
    return sample_of(record, rules, label=beside["label"], id_=beside["id"], time_ms=beside["time"], context=beside["context"])


def plain(found: Any) -> Any:
    """A value of a logical type as text or number: times in milliseconds since the epoch, days in days."""
    if isinstance(found, datetime):
        since = found.replace(tzinfo=found.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400_000) + since.seconds * 1000 + since.microseconds // 1000
    if isinstance(found, date):
        return (found - date(1970, 1, 1)).days
    if isinstance(found, Decimal):
        return float(found)
    return str(found) if isinstance(found, UUID) else found


def _cells(record: Record, found: Mapping[str, Any], schema: Schema) -> list[Any]:
    columns = [column.name for column in schema.columns]
    features = found.get("features")
    if isinstance(features, list):
        return [plain(cell) for cell in features]
    if not isinstance(features, Mapping) and (features is None or "features" in columns):
        taken = sorted({*columns} & {*BESIDE})
        if taken:
            raise refused(record, f"column '{taken[0]}' bears the name of a field of its own, expected it under 'features'")
        features = {
            name: value for name, value in found.items() if name not in BESIDE and (name != "features" or name in columns)
        }
    if not isinstance(features, Mapping):
        raise refused(record, f"field 'features' is {shown(features)}, expected a record of columns, or an array of them")
    unknown = sorted({*features} - {*columns})
    if unknown and schema.unknown == "refuse":
        raise refused(record, f"field '{unknown[0]}' is no column: expected those of input.columns, or input.unknown: ignore")
    return [plain(features.get(name)) for name in columns]


def _plain_numbers(record: Record, found: Any) -> Any:
    """Lists hold numbers or lists; true is no number, nor is text that looks like one."""
    if isinstance(found, bytes):
        return found
    if not isinstance(found, list):
        raise refused(record, f"field 'features' is {shown(found)}, expected an array or bytes")
    inner = {type(each) for each in found}
    if inner == {list}:
        return [_plain_numbers(record, each) for each in found]
    if not inner <= {int, float}:
        wrong = next(each for each in found if type(each) not in (int, float))
        raise refused(record, f"field 'features' holds {shown(wrong)}, expected numbers alone")
    return found
