"""Rows to be learned, gathered in journal order: some of the run at hand, some that waited for their label."""

from collections.abc import Iterator

import numpy as np

from streamlearn.pending import Waiting, hashed
from streamlearn.prefetch import Fetched
from streamlearn.records import NO_EVIDENCE, Array, Batch, Sample, no_evidence, stacked_evidence


class Rows:
    """A batch in the making."""

    def __init__(self, fetched: Fetched, partition: int) -> None:
        self._fetched, self._partition = fetched, partition
        self._numbers: list[tuple[int, int, int, int, int]] = []  # label row, context, time, partition, position
        self._ids: list[int] = []
        self._own: list[int] = []  # rows of the run
        self._joined: list[tuple[int, Array]] = []  # (place in the batch, input) of those that waited
        self._evidence: dict[int, Array] = {}  # by place in the batch

    def keep(self, i: int, sample: Sample, row: int) -> None:
        """Row i of the run."""
        context = -1 if sample.context is None else sample.context
        time_ms = -1 if sample.time_ms is None else sample.time_ms
        self._numbers.append((row, context, time_ms, self._partition, self._fetched.records[i].position))
        self._ids.append(0 if sample.id is None else hashed(sample.id))
        self._own.append(i)

    def join(self, waited: Waiting, row: int) -> None:
        """A sample whose label came."""
        self._joined.append((len(self._numbers), waited.x))
        self._evidence[len(self._numbers)] = waited.given.evidence
        self._numbers.append((row, waited.context, waited.time_ms, waited.partition, waited.at))
        self._ids.append(waited.id)

    def x(self, i: int) -> Array:
        """Input of row i of the run, as a view."""
        row: Array = self._fetched.x[i]
        return row

    def place(self, i: int) -> tuple[int, int]:
        """Partition and position of row i of the run."""
        return self._partition, self._fetched.records[i].position

    def waiting(self, i: int, id_: int, sample: Sample) -> Waiting:
        """Row i of the run as a sample that waits; its input is copied, so that it does not keep the whole run in memory."""
        context = -1 if sample.context is None else sample.context
        time_ms = -1 if sample.time_ms is None else sample.time_ms
        return Waiting(id_, self._fetched.x[i].copy(), *self.place(i), time_ms, context)

    def take(self) -> Iterator[Batch]:
        """What was gathered since the last call, if anything."""
        if not self._numbers:
            return
        labels, contexts, times_ms, partitions, at = np.array(self._numbers, np.int64).T
        ids = np.array(self._ids, np.uint64)
        rows = [self._evidence.get(n, NO_EVIDENCE)[None] for n in range(len(ids))]
        evidence = stacked_evidence(rows) if self._evidence else no_evidence(len(ids))
        columns = (labels.copy(), contexts.copy(), ids, times_ms.copy(), partitions.astype(np.int32), at.copy())
        yield Batch(self._x(), *columns, evidence)
        self._numbers, self._ids, self._own, self._joined, self._evidence = [], [], [], [], {}

    def _x(self) -> Array:
        x = self._fetched.x
        own: Array = x if len(self._own) == len(x) else x[self._own]
        if not self._joined:
            return own
        mixed = np.empty((len(self._numbers), *x.shape[1:]), np.float32)
        late = [place for place, _ in self._joined]
        mixed[late] = [waited for _, waited in self._joined]
        mixed[np.setdiff1d(np.arange(len(mixed)), late)] = own
        return mixed
