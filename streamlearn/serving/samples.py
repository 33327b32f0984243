"""Samples that came by HTTP: checked like those of any stream, then written durably where the configured source reads.

What is written is what was sent, byte for byte, so that the log says what happened; the loop decodes it like any other record.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from streamlearn.errors import SinkError
from streamlearn.protocols import Sink
from streamlearn.records import Message
from streamlearn.schema import Cell, Schema
from streamlearn.serving.tensors import RequestError, finite_rows, numbers

T = TypeVar("T")
WriteSamples: TypeAlias = Callable[[Sequence[Message]], None]
"""Returns once these are durable; blocks, and is always called from one thread. Errors: SinkError."""

HEADERS = (("content-type", b"application/json"),)


def read_samples(body: bytes, *, shape: tuple[int, ...], max_rows: int, schema: Schema | None = None) -> list[Message]:
    """One message for each sample of a JSON object or a list of them: `{features, label?, id?, time?, context?}`.

    One without a label needs an id, by which its label finds it later.

    Errors  RequestError (400) naming the sample and what is wrong with it; then none of them is taken.
    """
    try:
        given = one_or_many(body, _ONE, _LIST, what="samples", max_rows=max_rows)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    return [_message(raw, i, shape, schema) for i, raw in enumerate(given)]


def one_or_many(
    body: bytes, one: msgspec.json.Decoder[T], many: msgspec.json.Decoder[list[T]], *, what: str, max_rows: int
) -> list[T]:
    """A JSON object, or a list of them. Errors: RequestError (400) for how many there are; those of the decoders."""
    given = many.decode(body) if body.lstrip()[:1] == b"[" else [one.decode(body)]
    if not 1 <= len(given) <= max_rows:
        raise RequestError(f"found {len(given)} {what}, expected 1 to {max_rows} in one request")
    return given


class SampleSink:
    """A `WriteSamples` over a sink that is opened at the first write, in the writing thread, and again after it failed."""

    def __init__(self, open_sink: Callable[[], Sink], *, timeout_s: float = 10.0) -> None:
        self._open, self._timeout_s = open_sink, timeout_s
        self._sink: Sink | None = None

    def __call__(self, messages: Sequence[Message]) -> None:
        self._sink = self._sink or self._open()
        try:
            self._sink.write(messages)
            self._sink.flush(self._timeout_s)
        except SinkError:
            self.close()
            raise

    def close(self) -> None:
        """Called from the writing thread. May be called twice."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with suppress(SinkError):  # what was confirmed is durable; what was not, its sender knows
                sink.close()


Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Sample(msgspec.Struct):
    """As the stream's JSON decoder takes it, but that here a label is left out, not null, and only where there is an id."""

    features: msgspec.Raw
    label: Text | Integer | msgspec.UnsetType = msgspec.UNSET
    id: Text | Integer | None = None
    time: Integer | None = None
    context: Integer | None = None


_ONE = msgspec.json.Decoder(msgspec.Raw)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_SAMPLE = msgspec.json.Decoder(_Sample)


def _message(raw: msgspec.Raw, row: int, shape: tuple[int, ...], schema: Schema | None) -> Message:
    try:
        sample = _SAMPLE.decode(raw)
        if sample.label is msgspec.UNSET and sample.id is None:
            raise ValueError("has neither a label nor an id by which its label could find it later")
        if schema is None:
            finite_rows(numbers(sample.features, "FP64", shape)[None])
        else:
            _check_columns(sample.features, schema)
    except (msgspec.MsgspecError, RequestError, RecursionError, ValueError) as error:
        raise RequestError(f"sample {row}: {error}") from error
    return Message(bytes(raw), None if sample.id is None else str(sample.id).encode(), HEADERS)


def _check_columns(features: msgspec.Raw, schema: Schema) -> None:
    """As the stream's decoders will: by name, or all in order. Errors: ValueError, MsgspecError."""
    names = [column.name for column in schema.columns]
    if bytes(features).lstrip()[:1] == b"[":
        values = _CELLS.decode(features)
        if len(values) != len(names):
            raise ValueError(f"'features' has {len(values)} values, expected one for each of {len(names)} columns")
        schema.row(values)
        return
    found = _FIELDS.decode(features)
    if schema.unknown == "refuse" and (strange := [name for name in found if name not in names]):
        raise ValueError(f"'features' has the field {strange[0][:40]!r}, expected columns: {', '.join(names)[:200]}")
    cells = [found.get(name) for name in names]
    schema.row([None if cell is None else _CELL.decode(cell) for cell in cells])


_CELL = msgspec.json.Decoder(Cell)
_CELLS = msgspec.json.Decoder(list[Cell])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
