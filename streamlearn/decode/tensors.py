"""Tensor records: the value is the raw little-endian array, everything else stands in headers.

`shape` b"28,28" (left out: the configured one), `dtype` b"|u1" (left out: b"<f4"), `label` as a JSON scalar, b'7' or b'"cat"',
and as plain text `id`, `time` (milliseconds since the epoch) and `context`. Numbers are taken as they are, without scaling; of
named columns they are the values in order, NaN where one is missing, whole numbers for categories.
"""

from collections.abc import Mapping

import msgspec
import numpy as np

from streamlearn.decode.fields import INTEGER, Rules, Scalar, refused, sample_of, value_of, write_cells, write_features
from streamlearn.records import Array, Headers, Label, Message, Record, Sample
from streamlearn.schema import shown

DTYPES: Mapping[bytes, np.dtype[np.generic]] = {
    name: np.dtype(name.decode()) for name in b"<f4 <f8 <f2 |u1 |i1 <u2 <i2 <u4 <i4 <u8 <i8".split()
}
CONTENT_TYPE = ("content-type", b"application/x-tensor")
LONGEST_HEADER = 8192  # bytes of a label or an id


class TensorDecoder:
    """The value as an array, after its length, type and shape were compared with the headers."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._shape = ",".join(map(str, rules.shape)).encode()
        self._label = msgspec.json.Decoder(Scalar)

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        value, headers = value_of(record, self._rules), dict(record.headers)
        found = self._array(record, value, headers, out.size)
        if self._rules.schema is None:
            write_features(record, found, out, self._rules)
        else:
            write_cells(record, found.tolist(), out, self._rules.schema)
        return sample_of(
            record,
            self._rules,
            label=self._label_of(record, headers.get("label")),
            id_=_text(record, "id", headers.get("id")),
            time_ms=_integer(record, "time", headers.get("time")),
            context=_integer(record, "context", headers.get("context")),
        )

    def _array(self, record: Record, value: bytes, headers: Mapping[str, bytes], size: int) -> Array:
        shape, dtype = headers.get("shape", self._shape), headers.get("dtype", b"<f4")
        if shape.replace(b" ", b"") != self._shape:
            raise refused(record, f"header 'shape' is {shown(shape)}, expected {self._shape!r}")
        if dtype not in DTYPES:
            raise refused(record, f"header 'dtype' is {shown(dtype)}, expected one of {', '.join(n.decode() for n in DTYPES)}")
        expected = size * DTYPES[dtype].itemsize
        if len(value) != expected:
            raise refused(record, f"the value has {len(value)} bytes, expected {expected} for {dtype.decode()} of the shape")
        return np.frombuffer(value, DTYPES[dtype])

    def _label_of(self, record: Record, found: bytes | None) -> Scalar:
        if found is None:
            return None
        try:
            label: Scalar = self._label.decode(found[: LONGEST_HEADER + 1])
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise refused(record, f"header 'label' is {shown(found)}, expected a JSON string or integer") from error
        return label


def encode(
    features: Array,
    label: Label | None = None,
    *,
    id_: str | None = None,
    time_ms: int | None = None,
    context: int | None = None,
) -> Message:
    """A message that `TensorDecoder` reads back to the same numbers. Errors: ValueError for a type that is not taken."""
    array = np.ascontiguousarray(features, features.dtype.newbyteorder("<"))
    dtype = array.dtype.str.encode()
    if dtype not in DTYPES:
        raise ValueError(f"arrays of {array.dtype} cannot be sent, expected one of {', '.join(n.decode() for n in DTYPES)}")
    headers: Headers = (CONTENT_TYPE, ("shape", ",".join(map(str, array.shape)).encode()), ("dtype", dtype))
    if label is not None:
        headers += (("label", msgspec.json.encode(label)),)
    texts = {"id": id_, "time": time_ms, "context": context}
    headers += tuple((name, str(value).encode()) for name, value in texts.items() if value is not None)
    return Message(array.tobytes(), id_.encode() if id_ else None, headers, time_ms)


def _text(record: Record, name: str, found: bytes | None) -> str | None:
    if found is None:
        return None
    try:
        return found[: LONGEST_HEADER + 1].decode()
    except UnicodeDecodeError as error:
        raise refused(record, f"header '{name}' is {shown(found)}, expected text in UTF-8") from error


def _integer(record: Record, name: str, found: bytes | None) -> int | None:
    if found is None:
        return None
    text = found[:32].decode("ascii", "replace")
    if not INTEGER.fullmatch(text):
        raise refused(record, f"header '{name}' is {shown(found)}, expected an integer")
    return int(text)
