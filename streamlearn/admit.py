"""Admission, in the learner's thread and in journal order: label rows are given here, and refused records leave here.

A record that cannot be learned is one record: it is counted, kept in the dead letters with its reason and its original bytes,
and its neighbours are learned (P7). Dead letters bear the headers of Kafka Connect, so that existing tools can read them.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from streamlearn.errors import DecodeError, SinkError
from streamlearn.labels import LabelMap
from streamlearn.prefetch import Fetched
from streamlearn.protocols import Sink
from streamlearn.records import Array, Batch, Json, Label, Message, Record, Sample, State
from streamlearn.settings import Section, key

Tolerance: TypeAlias = Literal["none", "data", "all"]
Stage: TypeAlias = Literal["decode", "admit", "learn"]

CONNECT = "__connect.errors."
REPLAYS = "streamlearn-replays"
"""Header of a dead letter that was sent again: the place of the record that it stands for."""
MAX_REPLAYED = 10_000  # places of replayed letters remembered: sent twice within so many, a letter is learned once


class Settings(Section):
    """What becomes of records that cannot be learned."""

    tolerance: Tolerance = key(
        "data",
        "none: stop at the first bad record; data: pass bad records, stop when dead letters cannot be written; all: pass both",
    )
    flush_s: float = key(10.0, "how long a flush of dead letters may take", unit="seconds", gt=0)
    keep_last: int = key(10, "rejected records shown on the page", unit="records", ge=0)


class DeadLetters:
    """Where refused records go. Durable before any checkpoint that passes them: `flush` is called before each."""

    def __init__(self, sink: Sink, settings: Settings, *, clock_ms: Callable[[], int]) -> None:
        self._sink, self._settings, self._clock_ms = sink, settings, clock_ms
        self.last: deque[dict[str, Json]] = deque(maxlen=settings.keep_last)
        self.written = 0  # since the process began
        self.lost = 0  # letters that could not be written, under tolerance `all`
        self._unflushed: list[Message] = []

    def write(self, record: Record, error: Exception, *, stage: Stage) -> None:
        """Keep a record with the reason why it was not learned. Errors: DecodeError under tolerance `none`."""
        if self._settings.tolerance == "none":
            raise DecodeError(f"{_placed(record, error)}; dead_letters.tolerance is none: stopping")
        letter = dead_letter(record, error, stage=stage)
        self._unflushed.append(letter)
        self._try(lambda: self._sink.write([letter]))
        self.written += 1
        self.last.append({"place": record.place, "reason": str(error), "stage": stage, "time_ms": self._clock_ms()})

    def flush(self) -> None:
        """Return once all letters are durable. Errors: SinkError unless tolerance is `all`."""
        if self._unflushed:
            self._try(lambda: self._sink.flush(self._settings.flush_s))
            self._unflushed.clear()

    def close(self) -> None:
        """Let go of the sink."""
        self._sink.close()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except SinkError:
            if self._settings.tolerance != "all":
                raise
            self.lost += len(self._unflushed)
            self._unflushed.clear()


def dead_letter(record: Record, error: Exception, *, stage: Stage) -> Message:
    """The record's original bytes, with Kafka Connect's error headers. The key names its place, so a replay adds nothing.

    A record's own key, if any, is kept in the header `key`; a tombstone's value is empty, and `tombstone` says so.
    """
    topic, _, rest = record.partition.partition("[")
    connect = {
        "topic": topic,
        "partition": rest.rstrip("]") or "0",
        "offset": str(record.position),
        "stage": stage,
        "exception.class.name": type(error).__name__,
        "exception.message": str(error),
    }
    own = record.headers + ((("key", record.key),) if record.key is not None else ())
    tombstone = (("tombstone", b"true"),) if record.value is None else ()
    headers = tuple((CONNECT + name, text.encode()) for name, text in connect.items())
    return Message(record.value or b"", record.place.encode(), own + tombstone + headers, record.time_ms)


def _placed(record: Record, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(record.place) else f"{record.place}: {text}"


class Admission:
    """Gives rows to labels and sorts out what cannot be learned. Its positions and counts are part of the checkpoint."""

    def __init__(self, labels: LabelMap, dead_letters: DeadLetters) -> None:
        self.labels, self.dead_letters = labels, dead_letters
        self.positions: dict[str, int] = {}  # in order of first appearance, which gives partitions their index
        self.rejected: Counter[str] = Counter()  # by stage
        self.skipped = 0  # positions that the upstream no longer held, and dead letters that were sent again twice
        self._replayed: dict[str, None] = {}  # in order of arrival

    def admit(self, fetched: Fetched) -> Batch:
        """The rows to be learned, in order. Every other record has become a dead letter, and is counted.

        Errors  DecodeError under tolerance `none`; SinkError when a letter cannot be written.
        """
        keep: list[int] = []
        samples: list[Sample] = []
        rows: list[int] = []
        for i, (record, decoded) in enumerate(zip(fetched.records, fetched.samples, strict=True)):
            if record.headers and self._came_before(record):
                self.skipped += 1
                continue
            try:
                sample, label = _labelled(decoded)
                rows.append(self.labels.row(label))
            except DecodeError as error:
                self._refuse(record, error, stage="decode" if error is decoded else "admit")
            else:
                keep.append(i)
                samples.append(sample)
        self.skipped += fetched.skipped
        self.positions[fetched.partition] = fetched.records[-1].position + 1
        return self._batch(fetched, keep, samples, np.array(rows, np.int64))

    def _came_before(self, record: Record) -> bool:
        """Whether this is a dead letter sent again, and was already: replaying letters twice is harmless."""
        place = next((value.decode(errors="replace") for name, value in record.headers if name == REPLAYS), None)
        if place is None or place in self._replayed:
            return place is not None
        self._replayed[place] = None
        if len(self._replayed) > MAX_REPLAYED:
            del self._replayed[next(iter(self._replayed))]
        return False

    def _refuse(self, record: Record, error: DecodeError, *, stage: Stage) -> None:
        self.dead_letters.write(record, error, stage=stage)
        self.rejected[stage] += 1

    def _batch(self, fetched: Fetched, keep: list[int], samples: Sequence[Sample], labels: Array) -> Batch:
        partition = list(self.positions).index(fetched.partition)
        return Batch(
            x=fetched.x if len(keep) == len(fetched) else fetched.x[keep],
            labels=labels,
            contexts=np.array([-1 if s.context is None else s.context for s in samples], np.int64),
            ids=np.array([0 if s.id is None else hashed(s.id) for s in samples], np.uint64),
            times_ms=np.array([-1 if s.time_ms is None else s.time_ms for s in samples], np.int64),
            partitions=np.full(len(keep), partition, np.int32),
            at=np.array([fetched.records[i].position for i in keep], np.int64),
        )

    def state(self) -> State:
        """Positions, in the order that gives partitions their index, and counts. The label map is a state of its own."""
        positions = [list(item) for item in self.positions.items()]
        counts = {"rejected": dict(self.rejected), "skipped": self.skipped, "replayed": list(self._replayed)}
        return State(values={"positions": positions, **counts})

    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        self.positions.clear()  # the dict itself is known to those who write answers
        self.positions.update(state.values["positions"])
        self.rejected = Counter(state.values["rejected"])
        self.skipped = state.values["skipped"]
        self._replayed = dict.fromkeys(state.values["replayed"])


def _labelled(decoded: Sample | DecodeError) -> tuple[Sample, Label]:
    if isinstance(decoded, DecodeError):
        raise decoded
    if decoded.label is None:
        raise DecodeError("field 'label' is missing: expected text or an integer; record goes to the dead letters")
    return decoded, decoded.label


def hashed(sample_id: str) -> int:
    """64 bits of the id, never 0: 0 says that a row has none."""
    return int.from_bytes(hashlib.blake2b(sample_id.encode(), digest_size=8).digest(), "little") or 1
