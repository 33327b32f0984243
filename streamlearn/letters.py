"""Dead letters: list them, show one, mend it, send it again. `streamlearn dlq`, beside a running daemon or without one.

A letter is sent to the source it came from, with its own key, headers and time, and a header that names its place. The loop
learns each place once, so sending a letter twice is harmless.
"""

from collections.abc import Iterator
from typing import NamedTuple

from streamlearn.admit import CONNECT, REPLAYS
from streamlearn.errors import ConfigError
from streamlearn.protocols import Sink, Source
from streamlearn.records import Json, Message, Record


class Letter(NamedTuple):
    """A record that could not be learned."""

    place: str
    stage: str
    reason: str
    record: Record  # as the sink of dead letters holds it

    def facts(self) -> dict[str, Json]:
        """All about it; bytes that are no text are shown as Python writes them."""
        headers = {name: _text(value) for name, value in self.record.headers if not name.startswith(CONNECT)}
        value = _text(self.record.value or b"")
        return {"place": self.place, "stage": self.stage, "reason": self.reason, "headers": headers, "value": value}

    def again(self, mended: bytes | None = None) -> Message:
        """The record as it was, or with a mended value. What was a replay itself stands for the same record as that did."""
        headers = dict(self.record.headers)
        own = tuple(
            (n, v) for n, v in self.record.headers if not n.startswith(CONNECT) and n not in ("key", "tombstone", REPLAYS)
        )
        value = self.record.value or b"" if mended is None else mended
        return Message(
            value, headers.get("key"), (*own, (REPLAYS, headers.get(REPLAYS, self.place.encode()))), self.record.time_ms
        )


def letters(source: Source) -> Iterator[Letter]:
    """All that the sink of dead letters holds, oldest first; each once, though a sink may hold it twice after a crash."""
    source.seek({})
    seen: set[str] = set()
    try:
        ends = source.ends()
        while any(source.positions().get(name, 0) < end for name, end in ends.items()):
            for letter in map(_letter, source.poll(500, 1.0)):
                if letter.place not in seen:
                    seen.add(letter.place)
                    yield letter
    finally:
        source.close()


def send_again(source: Source, sink: Sink, *, places: list[str], mended: bytes | None = None) -> list[str]:
    """Send letters, all or those of `places`; returns what was sent, durable. Errors: ConfigError for an unknown place."""
    chosen = [letter for letter in letters(source) if not places or letter.place in places]
    missing = sorted(set(places) - {letter.place for letter in chosen})
    if missing:
        raise ConfigError(f"no dead letter came from {', '.join(missing)}: `streamlearn dlq list` shows the places")
    if mended is not None and len(chosen) != 1:
        raise ConfigError(f"a mended value stands for one letter: found {len(chosen)}, name one place")
    try:
        sink.write([letter.again(mended) for letter in chosen])
        sink.flush(30.0)
    finally:
        sink.close()
    return [letter.place for letter in chosen]


def _letter(record: Record) -> Letter:
    headers = dict(record.headers)
    stage, reason = (_text(headers.get(CONNECT + name, b"")) for name in ("stage", "exception.message"))
    return Letter(_text(record.key or record.place.encode()), stage, reason, record)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return repr(value)
