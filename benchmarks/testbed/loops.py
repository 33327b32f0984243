"""A loop on a state directory, over fakes, for tests of what happens to records."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.testbed.fakes import MemoryPublisher, MemorySink, OrderLearner, PairDecoder
from streamlearn.admit import Admission, DeadLetters, Settings
from streamlearn.answers import AnswerLog, AnswersTo, NoAnswerLog
from streamlearn.checkpoint import Checkpoints, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.conformal import Conformal
from streamlearn.daemon import recover
from streamlearn.drift import Drift, Features, Reactions
from streamlearn.due import Due
from streamlearn.journal import Journal
from streamlearn.labels import LabelMap
from streamlearn.metrics import Metrics
from streamlearn.ownership import Ownership
from streamlearn.pending import Pending
from streamlearn.pending import Settings as PendingSettings
from streamlearn.prefetch import Intake, Prefetch
from streamlearn.prequential import Parts, Prequential
from streamlearn.probe import Probe
from streamlearn.probe import Settings as ProbeSettings
from streamlearn.protocols import Decoder, Publisher, Sink, Source

OUTCOMES = ("learned", "probe", "rejected", "skipped", "expired", "joined", "unmatched", "duplicate")


def no_probe() -> Probe:
    """A probe that takes nothing."""
    return Probe(ProbeSettings(share=0.0), seed=0)


def outcomes(**found: int) -> dict[str, int]:
    """As `Prequential.outcomes` tells them: what is not named is 0."""
    return dict.fromkeys(OUTCOMES, 0) | found


def loop_on(
    folder: Path,
    *,
    checkpoint_due: Due,
    answers: Sink | None = None,
    max_records: int = 20,
    letters: Sink | None = None,
    publisher: Publisher | None = None,
    pending: Pending | None = None,
    probe: Probe | None = None,
    drift: Drift.Settings = Drift.Settings(),  # noqa: B008  frozen
    learner: OrderLearner | None = None,
    keep: int = 100,
) -> Prequential:
    """A loop on a state directory, fresh: three rows a chunk, labels 0 and 1, and no clock."""
    dead_letters = DeadLetters(letters or MemorySink(), Settings(), clock_ms=lambda: 0)
    pending = pending or Pending(PendingSettings(), clock_ms=lambda: 0)
    admission = Admission(LabelMap(max_labels=9, known=(0, 1)), dead_letters, pending, probe or no_probe())
    log: AnswerLog = AnswersTo(answers, admission.labels, admission.positions, chunk=3) if answers else NoAnswerLog()
    parts = Parts(
        intake=Intake(max_records=64, max_bytes=1 << 20),
        journal=Journal(folder / "journal"),
        admission=admission,
        chunks=Chunks(3, (1,)),
        learner=learner or OrderLearner(chunk=3),
        metrics=Metrics.of(Metrics.Settings()),
        drift=Drift.of(drift, Features((1,))),
        reactions=Reactions(drift.then, chunk=3, hasten=getattr(learner, "hasten", None)),
        conformal=Conformal(Conformal.Settings()),
        answers=log,
        writer=CheckpointWriter(Checkpoints(folder / "checkpoints", keep=keep), clock_ms=lambda: 0),
        publisher=publisher or MemoryPublisher(),
    )
    return Prequential(
        parts,
        shape=(1,),
        checkpoint_due=checkpoint_due,
        publish_due=Due(every_s=0.0),
        max_records=max_records,
        clock_ms=lambda: 0,
    )


@contextlib.contextmanager
def started(
    folder: Path,
    source: Source,
    *,
    every_records: int = 10,
    answers: Sink | None = None,
    seed: int = 0,
    own: Ownership | None = None,
    letters: Sink | None = None,
    publisher: Publisher | None = None,
    decoder: Decoder | None = None,
    pending: Pending | None = None,
    probe: Probe | None = None,
    drift: Drift.Settings = Drift.Settings(),  # noqa: B008  frozen
    learner: OrderLearner | None = None,
    keep: int = 100,
) -> Iterator[Prequential]:
    """A loop on a state directory, restored from its newest checkpoint, its source read ahead by a real thread."""
    frozen = Due(every_s=1e9, every_count=every_records, clock=lambda: 0.0)
    most = random.Random(seed).randint(1, 20)
    loop = loop_on(
        folder,
        checkpoint_due=frozen,
        answers=answers,
        max_records=most,
        letters=letters,
        publisher=publisher,
        pending=pending,
        probe=probe,
        drift=drift,
        learner=learner,
        keep=keep,
    )
    recover(loop)
    if own is not None:
        loop.own(own)
    prefetch = Prefetch(
        lambda: source, decoder or PairDecoder(), loop.intake, shape=(1,), positions=dict(loop.admission.positions)
    )
    prefetch.start()
    try:
        yield loop
    finally:
        prefetch.stop(5.0)
        loop.writer.wait()
        loop.writer.close()
        loop.journal.close()
        if own is not None:
            own.release()


def drain(loop: Prequential) -> None:
    """Take turns until the source has ended."""
    while not loop.intake.drained:
        loop.turn(1.0)
    while loop.journal.script:
        loop.turn(0.0)
