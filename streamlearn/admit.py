"""Admission, in the learner's thread and in journal order: label rows are given here, and refused records leave here.

A record that cannot be learned is one record: it is counted, kept in the dead letters with its reason and its original bytes,
and its neighbours are learned (P7). Dead letters bear the headers of Kafka Connect, so that existing tools can read them.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import structlog

from streamlearn.errors import DecodeError, SinkError
from streamlearn.labels import LabelMap
from streamlearn.logs import Sometimes, carrying
from streamlearn.pending import Pending, Waiting, hashed
from streamlearn.prefetch import Fetched
from streamlearn.probe import Probe
from streamlearn.protocols import Sink
from streamlearn.records import Batch, Given, Json, Message, Record, Sample, State
from streamlearn.rows import Rows
from streamlearn.settings import Section, key

Tolerance: TypeAlias = Literal["none", "data", "all"]
Stage: TypeAlias = Literal["decode", "admit", "learn"]

log = structlog.get_logger()

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
        self._may_say = Sometimes()

    def write(self, record: Record, error: Exception, *, stage: Stage) -> None:
        """Keep a record with the reason why it was not learned. Errors: DecodeError under tolerance `none`."""
        if self._settings.tolerance == "none":
            raise DecodeError(f"{_placed(record, error)}; dead_letters.tolerance is none: stopping")
        letter = dead_letter(record, error, stage=stage)
        self._unflushed.append(letter)
        self._try(lambda: self._sink.write([letter]))
        self.written += 1
        self._say(record, error, stage)
        self.last.append({"place": record.place, "reason": str(error), "stage": stage, "time_ms": self._clock_ms()})

    def _say(self, record: Record, error: Exception, stage: Stage) -> None:
        """A line without the reason, which may name what stood in the record: that is in the letter."""
        if not self._may_say():
            return
        left_out = self._may_say.take_left_out()
        with carrying(record.traceparent):
            told = {"place": record.place, "partition": record.partition, "position": record.position, "stage": stage}
            log.warning("record.rejected", **told, error=type(error).__name__, left_out=left_out)

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
    """Gives rows to labels, joins late labels to their samples, sorts out what cannot be learned. Part of the checkpoint."""

    def __init__(self, labels: LabelMap, dead_letters: DeadLetters, pending: Pending, probe: Probe) -> None:
        self.labels, self.dead_letters, self.pending, self.probe = labels, dead_letters, pending, probe
        self.positions: dict[str, int] = {}  # in order of first appearance, which gives partitions their index
        self.rejected: Counter[str] = Counter()  # by stage
        self.skipped = 0  # positions that the upstream no longer held, and dead letters that were sent again twice
        self._replayed: dict[str, None] = {}  # in order of arrival

    def admit(self, fetched: Fetched) -> Iterator[Batch | Waiting | Probe]:
        """What has to be done, in order: rows to be learned, samples without a label to be answered at this point,
        and the probe when it is due to be scored.

        Every other record has become a dead letter or has been joined to another one, and is counted.
        Errors  DecodeError under tolerance `none`; SinkError when a letter cannot be written.
        """
        self.positions.setdefault(fetched.partition, fetched.records[0].position)
        rows = Rows(fetched, list(self.positions).index(fetched.partition))
        for i, (record, decoded) in enumerate(zip(fetched.records, fetched.samples, strict=True)):
            if record.headers and self._came_before(record):
                self.skipped += 1
                continue
            try:
                asked = self._placed(rows, i, decoded)
            except DecodeError as error:
                self._refuse(record, error, stage="decode" if error is decoded else "admit")
                self._forget(record)
            else:
                if asked is not None:
                    yield from rows.take()
                    yield asked
                if self.probe.is_due:
                    yield from rows.take()
                    yield self.probe
        self.skipped += fetched.skipped
        self.positions[fetched.partition] = fetched.records[-1].position + 1
        yield from rows.take()

    def _placed(self, rows: Rows, i: int, decoded: Sample | DecodeError) -> Waiting | None:
        """Put a record where it belongs; a sample that has to be answered now comes back. Errors: DecodeError."""
        if isinstance(decoded, DecodeError):
            raise decoded
        id_ = 0 if decoded.id is None else hashed(decoded.id)
        if decoded.kind == "label":
            self._label_came(rows, id_, decoded)
            return None
        if decoded.label is None or decoded.kind == "answer":
            return self._unlabelled(rows, i, id_, decoded)
        row = self.labels.row(decoded.label)
        if id_ and self.pending.came(id_):
            self.pending.counts["duplicate"] += 1
        elif id_ and (waited := self.pending.join(id_, row, _time(decoded))):
            self.pending.counts["joined"] += 1
            self._join(rows, waited, row)
        else:
            self._keep(rows, i, decoded, row)
        return None

    def _keep(self, rows: Rows, i: int, sample: Sample, row: int) -> None:
        """To the learner or to the probe."""
        if self.probe.offer(rows.x(i), row):
            self.pending.drop_given(rows.place(i))
        else:
            rows.keep(i, sample, row)

    def _join(self, rows: Rows, waited: Waiting, row: int) -> None:
        if self.probe.offer(waited.x, row):
            self.pending.drop_given((waited.partition, waited.at))
        else:
            rows.join(waited, row)

    def _label_came(self, rows: Rows, id_: int, label: Sample) -> None:
        if label.label is None or not id_:
            raise DecodeError("a late label needs 'id' and 'label'; record goes to the dead letters")
        pending = self.pending
        if pending.came(id_) or id_ in pending.early:
            pending.counts["duplicate"] += 1
            return
        row = self.labels.row(label.label)
        if waited := pending.join(id_, row, _time(label)):
            pending.counts["joined"] += 1
            self._join(rows, waited, row)
        else:
            pending.wait_for_sample(id_, row, _time(label))

    def _unlabelled(self, rows: Rows, i: int, id_: int, sample: Sample) -> Waiting | None:
        if not id_:
            raise DecodeError("fields 'label' and 'id' are missing: expected a label, or an id by which one will come")
        given = None if sample.given is None else self._checked(sample.given)
        pending = self.pending
        known = pending.samples.get(id_)
        if pending.came(id_) or (known and (given is None or known.given.is_served)):
            pending.counts["duplicate"] += 1
            return None
        if known and given:  # what somebody was told is the answer, not what the loop would have said
            pending.give(known, given._replace(evidence=known.given.evidence))
            pending.counts["joined"] += 1
            return None
        if (row := pending.join_early(id_, _time(sample), rows.place(i), given)) is not None:
            pending.counts["joined"] += 1
            self._keep(rows, i, sample, row)
            return None
        waiting = rows.waiting(i, id_, sample)
        pending.wait(waiting)
        if given:
            pending.give(waiting, given)
        return waiting

    def _checked(self, given: Given) -> Given:
        """Errors: DecodeError when the answer was given under another label map, from before a rollback."""
        by_row = self.labels.by_row
        if len(given.logits) > len(by_row) or by_row[int(given.logits.argmax())] != given.label:
            raise DecodeError(f"the served answer {given.label!r} does not fit the label map: it was given before a rollback")
        return given

    def _came_before(self, record: Record) -> bool:
        """Whether this is a dead letter sent again, and was already: replaying letters twice is harmless."""
        place = _stands_for(record)
        if place is None or place in self._replayed:
            return place is not None
        self._replayed[place] = None
        if len(self._replayed) > MAX_REPLAYED:
            del self._replayed[next(iter(self._replayed))]
        return False

    def _forget(self, record: Record) -> None:
        """A letter that was mended badly may be mended again."""
        self._replayed.pop(_stands_for(record) or "", None)

    def _refuse(self, record: Record, error: DecodeError, *, stage: Stage) -> None:
        self.dead_letters.write(record, error, stage=stage)
        self.rejected[stage] += 1

    def set_aside(self, record: Record, error: Exception) -> None:
        """A record that was admitted, and that the learner cannot learn. Errors: those of dead letters."""
        self.dead_letters.write(record, error, stage="learn")
        self.rejected["learn"] += 1

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


def _stands_for(record: Record) -> str | None:
    """The place of the record that this one, a dead letter sent again, stands for."""
    return next((value.decode(errors="replace") for name, value in record.headers if name == REPLAYS), None)


def _time(sample: Sample) -> int:
    return -1 if sample.time_ms is None else sample.time_ms
