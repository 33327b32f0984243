"""Small real implementations of the seams, for tests of the loop and the daemon. They know no clocks and no files."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import numpy as np

from streamlearn.errors import DecodeError, SinkError, SourceError
from streamlearn.records import (
    About,
    Answer,
    Answering,
    Array,
    Batch,
    Gap,
    LearnReport,
    Message,
    Positions,
    Record,
    Sample,
    Snapshot,
    State,
)


class MemorySource:
    """Records in lists, one per partition; `faults` raise when a poll reaches their position."""

    def __init__(
        self,
        partitions: Mapping[str, Sequence[bytes | None]],
        *,
        poll_size: Callable[[], int] = lambda: 1000,
        order: Callable[[Sequence[str]], str] = lambda names: names[0],
        endless: bool = False,
        faults: Mapping[int, list[Exception]] | None = None,
    ) -> None:
        self.partitions, self.poll_size, self.order, self.endless = partitions, poll_size, order, endless
        self.faults = faults or {}
        self.next = dict.fromkeys(partitions, 0)
        self.committed: list[Positions] = []
        self.made: dict[str, str] = {}  # identities
        self.closed = threading.Event()

    def seek(self, positions: Positions) -> None:
        self.next.update({name: positions[name] for name in self.partitions if name in positions})

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        ready = [name for name in self.partitions if name not in paused and self.next[name] < len(self.partitions[name])]
        if not ready:
            self.closed.wait(min(timeout_s, 0.001))
            return []
        name = self.order(ready)
        first = self.next[name]
        for fault in self.faults.get(first, []):
            self.faults[first].remove(fault)
            raise fault
        values = self.partitions[name][first : first + min(max_records, self.poll_size())]
        self.next[name] += len(values)
        return [Record(name, first + i, value, time_ms=1000 + first + i) for i, value in enumerate(values)]

    def positions(self) -> Positions:
        return dict(self.next)

    def ends(self) -> Positions:
        return {name: len(values) for name, values in self.partitions.items()}

    def identities(self) -> Mapping[str, str]:
        return dict(self.made)

    def exhausted(self) -> bool:
        return not self.endless and all(self.next[name] == len(values) for name, values in self.partitions.items())

    def gaps(self) -> Sequence[Gap]:
        return []

    def commit(self, positions: Positions) -> None:
        self.committed.append(dict(positions))

    def close(self) -> None:
        self.closed.set()


class PairDecoder:
    """`[x, label]` as JSON; the one feature is x."""

    def decode(self, record: Record, out: Array) -> Sample:
        try:
            x, label = msgspec.json.decode(record.value or b"")
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            raise DecodeError(f"{record.place}: not a pair: {error}; record goes to the dead letters") from error
        out[0] = x
        return Sample(label=label, time_ms=record.time_ms)


class MemorySink:
    """Keeps messages; `fail` makes it raise."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.durable = 0
        self.fail = False

    def write(self, messages: Sequence[Message]) -> None:
        if self.fail:
            raise SinkError("the sink is broken")
        self.messages.extend(messages)

    def flush(self, timeout_s: float) -> None:
        if self.fail:
            raise SinkError("the sink is broken")
        self.durable = len(self.messages)

    def close(self) -> None:
        pass


class OrderLearner:
    """Its one weight depends on the order and grouping of every row: w ← 0.9 w + mean of the chunk. It answers label 0 or 1."""

    def __init__(self, chunk: int = 3) -> None:
        self.chunk, self.memory_capacity = chunk, 2
        self.w = np.zeros(1)
        self.seen: list[float] = []
        self.told: list[list[float]] = []  # evidence that came back

    def predict(self, x: Array, *, about: About = "auto") -> Array:
        return np.stack([np.full(len(x), self.w[0]), x[:, 0].astype(np.float64)], 1).astype(np.float32)

    def answer(self, x: Array) -> Answer:
        """Its evidence is its answer, and a 7 more or less: how much is to be kept differs from row to row."""
        logits = self.predict(x)
        return Answer(logits, np.concatenate([logits, np.full((len(x), int(100 * self.w[0]) % 2), 7, np.float32)], axis=1))

    def learn(self, batch: Batch) -> LearnReport:
        self.told += [row[~np.isnan(row)].tolist() for row in batch.evidence if not np.isnan(row).all()]
        logits, rejected = [], []
        for first in range(0, len(batch), self.chunk):
            rows = batch[first : first + self.chunk]
            logits.append(self.predict(rows.x))
            finite = bool((np.abs(rows.x) < 1e6).all())
            rejected += [not finite] * len(rows)
            if finite:
                self.seen += rows.x[:, 0].tolist()
                self.w = 0.9 * self.w + rows.x.mean(dtype=np.float64)
        return LearnReport(np.concatenate(logits), np.array(rejected))

    def state(self) -> State:
        return State({"w": self.w.copy()})

    def restore(self, state: State) -> None:
        self.w = state.arrays["w"].copy()

    def answering(self) -> Answering:
        return Answering("order", {"w": self.w.copy()}, {})

    def memory_labels(self) -> Mapping[int, int]:
        return {0: 2}


class MemoryPublisher:
    """Keeps every snapshot."""

    failed_writes = 0

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def beat(self) -> None:
        pass


def lost() -> SourceError:
    """A fault of the upstream that a retry mends."""
    return SourceError("upstream is away")
