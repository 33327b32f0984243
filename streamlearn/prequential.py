"""The loop: admit, learn (which tests, then trains), score, checkpoint, publish. One thread runs it and owns the learner.

Everything that happens to a record happens in `turn`, in the order in which it is written there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import structlog

from streamlearn import logs
from streamlearn.admit import Admission
from streamlearn.answers import AnswerLog
from streamlearn.checkpoint import Checkpoint, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.conformal import Conformal
from streamlearn.contexts import Contexts
from streamlearn.drift import Drift, Mark, Reactions
from streamlearn.due import Due
from streamlearn.errors import MemoryShortError
from streamlearn.journal import Journal
from streamlearn.metrics import Metrics
from streamlearn.ownership import Ownership
from streamlearn.pending import OUTCOMES, Waiting
from streamlearn.prefetch import Intake
from streamlearn.probe import Probe
from streamlearn.protocols import Learner, Publisher, Stateful
from streamlearn.records import Batch, Given, Label, LearnReport, Positions, Snapshot, State
from streamlearn.schema import Schema
from streamlearn.shortage import Sparing, is_memory_error

log = structlog.get_logger()

WHENEVER = ("expire", "split", "aside", "rollback")
"""Decisions between two runs of records. A rollback that took effect has a checkpoint behind it: one that is met did not."""


@dataclass(slots=True)
class Tally:
    """Counts that are part of the state. Every record read has one outcome, or waits for one."""

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
    probe_s: float = 0.0
    delays_s: tuple[float, ...] = ()  # of the late labels that came
    refused: bool = False  # the disk took nothing, and so nothing was done


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
    reactions: Reactions
    conformal: Conformal
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
        schema: Schema | None = None,
        checkpoint_due: Due,
        publish_due: Due,
        max_records: int = 500,
        clock_ms: Callable[[], int],
        is_short: Callable[[Exception], bool] = is_memory_error,
    ) -> None:
        self.intake, self.journal, self.admission, self.chunks = parts.intake, parts.journal, parts.admission, parts.chunks
        self.learner, self.metrics, self.drift = parts.learner, parts.metrics, parts.drift
        self.conformal, self.reactions = parts.conformal, parts.reactions
        self.answers, self.writer, self.publisher = parts.answers, parts.writer, parts.publisher
        self.pending, self.probe = parts.admission.pending, parts.admission.probe
        self.sparing = Sparing(parts.learner, parts.chunks, parts.admission, parts.journal, is_short=is_short)
        self.contexts = Contexts()
        self.tally = Tally()
        self.read = 0  # records since the start of the process
        self.pauses = Pauses()  # of the last turn
        self.published: Snapshot | None = None
        self._shape, self._schema, self._max_records, self._clock_ms = shape, schema, max_records, clock_ms
        self._checkpoint_due, self._publish_due = checkpoint_due, publish_due
        self._ownership: Ownership | None = None
        self._stateful: dict[str, Stateful] = {
            "learner": self.learner,
            "labels": self.admission.labels,
            "metrics": self.metrics,
            "drift": self.drift,
            "reactions": self.reactions,
            "conformal": self.conformal,
            "chunks": self.chunks,
            "admission": self.admission,
            "pending": self.pending,
            "probe": self.probe,
            "contexts": self.contexts,
            "tally": self.tally,
        }

    def turn(self, wait_s: float) -> Turn:
        """One run of records, at most `max_records`; waits at most `wait_s` for it.

        Errors  SourceError when the source is lost for good; DecodeError and SinkError where the tolerance says so.
        """
        self._expire()
        fetched = self.intake.take(self.journal, self._max_records, wait_s)
        self._begin(self.intake.began)
        turn = Turn()
        if fetched is not None:
            self.read += len(fetched)
            self.sparing.came(fetched)
            self.answers.saw(fetched.records)
            logs.at(model_version=self.tally.number, partition=fetched.partition, position=fetched.records[0].position)
            turn = Turn(len(fetched), event_ms=fetched.records[-1].time_ms)
            for step in self.admission.admit(fetched):  # label rows, late labels and dead letters, in journal order
                if isinstance(step, Batch):
                    turn = self._learn_all(step, turn)
                elif isinstance(step, Waiting):
                    turn = replace(turn, marks=turn.marks + self._answer(step))
                else:
                    turn = self._score(step, turn)
            turn = replace(turn, delays_s=tuple(self.pending.take_delays_s()))
            self._say(turn)
        self._keep(idle=fetched is None)
        return turn

    def _say(self, turn: Turn) -> None:
        """What a turn did, for whoever wants to know each, and what it found, for everybody."""
        for mark in turn.marks:
            moved = {name: round(each.size, 3) for name, each in zip(self.moved(mark), mark.moved, strict=True)}
            said = {"detector": mark.detector, "row": mark.row, "moved": moved}
            log.warning("drift.detected", on=mark.on, **said, model_version=self.tally.number)
        if logs.details():
            log.debug("loop.turn", read=turn.read, answered=turn.answered, model_version=self.tally.number)

    def _expire(self) -> None:
        """How long is too long a clock says, so it is written down and durable before it takes effect."""
        while (entry := self.journal.scripted()) is not None and entry["kind"] in WHENEVER:
            if entry["kind"] == "expire":  # the others were known from the start, or came to nothing
                self.pending.expire(entry["until"])
            self.journal.took()
        if self.journal.scripted() is None and (until := self.pending.due()) is not None:
            self.journal.write("expire", until=until)
            self.journal.flush()
            self.pending.expire(until)

    def _answer(self, sample: Waiting) -> tuple[Mark, ...]:
        """A sample without a label is predicted when it comes: alone, so that how many come together changes no bit.

        Where somebody was told an answer already, that one stands.
        """
        answer = self.learner.answer(sample.x[None])
        own = Given(self.tally.number, np.array(answer.logits[0], np.float32))
        given = sample.given if sample.given.is_served else own
        self.pending.give(sample, given._replace(evidence=np.array(answer.evidence[0], np.float32)))
        return self._react(self.drift.look(sample.x[None]))

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

    def _score(self, probe: Probe, turn: Turn) -> Turn:
        """What was kept from the learner is put to it."""
        began = time.perf_counter()
        probe.score(lambda x, about: self.learner.predict(x, about=about))
        return replace(turn, probe_s=turn.probe_s + time.perf_counter() - began)

    def _learn_all(self, rows: Batch, turn: Turn) -> Turn:
        """In one call; where memory does not suffice in smaller ones, and without the rows for which it never does."""
        batch = self.sparing.cut(rows)
        while len(batch):
            room = [rows for rows in (self.journal.most_rows, self.reactions.room(self.drift.rows)) if rows is not None]
            part = batch[: min(room, default=None)]
            try:
                turn, batch = self._learn(part, turn), batch[len(part) :]
            except MemoryShortError as error:
                batch = self.sparing.spared(batch, part, error)
        return turn

    def _learn(self, batch: Batch, turn: Turn) -> Turn:
        began, number = time.perf_counter(), self.tally.number
        report = self.sparing.learn(batch)  # each row is answered before its label is used
        learn_s = time.perf_counter() - began
        logits, numbers = self.pending.answered(batch, report.logits)  # what was answered earlier is what is scored
        report = replace(report, logits=logits)
        scored = self.metrics.update(batch.labels, logits)
        new = [row for row in range(len(batch)) if row not in numbers]  # others were looked at when they came
        seen = new if numbers else None
        found = self.drift.update(scored.errors, scored.labels, batch.x, new=seen, surprises=scored.surprises)
        marks = self._react(found)
        self.contexts.update(batch.contexts, scored)
        self.conformal.update(scored, logits)
        self.tally.count(report, self.chunks.chunk)
        self.answers.write(batch, report, number=number, earlier=numbers)
        return replace(
            turn,
            answered=turn.answered + len(batch),
            learn_s=turn.learn_s + learn_s,
            measures=report.measures,
            marks=turn.marks + marks,
        )

    def _react(self, marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
        """What is configured to be done at a drift."""
        if self.reactions.take(marks, self.drift.rows):
            self.sparing.forget()  # it holds a copy of the learner from before its steps changed
        if any(self.reactions.does("keep", mark) for mark in marks):
            self.writer.keep(self.reactions.settings.keep_most)
        return marks

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
        if logs.details():
            log.debug("snapshot.published", model_version=self.tally.number, positions=dict(self.admission.positions))

    def _check_ownership(self) -> None:
        if self._ownership is not None:
            self._ownership.check()

    def close(self) -> None:
        """Let go of what is written to."""
        self.admission.dead_letters.close()
        self.answers.close()

    def outcomes(self) -> dict[str, int]:
        """Records by outcome; their sum, with the records of `waiting`, is the number of records read (P1)."""
        rejected = sum(self.admission.rejected.values()) + self.tally.undone
        late: dict[str, int] = {name: self.pending.counts[name] for name in OUTCOMES}
        learned, probed, skipped = self.tally.learned, self.probe.taken, self.admission.skipped
        return {"learned": learned, "probe": probed, "rejected": rejected, "skipped": skipped, **late}

    def waiting(self) -> dict[str, int]:
        """Records that were read and have no outcome yet, by what they wait for: their chunk, their label, their sample."""
        return {"chunk": len(self.chunks), **self.pending.waiting()}

    def checkpoint(self) -> Checkpoint:
        """A copy of everything, at this point between two turns."""
        state = State.nest({name: part.state() for name, part in self._stateful.items()})
        return Checkpoint(self.tally.number, state, dict(self.admission.positions), self.journal.place())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the loop that gave `checkpoint`. Errors: CheckpointError naming what does not fit."""
        for name, part in self._stateful.items():
            part.restore(checkpoint.state.under(name))
        self.sparing.forget()

    def snapshot(self) -> Snapshot:
        """What may be served now."""
        labels, positions = self.admission.labels.by_row, dict(self.admission.positions)
        answering, now_ms = self.learner.answering(), self._clock_ms()
        sets = self.conformal.thresholds()
        return Snapshot(self.tally.number, answering, labels, self._shape, now_ms, positions, self._schema, sets)

    def moved(self, mark: Mark) -> list[str]:
        """Names of the classes or features that moved, in the mark's order."""
        names = self.admission.labels.by_row if mark.on == "error" else self.drift.inputs.names
        return [str(names[each.which]) for each in mark.moved]

    def composition(self) -> dict[Label, int]:
        """Label → rows of it in the replay memory."""
        by_row = self.admission.labels.by_row
        return {by_row[row]: n for row, n in self.learner.memory_labels().items()}
