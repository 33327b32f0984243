"""Records that are no samples: labels that come late, and answers that were served.

The header `streamlearn-kind` says `label` or `answer`; JSON and MessagePack may say `"kind": "label"` instead.
A label is `{"id": …, "label": …, "time"?: …}`, in JSON or MessagePack by its content type; an answer is written by the servers.
"""

from typing import Annotated, Any

import msgspec
import numpy as np

from streamlearn.decode.fields import Rules, Scalar, header, refused, sample_of, value_of, write_features
from streamlearn.protocols import Decoder
from streamlearn.records import KIND, LABEL, Array, Given, Label, Message, Record, Sample
from streamlearn.schema import shown

MOST_LABELS = 1 << 20


class _Label(msgspec.Struct):
    id: Scalar
    label: Scalar
    time: Scalar = None


class _Answer(msgspec.Struct):
    id: str
    features: bytes
    number: Annotated[int, msgspec.Meta(ge=0)]
    label: str | int
    probabilities: bytes
    time: int | None = None


class _Kind(msgspec.Struct):
    kind: Any = None


_JSON, _MSGPACK = msgspec.json.Decoder(_Label), msgspec.msgpack.Decoder(_Label)
_ANSWER = msgspec.msgpack.Decoder(_Answer)
_KINDS: dict[bool, Any] = {False: msgspec.json.Decoder(_Kind), True: msgspec.msgpack.Decoder(_Kind)}


class ByKind:
    """Labels and answers are decoded here, samples by the decoder of their format."""

    def __init__(self, samples: Decoder, rules: Rules, *, format_: str) -> None:
        self._samples, self._rules, self._format = samples, rules, format_

    def decode(self, record: Record, out: Array) -> Sample:
        """Errors: DecodeError."""
        kind = header(record, KIND) if record.headers else None
        if kind is None:
            is_label = record.value is not None and b"kind" in record.value and self._says_label(record, record.value)
            return self._label(record) if is_label else self._samples.decode(record, out)
        if kind == b"label":
            return self._label(record)
        if kind == b"answer":
            return self._answer(record, out)
        raise refused(record, f"header '{KIND}' is {shown(kind)}, expected label")

    def _is_msgpack(self, record: Record) -> bool:
        found = (header(record, "content-type") or b"").partition(b";")[0]
        return b"msgpack" in found or (not found and self._format == "msgpack")

    def _says_label(self, record: Record, value: bytes) -> bool:
        if self._format not in ("json", "msgpack") or len(value) > self._rules.max_bytes:
            return False
        try:
            return bool(_KINDS[self._is_msgpack(record)].decode(value).kind == "label")
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return False

    def _label(self, record: Record) -> Sample:
        decoder: Any = _MSGPACK if self._is_msgpack(record) else _JSON
        try:
            found = decoder.decode(value_of(record, self._rules))
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise refused(record, f"the value is no late label: {error}") from error
        if found.id is None or found.label is None:
            raise refused(record, "field 'id' or 'label' is null, expected both in a late label")
        sample = sample_of(record, self._rules, label=found.label, id_=found.id, time_ms=found.time, context=None)
        return sample._replace(kind="label")

    def _answer(self, record: Record, out: Array) -> Sample:
        try:
            found = _ANSWER.decode(value_of(record, self._rules))
            features, probabilities = np.frombuffer(found.features, "<f4"), np.frombuffer(found.probabilities, "<f4")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise refused(record, f"the value is no served answer: {error}") from error
        if not 1 <= len(probabilities) <= MOST_LABELS or not np.isfinite(probabilities).all():
            raise refused(record, f"the served answer has {len(probabilities)} probabilities, expected one or more finite ones")
        if self._rules.schema is None:
            write_features(record, features, out, self._rules)
        elif features.shape == out.shape:
            out[...] = features  # what is missing is NaN there too
        else:
            raise refused(
                record, f"the served answer has {len(features)} features, expected one for each of {len(out)} columns"
            )
        sample = sample_of(record, self._rules, label=None, id_=found.id, time_ms=found.time, context=None)
        with np.errstate(divide="ignore"):
            logits = np.log(probabilities)
        return sample._replace(kind="answer", given=Given(found.number, logits, is_served=True, label=found.label))


def encode(id_: str, label: Label, *, time_ms: int | None = None) -> Message:
    """A late label as a message."""
    values = {"id": id_, "label": label} | ({} if time_ms is None else {"time": time_ms})
    return Message(msgspec.json.encode(values), id_.encode(), LABEL)
