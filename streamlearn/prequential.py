"""The loop: admit, learn (which tests, then trains), score, checkpoint, publish. One thread runs it and owns the learner.

Everything that happens to a record happens in `turn`, in the order in which it is written there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streamlearn.admit import Admission
from streamlearn.answers import AnswerLog
from streamlearn.checkpoint import Checkpoint, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.drift import Drift, Mark
from streamlearn.due import Due
from streamlearn.journal import Journal
from streamlearn.metrics import Metrics
from streamlearn.ownership import Ownership
from streamlearn.prefetch import Intake
from streamlearn.protocols import Learner, Publisher, Stateful
from streamlearn.records import Batch, Label, LearnReport, Positions, Snapshot, State


@dataclass(slots=True)
class Tally:
    """Counts that are part of the state. Every record read has one outcome: learned, rejected, or it waits in a chunk."""

    number: int = 0  # learned chunks: what a snapshot and a checkpoint are known by
    learned: int = 0
    undone: int = 0  # rows of updates that were not finite

    def count(self, report: LearnReport, chunk: int) -> None:
        """Add the outcomes of one call of `learn`."""
        undone = int(report.rejected.sum())
        self.undone += undone
        self.learned += len(report.rejected) - undone
        self.number += (len(report.rejected) - undone) // chunk

    def state(self) -> State:
        """The counts."""
        return State(values={name: getattr(self, name) for name in self.__slots__})

    def restore(self, state: State) -> None:
        """Go on counting from there."""
        for name in self.__slots__:
            setattr(self, name, state.values[name])


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did, for those who watch."""

    read: int = 0
    answered: int = 0  # rows tested, then trained on
    learn_s: float = 0.0
    event_ms: int | None = None  # time of the last record read, since the epoch
    measures: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()  # drift detected among these rows


class Pauses(NamedTuple):
    """Seconds that the loop stood still in this turn; None where it did not."""

    checkpoint_s: float | None = None
    publish_s: float | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop puts in order. All but the writers are state, and travel in every checkpoint."""

    intake: Intake
    journal: Journal
    admission: Admission
    chunks: Chunks
    learner: Learner
    metrics: Metrics
    drift: Drift
    answers: AnswerLog
    writer: CheckpointWriter
    publisher: Publisher


class Prequential:
    """Test, then train, on what has been read ahead."""

    def __init__(
        self,
        parts: Parts,
        *,
        shape: tuple[int, ...],
        checkpoint_due: Due,
        publish_due: Due,
        max_records: int = 500,
        clock_ms: Callable[[], int],
    ) -> None:
        self.intake, self.journal, self.admission, self.chunks = parts.intake, parts.journal, parts.admission, parts.chunks
        self.learner, self.metrics, self.drift = parts.learner, parts.metrics, parts.drift
        self.answers, self.writer, self.publisher = parts.answers, parts.writer, parts.publisher
        self.tally = Tally()
        self.read = 0  # records since the start of the process
        self.pauses = Pauses()  # of the last turn
        self.published: Snapshot | None = None
        self._shape, self._max_records, self._clock_ms = shape, max_records, clock_ms
        self._checkpoint_due, self._publish_due = checkpoint_due, publish_due
        self._ownership: Ownership | None = None
        self._stateful: dict[str, Stateful] = {
            "learner": self.learner,
            "labels": self.admission.labels,
            "metrics": self.metrics,
            "drift": self.drift,
            "chunks": self.chunks,
            "admission": self.admission,
            "tally": self.tally,
        }

    def turn(self, wait_s: float) -> Turn:
        """One run of records, at most `max_records`; waits at most `wait_s` for it.

        Errors  SourceError when the source is lost for good; DecodeError and SinkError where the tolerance says so.
        """
        fetched = self.intake.take(self.journal, self._max_records, wait_s)
        self._begin(self.intake.began)
        turn = Turn()
        if fetched is not None:
            rows = self.admission.admit(fetched)  # label rows and dead letters, in journal order
            turn = self._learn(self.chunks.cut(rows), read=len(fetched), event_ms=fetched.records[-1].time_ms)
        self._keep(idle=fetched is None)
        return turn

    def _begin(self, positions: Positions) -> None:
        """Where the very first start begins depends on when it was, and a partition may stay silent: so it is written down."""
        if positions and not self.admission.positions and self.journal.scripted() is None:
            self.journal.write("start", positions=dict(positions))
            self.admission.positions.update(positions)

    def _keep(self, *, idle: bool) -> None:
        """A checkpoint and a snapshot, each when it is due."""
        began = time.perf_counter()
        checkpoint_s = publish_s = None
        if self._checkpoint_due.at(self.read) and not self.writer.busy:
            self.begin_checkpoint()
            checkpoint_s = time.perf_counter() - began
        if self._publish_due.at(self.tally.number, idle=idle):
            began = time.perf_counter()
            self.publish()
            publish_s = time.perf_counter() - began
        self.pauses = Pauses(checkpoint_s, publish_s)

    def _learn(self, batch: Batch, *, read: int, event_ms: int | None) -> Turn:
        self.read += read
        if not len(batch):
            return Turn(read=read, event_ms=event_ms)
        began, number = time.perf_counter(), self.tally.number
        report = self.learner.learn(batch)  # each row is answered before its label is used
        learn_s = time.perf_counter() - began
        scored = self.metrics.update(batch.labels, report.logits)
        marks = self.drift.update(scored.errors)
        self.tally.count(report, self.chunks.chunk)
        self.answers.write(batch, report, number=number)
        return Turn(read, len(batch), learn_s, event_ms, report.measures, marks)

    def own(self, ownership: Ownership) -> None:
        """From now on nothing is written unless `ownership` holds. A new writer epoch begins with a checkpoint of its own."""
        self._ownership = ownership
        self.writer.is_owner = ownership.holds
        epoch, _, sequence = self.journal.newest.partition("-")
        if int(epoch) < ownership.epoch:
            self.journal.move(f"{ownership.epoch:04d}-{int(sequence) + 1:08d}")
            self.begin_checkpoint()
            self.writer.wait()

    def begin_checkpoint(self) -> None:
        """Take the state and begin to write it; what it passes is durable before. Errors: SinkError, CheckpointError."""
        self._check_ownership()
        self.admission.dead_letters.flush()
        self.answers.flush()
        name = self.writer.next_name(after=self.journal.newest)
        self.journal.begin(name)
        self.writer.start(name, self.checkpoint())
        self._checkpoint_due.done(self.read)

    def publish(self) -> None:
        """Hand what may be served now to the servers; the decisions that led here are on the disk before (P4)."""
        self._check_ownership()
        if len(self.admission.positions) > 1:  # of one partition the order is known without a journal
            self.journal.flush()
        self.published = self.snapshot()
        self.publisher.publish(self.published)
        self._publish_due.done(self.tally.number)

    def _check_ownership(self) -> None:
        if self._ownership is not None:
            self._ownership.check()

    def close(self) -> None:
        """Let go of what is written to."""
        self.admission.dead_letters.close()
        self.answers.close()

    def outcomes(self) -> dict[str, int]:
        """Records by outcome; their sum, with the rows that wait in `chunks`, is the number of records read (P1)."""
        rejected = sum(self.admission.rejected.values()) + self.tally.undone
        return {"learned": self.tally.learned, "rejected": rejected, "skipped": self.admission.skipped}

    def checkpoint(self) -> Checkpoint:
        """A copy of everything, at this point between two turns."""
        state = State.nest({name: part.state() for name, part in self._stateful.items()})
        return Checkpoint(self.tally.number, state, dict(self.admission.positions), self.journal.place())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the loop that gave `checkpoint`. Errors: CheckpointError naming what does not fit."""
        for name, part in self._stateful.items():
            part.restore(checkpoint.state.under(name))

    def snapshot(self) -> Snapshot:
        """What may be served now."""
        labels, positions = self.admission.labels.by_row, dict(self.admission.positions)
        return Snapshot(self.tally.number, self.learner.answering(), labels, self._shape, self._clock_ms(), positions)

    def composition(self) -> dict[Label, int]:
        """Label → rows of it in the replay memory."""
        by_row = self.admission.labels.by_row
        return {by_row[row]: n for row, n in self.learner.memory_labels().items()}
