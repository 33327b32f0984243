"""A loop on a state directory, over fakes, for tests of what happens to records."""

import contextlib
import random

from streamlearn.admit import Admission, DeadLetters, Settings
from streamlearn.answers import AnswersTo, NoAnswerLog
from streamlearn.checkpoint import Checkpoints, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.daemon import recover
from streamlearn.drift import Drift
from streamlearn.due import Due
from streamlearn.journal import Journal
from streamlearn.labels import LabelMap
from streamlearn.metrics import Metrics
from streamlearn.prefetch import Intake, Prefetch
from streamlearn.prequential import Parts, Prequential
from tests.fakes import MemoryPublisher, MemorySink, OrderLearner, PairDecoder


def loop_on(folder, *, checkpoint_due, answers=None, max_records=20, letters=None):
    """A loop on a state directory, fresh: three rows a chunk, labels 0 and 1, and no clock."""
    dead_letters = DeadLetters(letters or MemorySink(), Settings(), clock_ms=lambda: 0)
    admission = Admission(LabelMap(max_labels=9, known=(0, 1)), dead_letters)
    log = AnswersTo(answers, admission.labels, admission.positions, chunk=3) if answers else NoAnswerLog()
    parts = Parts(
        intake=Intake(max_records=64, max_bytes=1 << 20),
        journal=Journal(folder / "journal"),
        admission=admission,
        chunks=Chunks(3, (1,)),
        learner=OrderLearner(chunk=3),
        metrics=Metrics.of(Metrics.Settings()),
        drift=Drift.of(Drift.Settings()),
        answers=log,
        writer=CheckpointWriter(Checkpoints(folder / "checkpoints", keep=100), clock_ms=lambda: 0),
        publisher=MemoryPublisher(),
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
def started(folder, source, *, every_records=10, answers=None, seed=0, own=None):
    """A loop on a state directory, restored from its newest checkpoint, its source read ahead by a real thread."""
    frozen = Due(every_s=1e9, every_count=every_records, clock=lambda: 0.0)
    loop = loop_on(folder, checkpoint_due=frozen, answers=answers, max_records=random.Random(seed).randint(1, 20))
    recover(loop)
    if own is not None:
        loop.own(own)
    prefetch = Prefetch(lambda: source, PairDecoder(), loop.intake, shape=(1,), positions=dict(loop.admission.positions))
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


def drain(loop):
    while not loop.intake.drained:
        loop.turn(1.0)
