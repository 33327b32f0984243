"""The seams on one page. Each says when it is called and what is promised; how it works is in the files that fill it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from streamlearn.records import (
    About,
    Answer,
    Answering,
    Array,
    Batch,
    Gap,
    Initialisation,
    LearnReport,
    Message,
    MetaReport,
    Positions,
    Record,
    Sample,
    Snapshot,
    State,
)


class Source(Protocol):
    """Where records come from. Made, sought, polled and closed by one thread, the prefetch thread."""

    def seek(self, positions: Positions) -> None:
        """Called once, before the first poll; a partition that is not named starts at its beginning.

        Errors  SourceError when the upstream cannot be reached, or no longer holds a named position.
        """

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """What is there, at most `max_records`, nothing of `paused` partitions; empty after `timeout_s`.

        In order within a partition, without gap or repeat but those of the upstream (compaction, aborted writes).
        Errors  SourceError; polling again is allowed and goes on where it was.
        """

    def positions(self) -> Positions:
        """For each known partition, one past the last record that `poll` returned, or where reading began."""

    def ends(self) -> Positions:
        """For each known partition, one past the newest record upstream, as far as known now. Never waits."""

    def identities(self) -> Mapping[str, str]:
        """Stream → what tells it from another made later under its name; without streams that do not know. After `seek`."""

    def exhausted(self) -> bool:
        """True once no record can follow: the end of a file. A topic is never exhausted."""

    def gaps(self) -> Sequence[Gap]:
        """What was passed over since the last call, because the upstream no longer holds it and the settings allow it."""

    def commit(self, positions: Positions) -> None:
        """Tell the upstream these are safe. A courtesy: our truth is the checkpoint, and errors are only counted."""

    def close(self) -> None:
        """Let go of everything. May be called twice."""


class Sink(Protocol):
    """Where records go. Used by one thread."""

    def write(self, messages: Sequence[Message]) -> None:
        """Take these in order. They may still be on their way when this returns."""

    def flush(self, timeout_s: float) -> None:
        """Return once all that was written is durable. Errors: SinkError, after which the same may be written again."""

    def close(self) -> None:
        """Flush what can be, let go. May be called twice."""


class Decoder(Protocol):
    """Bytes → features and raw label. Pure, but for schemas that it asks a registry for. Runs in the prefetch thread."""

    def decode(self, record: Record, out: Array) -> Sample:
        """Write the features into `out` (float32, the configured shape) and return the rest.

        Errors  DecodeError that names the field, what was found and what was expected; `out` is then unspecified. SourceError
                when what it takes to read the record cannot be had now: it is decoded again later, and nothing passes it.
        """


class Learner(Protocol):
    """Learns rows, answers questions. Owned by one thread. Knows tensors; never topics, clocks, files or threads."""

    chunk: int  # rows of one update
    memory_capacity: int  # bound of the replay memory in rows; 0 without one

    def predict(self, x: Array, *, about: About = "auto") -> Array:
        """Logits float32 [n, C] for inputs [n, *shape], -inf for labels not learned. Pure; before any label C is 0."""

    def answer(self, x: Array) -> Answer:
        """`predict` for rows whose labels will come later, and what `learn` wants back with them in `batch.evidence`. Pure."""

    def learn(self, batch: Batch) -> LearnReport:
        """Test, then train, chunk by chunk in stream order: `report.logits[i]` answers row i before its own label.

        A chunked method answers all rows of a chunk from the state before it, in one pass of the chunk's shape, so that
        how many chunks come in one call changes no bit. An update that is not finite is undone and reported.
        Errors  ValueError when the batch is no whole number of chunks, or a label row is not below the stated bound.
        """

    def state(self) -> State:
        """A copy of all that `restore` needs to go on bit for bit: parameters, rates, memory, transforms, random state."""

    def restore(self, state: State) -> None:
        """Become the learner that gave `state`. Errors: CheckpointError naming what does not fit."""

    def answering(self) -> Answering:
        """What servers need: the name of a pure form, copies of its arrays, settings. Equal to `predict` within 1e-5."""

    def memory_labels(self) -> Mapping[int, int]:
        """Label row → number of rows of it held in the replay memory; empty for a learner without one."""


class Hastened(Protocol):
    """A learner that may have step sizes of its own, by which its weights move."""

    def hasten(self, factor: float) -> bool:
        """From the next row on each step size is this many times what it was. Called between two calls of `learn`.

        False, and nothing was done, when it has none. What was multiplied by f and by 1/f is what it was, as far as floats go.
        """


class MetaTrainer(Protocol):
    """Makes a warm start out of episodes, before the stream. Owned by one thread."""

    steps: int  # taken so far

    def step(self) -> MetaReport:
        """One meta-step. Which episodes it draws follows from the seed and `steps` alone; what is not finite moves nothing."""

    def validate(self) -> Mapping[str, float]:
        """`accuracy` and more on classes that no step sees; the best so far is kept for `initialisation`."""

    def initialisation(self) -> Initialisation:
        """The warm start that validated best, with the rate of deployment that validation chose; the first one before that."""

    def state(self) -> State:
        """A copy of all that `restore` needs to go on bit for bit."""

    def restore(self, state: State) -> None:
        """Become the trainer that gave `state`. Errors: CheckpointError naming both values of what does not fit."""


class Metric(Protocol):
    """A small accumulator over (label, answer before the label), honest before the first record: NaN."""

    def update(self, labels: Array, logits: Array) -> None:
        """Take rows in stream order: labels int64 [n], logits float32 [n, C] with C possibly 0 or below the label."""

    def values(self) -> Mapping[str, float]:
        """The metric's figures by name."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Detector(Protocol):
    """Watches one number per record for a change of its law."""

    def update(self, value: float) -> bool:
        """Take the next value; True when a change was detected at it."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Stateful(Protocol):
    """What a checkpoint is made of."""

    def state(self) -> State:
        """A copy of all that `restore` needs."""

    def restore(self, state: State) -> None:
        """Become what gave `state`. Errors: CheckpointError naming what does not fit."""


class Publisher(Protocol):
    """Hands snapshots to servers."""

    failed_writes: int  # snapshots, or signs of life, that the disk did not take

    def publish(self, snapshot: Snapshot) -> None:
        """Servers see all of it or none of it. Called by the learner's thread; never waits for a reader."""

    def beat(self) -> None:
        """Say that the learner lives, though nothing new is to be published. Called about once a second."""
