"""Learning when memory does not suffice: what a failed call of `learn` has changed is undone, and it is tried in halves.

A copy of the learner's state is kept, and the rows learned since: the copy is put back and those rows are learned again, which
gives the same bytes (P5). What does not fit even as one chunk is looked at row by row; a row that fails alone is set aside,
into the dead letters, and its neighbours are learned. Both decisions are in the journal before they take effect. Used by the
learner's thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import structlog

from streamlearn.admit import Admission
from streamlearn.chunks import Chunks
from streamlearn.errors import CheckpointError, DiskError, MemoryShortError
from streamlearn.journal import Journal
from streamlearn.prefetch import Fetched
from streamlearn.protocols import Learner
from streamlearn.records import Batch, LearnReport, Record, State

log = structlog.get_logger()

ROWS, SIZE_BYTES = 10_000, 16 << 20  # learned since the copy, at most: what going back costs
SHARE = 0.25  # of the copy's size, which those rows may take where that is more: a large memory is copied the more seldom
REBUILT = (("streamlearn-value", b"rebuilt"),)
"""Header of a letter whose original bytes were not at hand any more: the features that the learner was given, as JSON."""


def is_memory_error(error: Exception) -> bool:
    """Whether Python or numpy got no memory."""
    return isinstance(error, MemoryError)


class Sparing:
    """Gives the loop what it may learn at once, and takes back what failed."""

    def __init__(
        self,
        learner: Learner,
        chunks: Chunks,
        admission: Admission,
        journal: Journal,
        *,
        is_short: Callable[[Exception], bool],
    ) -> None:
        self._attempts = Attempts(learner, is_short)
        self._chunks, self._admission, self._journal = chunks, admission, journal
        self._fetched: Fetched | None = None
        self._held: dict[tuple[str, int], Record] = {}  # of earlier runs, while their rows wait for their chunk
        self.learn, self.forget = self._attempts.learn, self._attempts.forget

    def came(self, fetched: Fetched) -> None:
        """A run of records is about to be admitted."""
        waiting = self._places(self._chunks.waiting)
        self._held = {place: record for place in waiting if (record := self._record(place))}
        self._fetched = fetched

    def cut(self, rows: Batch) -> Batch:
        """Whole chunks, without what the journal sets aside."""
        batch, aside = self._chunks.cut(rows), self._journal.aside
        while aside and (found := {i: aside[p] for i, p in enumerate(self._places(batch)) if p in aside}):
            batch = self._without(batch, found)
        return batch

    def spared(self, batch: Batch, part: Batch, error: MemoryShortError) -> Batch:
        """What is to be learned instead of `batch`, whose first rows, `part`, failed. Errors: CheckpointError."""
        chunks = len(part) // self._chunks.chunk
        if chunks > 1:
            self._decide([{"kind": "split", "rows": self._chunks.chunk * ((chunks + 1) // 2)}])
            self._journal.most_rows = self._chunks.chunk * ((chunks + 1) // 2)
            log.warning("learn.split", reason=str(error), rows=self._journal.most_rows)
            return batch
        places, unfit = self._places(part), self._attempts.unfit(part)
        self._decide(
            [{"kind": "aside", "partition": places[i][0], "position": places[i][1], "reason": str(error)} for i in unfit]
        )
        log.error("learn.set_aside", reason=str(error), rows=len(unfit))
        return self._without(batch, dict.fromkeys(unfit, str(error)))

    def _decide(self, entries: Sequence[dict[str, str | int]]) -> None:
        try:
            for entry in entries:
                self._journal.write(**entry)  # type: ignore[arg-type]  # mypy takes each value for the kind
            self._journal.flush()
        except DiskError as error:  # in the midst of a turn there is no waiting: the next start learns it again
            raise CheckpointError(f"{error}; memory did not suffice for what was to be learned") from error

    def _without(self, batch: Batch, rows: Mapping[int, str]) -> Batch:
        """Set these aside; the others are cut anew."""
        places, names = self._places(batch), self._admission.labels.by_row
        for i, reason in rows.items():
            record = self._record(places[i])
            if record is None:
                value = msgspec.json.encode({"features": batch.x[i].tolist(), "label": names[int(batch.labels[i])]})
                record = Record(*places[i], value, headers=REBUILT)
            self._admission.set_aside(record, MemoryShortError(reason))
            self._admission.pending.drop_given((int(batch.partitions[i]), int(batch.at[i])))
        return self._chunks.again(take(batch, [i for i in range(len(batch)) if i not in rows]))

    def _places(self, batch: Batch) -> list[tuple[str, int]]:
        names = list(self._admission.positions)
        return [(names[p], at) for p, at in zip(batch.partitions.tolist(), batch.at.tolist(), strict=True)]

    def _record(self, place: tuple[str, int]) -> Record | None:
        partition, position = place
        if self._fetched is not None and self._fetched.partition == partition:
            records = self._fetched.records
            at = bisect_left(records, position, key=lambda record: record.position)
            if at < len(records) and records[at].position == position:
                return records[at]
        return self._held.get(place)


class Attempts:
    """Calls of `learn` that happen whole or leave no trace."""

    def __init__(self, learner: Learner, is_short: Callable[[Exception], bool]) -> None:
        self._learner, self._is_short = learner, is_short
        self._copy: State | None = None
        self._since: list[Batch] = []
        self._rows = self._size_bytes = 0
        self._most_bytes = float(SIZE_BYTES)

    def forget(self) -> None:
        """The learner has become another one."""
        self._copy = None

    def learn(self, batch: Batch) -> LearnReport:
        """As the learner does. Errors: MemoryShortError, and nothing was learned."""
        if self._copy is None or self._rows >= ROWS or self._size_bytes >= self._most_bytes:
            self._copy, self._since, self._rows, self._size_bytes = self._learner.state(), [], 0, 0
            self._most_bytes = max(SIZE_BYTES, SHARE * sum(array.nbytes for array in self._copy.arrays.values()))
        short = ""
        try:
            report = self._learner.learn(batch)
        except Exception as error:
            if not self._is_short(error):
                raise
            short = f"{type(error).__name__}: {error}"
        if short:  # here, where nothing of the failed call is held any more
            self._go_back()
            raise MemoryShortError(f"memory does not suffice to learn {len(batch)} rows at once: {short}")
        self._since.append(batch)
        self._rows, self._size_bytes = self._rows + len(batch), self._size_bytes + batch.x.nbytes
        return report

    def unfit(self, chunk: Batch) -> list[int]:
        """Rows of a chunk that failed which fail by themselves too, as a chunk of each alone; all of them where none does."""
        found = [i for i in range(len(chunk)) if len(chunk) > 1 and not self._fits(take(chunk, [i] * len(chunk)))]
        return found or list(range(len(chunk)))

    def _fits(self, chunk: Batch) -> bool:
        try:
            self.learn(chunk)
        except MemoryShortError:
            return False
        self._since.pop()
        self._rows, self._size_bytes = self._rows - len(chunk), self._size_bytes - chunk.x.nbytes
        self._go_back()
        return True

    def _go_back(self) -> None:
        if self._copy is None:
            raise ValueError("there is no state to go back to: expected a call of `learn` before")
        self._learner.restore(self._copy)
        for batch in self._since:
            for start in range(0, len(batch), self._learner.chunk):
                self._learner.learn(batch[start : start + self._learner.chunk])


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """These rows, in memory of their own."""
    chosen = np.array(rows, np.int64)
    return Batch(*(getattr(batch, name)[chosen] for name in Batch.__slots__))
