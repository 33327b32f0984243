"""Life and death of the process: what starts in which order, signals, and what stops in which order.

The learner's thread is the main thread; it runs `Prequential.turn` until it is told to stop, the source ends, or something that
nobody may handle happens. The first signal means: finish the turn, checkpoint, stop serving, exit 0. The second one means: now.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

import structlog

from streamlearn.checkpoint import FIRST, Checkpoint, Written
from streamlearn.control import Requests, go_back, kept
from streamlearn.errors import CheckpointError, ConfigError, DiskError
from streamlearn.ownership import Ownership
from streamlearn.prefetch import Prefetch
from streamlearn.prequential import Prequential, Turn
from streamlearn.records import Json
from streamlearn.rollback import Resume
from streamlearn.share import Share

log = structlog.get_logger()

IDLE_WAIT_S = 0.1
EVERYTHING = Share()


class Service(Protocol):
    """Something that runs beside the loop: servers, /metrics, the feeder of the demo."""

    def start(self) -> None:
        """Errors: ConfigError when its port is in use."""

    def withdraw(self) -> None:
        """Begin to end: no longer ready, though what is in progress is answered. Returns at once; `stop` follows."""

    def stop(self, timeout_s: float) -> None:
        """Withdraw, and return when it has ended. May be called when it never started, and twice."""


class Watch(Protocol):
    """Who looks at the loop: `status.json` and /metrics."""

    def saw(self, turn: Turn) -> None:
        """After every turn; costs next to nothing."""

    def reads(self, prefetch: Prefetch) -> None:
        """After a rollback another thread reads ahead."""

    def report(self, phase: str) -> None:
        """About once a second, and at each change of phase."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each step of a graceful stop may take; without `drain_s`, together below the 30 s that orchestrators give."""

    source_s: float = 5.0
    services_s: float = 8.0  # for what is in progress, once the time to drain is over
    drain_s: float = 0.0  # between not being ready and closing


class Daemon:
    """A loop, the thread that reads ahead for it, and the services around them, on one state directory."""

    def __init__(
        self,
        *,
        state_dir: Path,
        loop: Prequential,
        make_prefetch: Callable[[dict[str, int]], Prefetch],
        make_watch: Callable[[Prefetch], Watch],
        services: Sequence[Service] = (),
        close: Callable[[], None] = lambda: None,
        share: Share = EVERYTHING,
        deadlines: Deadlines | None = None,
        requests: Requests | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop, self._state_dir, self._services = loop, state_dir, list(services)
        self._make_prefetch, self._make_watch, self._close, self._share = make_prefetch, make_watch, close, share
        self._deadlines, self._clock, self._requests = deadlines or Deadlines(), clock, requests
        self._signal: int | None = None
        self._refused = 0  # times in a row that the disk took nothing
        self.stopping = False

    def run(self, *, take_over: bool = False) -> None:
        """Until a signal or the end of the source; then checkpoint and return.

        Errors  ConfigError, CheckpointError before anything was read; SourceError, DecodeError, SinkError while running;
                CheckpointError when another daemon has taken over.
        """
        ownership = Ownership(self._state_dir, take_over=take_over)
        try:
            recover(self.loop)
            self.loop.own(ownership)
            if self._requests is not None:
                self._requests.begin()
            self._run()
        finally:
            self._close()
            ownership.release()

    def _run(self) -> None:
        self._prefetch = prefetch = self._make_prefetch(dict(self.loop.admission.positions))
        watch = self._make_watch(prefetch)
        self.loop.writer.on_durable.append(lambda written, _: self._tell(written))
        self.loop.publish()  # servers can be ready before the first record
        watch.report("starting")
        started: list[Service] = []
        try:
            for service in self._services:
                service.start()
                started.append(service)
            self._share.take()  # from here on, so that servers do not have the learner's share
            prefetch.start()
            log.info("daemon.started", number=self.loop.tally.number, positions=dict(self.loop.admission.positions))
            self._turns(watch)
            self._drain(started)
        finally:
            self._stop(watch, started)

    def _turns(self, watch: Watch) -> None:
        watch.report("running")
        next_report = self._clock() + 1.0
        while not self.stopping and not self._prefetch.intake.drained:
            watch.saw(self._turn())
            if self._clock() >= next_report:
                self._obey(watch)
                watch.report("running")
                next_report = self._clock() + 1.0

    def _obey(self, watch: Watch) -> None:
        """One request of an administrator, if there is any, between two turns."""
        asked = None if self._requests is None else self._requests.next()
        if asked is None or self._requests is None:
            return
        name, request = asked
        store = self.loop.writer.store
        try:
            if request.kind == "index":
                answer: dict[str, Json] = {"numbers": sorted({store.number(each) for each in store.names()})}
            else:
                answer = self._go_back(kept(store, request.number), request.resume, watch)
        except ConfigError as error:
            answer = {"error": str(error), "status": 404}
        except CheckpointError as error:
            answer = {"error": str(error), "status": 503}
        self._requests.answer(name, answer)

    def _go_back(self, old: Checkpoint, resume: Resume, watch: Watch) -> dict[str, Json]:
        """The older model is what is served when this returns."""
        self._prefetch.stop(self._deadlines.source_s)
        self.loop.intake = self.loop.intake.anew()
        try:
            written = go_back(self.loop, old, resume, now_ms=time.time_ns() // 1_000_000)
        finally:
            self._prefetch = self._make_prefetch(dict(self.loop.admission.positions))
            watch.reads(self._prefetch)
            self._prefetch.start()
        self.loop.publish()
        self._tell(written)
        return {"number": written.number, "positions": dict(written.positions), "model_digest": written.model_digest}

    def _turn(self) -> Turn:
        """A turn, or a pause while the disk takes nothing: servers go on answering, and the source is not read further."""
        try:
            turn = self.loop.turn(IDLE_WAIT_S)
        except DiskError as error:
            self._refused += 1
            if self._refused.bit_count() == 1:  # the 1st, 2nd, 4th, … time
                log.error("disk.refuses", error=str(error), times=self._refused, next_step="learning waits and tries again")
            time.sleep(IDLE_WAIT_S)  # nothing tells that a disk has room again
            return Turn(refused=True)
        self._refused = 0
        return turn

    def _drain(self, services: Sequence[Service]) -> None:
        """Traffic goes elsewhere while the last checkpoint is made; it holds every record that was taken."""
        log.info("daemon.draining", reason=f"signal {self._signal}" if self._signal else "end of source")
        for service in services:
            service.withdraw()
        self._prefetch.halt()
        self.loop.publish()
        self._last_checkpoint()

    def _last_checkpoint(self) -> None:
        writer = self.loop.writer
        writer.wait()
        failed = writer.failed
        self.loop.begin_checkpoint()
        writer.wait()
        if writer.failed > failed:
            raise CheckpointError(
                "the last checkpoint could not be written: the one before it stands, the rest is learned again"
            )

    def _stop(self, watch: Watch, services: Sequence[Service]) -> None:
        watch.report("stopping")
        for service in reversed(services):
            service.stop(self._deadlines.drain_s + self._deadlines.services_s)
        self._prefetch.stop(self._deadlines.source_s)
        self.loop.writer.close()
        self.loop.journal.close()
        watch.report("stopped")

    def _tell(self, written: Written) -> None:
        told = {"model_version": written.number, "positions": dict(written.positions), "size_bytes": written.size_bytes}
        log.info("checkpoint.written", name=written.name, **told)
        self._prefetch.durable(written.positions)
        self.loop.journal.cut(self.loop.writer.store.oldest_segment())

    def stop(self, number: int = 0, _: FrameType | None = None) -> None:
        """Signal handler, and callable from any thread: first call drains, a second signal ends the process at once."""
        if self.stopping and number:
            os._exit(128 + number)
        self.stopping, self._signal = True, number
        self.loop.intake.wake()

    def take_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this daemon. Called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)


def recover(loop: Prequential) -> Written | None:
    """Bring a loop to its newest checkpoint and its journal to what followed; the checkpoint, or None at a first start.

    Errors  CheckpointError when the checkpoints are damaged, do not fit, or are missing although the journal is cut.
    """
    found = loop.writer.store.newest()
    if found is None:
        from_the_first(loop)
        return None
    checkpoint, written = found
    from_checkpoint(loop, checkpoint)
    loop.writer.last = written
    log.info("daemon.restored", name=written.name, number=written.number, state_digest=written.state_digest)
    return written


def from_the_first(loop: Prequential) -> None:
    """Bring a fresh loop and its journal to where reading began, if that was before. Errors: CheckpointError."""
    loop.journal.resume(FIRST)
    _begin_where_it_began(loop)


def from_checkpoint(loop: Prequential, checkpoint: Checkpoint) -> None:
    """Bring a loop and its journal to where a checkpoint was taken, be it before the first record. Errors: CheckpointError."""
    loop.restore(checkpoint)
    loop.journal.resume(**checkpoint.journal)
    _begin_where_it_began(loop)


def _begin_where_it_began(loop: Prequential) -> None:
    entry = loop.journal.scripted()
    if entry is not None and entry["kind"] == "start":
        loop.admission.positions.update(entry["positions"])
        loop.journal.took()
