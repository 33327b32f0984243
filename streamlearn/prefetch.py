"""Reading ahead: one thread owns the source, turns bytes into rows, and tells the upstream what is durable.

What it reads lies in the `Intake`, bounded in records and bytes per partition: a partition at its bound is paused, so that
a slow learner slows the source and never grows the process. The learner's thread takes from there in journal order.
"""

import random
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import structlog

from streamlearn.errors import DecodeError, PositionLostError, SourceError, StreamlearnError
from streamlearn.journal import Journal
from streamlearn.protocols import Decoder, Source
from streamlearn.records import Array, Positions, Record, Sample

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fetched:
    """Consecutive records of one partition, decoded."""

    partition: str
    records: Sequence[Record]
    samples: Sequence[Sample | DecodeError]
    x: Array  # float32 [n, *shape]; rows of refused records are zero
    size_bytes: int
    skipped: int = 0  # positions passed over right before the first record

    def __len__(self) -> int:
        return len(self.records)

    def split(self, n: int) -> "tuple[Fetched, Fetched]":
        """The first n records and the rest."""
        head = self.size_bytes * n // len(self)
        return (
            Fetched(self.partition, self.records[:n], self.samples[:n], self.x[:n], head, self.skipped),
            Fetched(self.partition, self.records[n:], self.samples[n:], self.x[n:], self.size_bytes - head),
        )


def decoded(records: Sequence[Record], decoder: Decoder, shape: Sequence[int]) -> Iterable[Fetched]:
    """Runs of one partition each, decoded into arrays made once per run.

    Errors  SourceError when a record cannot be decoded now; those before it have been given.
    """
    for partition, group in groupby(records, key=lambda record: record.partition):
        run = list(group)
        x = np.zeros((len(run), *shape), np.float32)
        samples: list[Sample | DecodeError] = []
        late: SourceError | None = None
        for record, out in zip(run, x, strict=True):
            try:
                samples.append(_decode(record, decoder, out))
            except SourceError as error:
                late = error
                break
        if samples:
            run, x = run[: len(samples)], x[: len(samples)]
            yield Fetched(partition, run, samples, x, x.nbytes + sum(record.size_bytes for record in run))
        if late is not None:
            raise late


def _decode(record: Record, decoder: Decoder, out: Array) -> Sample | DecodeError:
    try:
        return decoder.decode(record, out)
    except DecodeError as error:
        out[...] = 0.0
        return error


class Intake:
    """What has been read ahead and not yet taken. Filled by the prefetch thread, emptied by the learner's."""

    def __init__(self, *, max_records: int, max_bytes: int) -> None:
        self.max_records, self.max_bytes = max_records, max_bytes
        self._queues: dict[str, deque[Fetched]] = {}
        self._arrivals: deque[str] = deque()  # one partition name per queued run, oldest first
        self._changed = threading.Condition()
        self._failure: StreamlearnError | None = None
        self._exhausted = False
        self._told: Positions = {}
        self._began: Positions | None = None  # not told yet

    def anew(self) -> "Intake":
        """An empty one with the same bounds: whoever still fills this one fills nobody else's."""
        return Intake(max_records=self.max_records, max_bytes=self.max_bytes)

    def begin(self, positions: Positions) -> None:
        """Prefetch thread: the source is open, and this is where reading begins."""
        with self._changed:
            self._began = dict(positions)
            self._changed.notify_all()

    @property
    def began(self) -> Positions:
        """Learner's thread: where reading began; empty until `take` has returned None for it, before it gives a record."""
        with self._changed:
            return self._told

    def put(self, fetched: Fetched) -> None:
        """Prefetch thread: add a run."""
        with self._changed:
            self._queues.setdefault(fetched.partition, deque()).append(fetched)
            self._arrivals.append(fetched.partition)
            self._changed.notify_all()

    def full(self) -> set[str]:
        """Prefetch thread: partitions that are at their share of the bounds."""
        with self._changed:
            share = max(1, len(self._queues))
            return {name for name, queue in self._queues.items() if self._at_bound(queue, share)}

    def _at_bound(self, queue: deque[Fetched], share: int) -> bool:
        records, size_bytes = sum(map(len, queue)), sum(run.size_bytes for run in queue)
        return records * share >= self.max_records or size_bytes * share >= self.max_bytes

    def wait_for_room(self, timeout_s: float) -> None:
        """Prefetch thread: return when something was taken, or after the time-out."""
        with self._changed:
            self._changed.wait(timeout_s)

    def end(self, failure: StreamlearnError | None = None) -> None:
        """Prefetch thread: no more will come, because of `failure` or because the source is exhausted."""
        with self._changed:
            self._failure, self._exhausted = failure, failure is None
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """True when the source is exhausted and everything was taken."""
        with self._changed:
            return self._exhausted and not self._arrivals and self._began is None

    def sizes(self) -> tuple[int, int]:
        """Records and bytes that wait here."""
        with self._changed:
            runs = [run for queue in self._queues.values() for run in queue]
            return sum(map(len, runs)), sum(run.size_bytes for run in runs)

    def wake(self) -> None:
        """Any thread: let a waiting `take` return."""
        with self._changed:
            self._changed.notify_all()

    def take(self, journal: Journal, max_records: int, timeout_s: float) -> Fetched | None:
        """Learner's thread: the next run in journal order, at most `max_records` of one partition; None after the time-out.

        Which partition comes next depends on what arrived first, so it is written to the journal before the run is given.
        Errors  the failure that ended the source; DiskError when the journal cannot be written, and nothing was taken.
        """
        with self._changed:
            partition, limit = self._next(journal)
            if partition is None and not (self._exhausted or self._failure or self._began):
                self._changed.wait(timeout_s)
                partition, limit = self._next(journal)
            if self._began is not None:
                self._told, self._began = self._began, None
                return None
            if partition is None:
                if self._failure is not None:
                    raise self._failure
                return None
            limit = min(max_records, limit)
            self._note(journal, partition, self._queues[partition][0].records[:limit][-1].position + 1)
            run = self._pop(partition, limit)
            self._changed.notify_all()
        return run

    def _next(self, journal: Journal) -> tuple[str | None, int]:
        """The partition whose turn it is and how many of its records, or None while they are not here yet."""
        entry = journal.scripted()
        if entry is None:
            return (self._arrivals[0], _NO_LIMIT) if self._arrivals else (None, 0)
        if entry["kind"] != "order":  # what else was decided takes effect before the next run
            return None, 0
        queue = self._queues.get(entry["partition"])
        if not queue:
            return None, 0
        ahead = bisect_left(queue[0].records, entry["until"], key=lambda record: record.position)
        if not ahead:  # reading began behind this decision
            journal.took()
            return self._next(journal)
        return entry["partition"], ahead

    def _pop(self, partition: str, n: int) -> Fetched:
        queue = self._queues[partition]
        run = queue.popleft()
        if n < len(run):
            run, rest = run.split(n)
            queue.appendleft(rest)
        else:
            self._arrivals.remove(partition)  # the oldest entry of this partition is this run's
        return run

    @staticmethod
    def _note(journal: Journal, partition: str, until: int) -> None:
        entry = journal.scripted()
        if entry is None:
            journal.write("order", partition=partition, until=until)
        elif until >= entry["until"]:
            journal.took()


_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the prefetch thread last knew of the source; replaced as a whole, read by the learner's thread."""

    ok: bool = False
    message: str = "not connected yet"
    ends: Positions | None = None
    errors: int = 0
    commit_errors: int = 0


class Prefetch:
    """The thread that owns the source."""

    def __init__(
        self,
        open_source: Callable[[], Source],
        decoder: Decoder,
        intake: Intake,
        *,
        shape: Sequence[int],
        positions: Positions,
        poll_records: int = 500,
        give_up_s: float | None = None,
        recognise: Callable[[Mapping[str, str]], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.intake = intake
        self.upstream = Upstream()
        self._open_source, self._decoder, self._shape = open_source, decoder, tuple(shape)
        self._start, self._poll_records, self._give_up_s, self._clock = positions, poll_records, give_up_s, clock
        self._recognise = recognise
        self._durable: Positions | None = None
        self._skipped: Counter[str] = Counter()  # passed over, and no record of the partition came since
        self._undecoded: Sequence[Record] = ()  # polled, and what it takes to decode them cannot be had now
        self._halt, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        """Begin to read ahead."""
        self._thread.start()

    def durable(self, positions: Positions) -> None:
        """Any thread: these positions are in a durable checkpoint; tell the upstream when convenient."""
        self._durable = positions

    def halt(self) -> None:
        """Poll no more; the source stays open until `stop`, so that it can be told of a last checkpoint."""
        self._halt.set()

    def stop(self, timeout_s: float) -> None:
        """Halt and close the source; what was read ahead is dropped, and read again after the next start.

        May be called when it never started, and twice.
        """
        self._halt.set()
        self._stop.set()
        self.intake.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        source: Source | None = None
        retries = Retries(self._give_up_s, self._clock)
        while not self._halt.is_set():
            try:
                source = source or self._opened()
                if self._read(source):
                    break
                retries.succeeded()
                self._observe(source)
            except SourceError as error:
                self._lost(error, source)
                if isinstance(error, PositionLostError) or (pause_s := retries.pause_s()) is None:
                    self.intake.end(error)
                    break
                self._halt.wait(pause_s)
            except StreamlearnError as error:  # no retry can help
                self.intake.end(error)
                break
            except Exception as error:  # a fault of ours in this thread must end the process, not leave it waiting
                log.exception("prefetch.failed")
                self.intake.end(StreamlearnError(f"the prefetch thread failed: {error!r}"))
                break
        self._stop.wait()
        if source is not None:
            self._commit(source)
            source.close()

    def _opened(self) -> Source:
        source = self._open_source()
        try:
            source.seek(self._start)
            self._recognise(source.identities())
        except BaseException:
            source.close()
            raise
        self.intake.begin(source.positions())
        return source

    def _read(self, source: Source) -> bool:
        """One poll. True when the source is exhausted and everything was handed over."""
        self._commit(source)
        paused = self.intake.full()
        if paused and paused >= set(source.positions()):
            self.intake.wait_for_room(0.1)
            return False
        records = self._undecoded or source.poll(self._poll_records, 0.1, paused)
        for gap in source.gaps():
            self._skipped[gap.partition] += gap.next - gap.first
        self._undecoded, done = records, 0
        for fetched in decoded(records, self._decoder, self._shape):
            self.intake.put(replace(fetched, skipped=self._skipped.pop(fetched.partition, 0)))
            done += len(fetched)
            self._undecoded = records[done:]
        self._commit(source)
        if not records and source.exhausted():
            self.intake.end()
            self._observe(source)
            return True
        return False

    def _commit(self, source: Source) -> None:
        positions, self._durable = self._durable, None
        if positions is None:
            return
        try:
            source.commit(positions)
        except SourceError as error:
            log.warning("source.commit_failed", error=str(error))
            self.upstream = replace(self.upstream, commit_errors=self.upstream.commit_errors + 1)

    def _observe(self, source: Source) -> None:
        self.upstream = replace(self.upstream, ok=True, message="", ends=source.ends())

    def _lost(self, error: SourceError, source: Source | None) -> None:
        log.warning("source.lost", error=str(error), positions={} if source is None else dict(source.positions()))
        self.upstream = replace(self.upstream, ok=False, message=str(error), errors=self.upstream.errors + 1)


class Retries:
    """Waits that grow from 0.1 s to 5 s with jitter, until `give_up_s` seconds without success have passed."""

    def __init__(self, give_up_s: float | None, clock: Callable[[], float]) -> None:
        self._give_up_s, self._clock = give_up_s, clock
        self._failed_since: float | None = None
        self._pause_s = 0.1

    def succeeded(self) -> None:
        """The upstream answered."""
        self._failed_since, self._pause_s = None, 0.1

    def pause_s(self) -> float | None:
        """How long to wait before the next try; None when it is time to give up."""
        now = self._clock()
        self._failed_since = now if self._failed_since is None else self._failed_since
        if self._give_up_s is not None and now - self._failed_since >= self._give_up_s:
            return None
        self._pause_s, pause = min(5.0, 2 * self._pause_s), self._pause_s
        return pause * random.uniform(0.75, 1.25)
