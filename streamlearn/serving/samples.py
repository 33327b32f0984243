"""Samples that came by HTTP: checked like those of any stream, then written durably where the configured source reads.

What is written is what was sent, byte for byte, so that the log says what happened; the loop decodes it like any other record.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, TypeAlias

import msgspec

from streamlearn.errors import SinkError
from streamlearn.protocols import Sink
from streamlearn.records import Message
from streamlearn.serving.open_inference import RequestError, finite_rows, numbers

WriteSamples: TypeAlias = Callable[[Sequence[Message]], None]
"""Returns once these are durable; blocks, and is always called from one thread. Errors: SinkError."""

HEADERS = (("content-type", b"application/json"),)


def read_samples(body: bytes, *, shape: tuple[int, ...], max_rows: int) -> list[Message]:
    """One message for each sample of a JSON object or a list of them: `{features, label, id?, time?, context?}`.

    Errors  RequestError (400) naming the sample and what is wrong with it; then none of them is taken.
    """
    try:
        given = _LIST.decode(body) if body.lstrip()[:1] == b"[" else [_ONE.decode(body)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not 1 <= len(given) <= max_rows:
        raise RequestError(f"found {len(given)} samples, expected 1 to {max_rows} in one request")
    return [_message(raw, i, shape) for i, raw in enumerate(given)]


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


_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Sample(msgspec.Struct):
    """As the stream's JSON decoder takes it, but that here the label must be there."""

    features: msgspec.Raw
    label: _Text | _Integer
    id: _Text | _Integer | None = None
    time: _Integer | None = None
    context: _Integer | None = None


_ONE = msgspec.json.Decoder(msgspec.Raw)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_SAMPLE = msgspec.json.Decoder(_Sample)


def _message(raw: msgspec.Raw, row: int, shape: tuple[int, ...]) -> Message:
    try:
        sample = _SAMPLE.decode(raw)
        finite_rows(numbers(sample.features, "FP64", shape)[None])
    except (msgspec.MsgspecError, RequestError, RecursionError) as error:
        raise RequestError(f"sample {row}: {error}") from error
    return Message(bytes(raw), None if sample.id is None else str(sample.id).encode(), HEADERS)
