"""Who looks at the loop from the learner's own thread: the page's `status.json`, Prometheus, and the servers' sign of life."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from streamlearn.checkpoint import Written
from streamlearn.disk import replace_file
from streamlearn.drift import SIGNALS
from streamlearn.prefetch import Prefetch
from streamlearn.prequential import Prequential, Turn
from streamlearn.reading import NOT_YET, Reading
from streamlearn.records import Json
from streamlearn.scrape import Telemetry
from streamlearn.status import Status, lags, late_facts, remember

log = structlog.get_logger()


class Servers:
    """What is known of the servers of either host."""

    def __init__(
        self,
        *,
        running: Callable[[], int] = lambda: 0,
        restarts: Callable[[], int] = lambda: 0,
        counts: Callable[[], Mapping[str, Json]] | None = None,
        counts_path: Path | None = None,
        device_bytes: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`counts` of a server in this process go to `counts_path`, where a follower of its own process would tell them."""
        self.running, self.restarts, self.device_bytes = running, restarts, device_bytes
        self._counts, self._counts_path = counts, counts_path

    def tell(self) -> None:
        """Write the counts, where there are any to write."""
        if self._counts is not None and self._counts_path is not None:
            replace_file(self._counts_path, msgspec.json.encode(self._counts()))


class LoopWatch:
    """Implements `daemon.Watch`."""

    def __init__(
        self,
        loop: Prequential,
        prefetch: Prefetch,
        *,
        status: Status,
        telemetry: Telemetry,
        servers: Servers,
        folders: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        """`folders` are those whose disks may become full, by name."""
        self._loop, self._prefetch, self._status, self._telemetry, self._servers = loop, prefetch, status, telemetry, servers
        self._folders, self._refused = folders, {"journal": 0, "status": 0}
        self._turns, self._event_ms = 0, math.nan
        self._measures: dict[str, float] = {}
        self._drift_times_s: dict[str, dict[str, float]] = {on: {} for on in SIGNALS}
        loop.writer.on_durable.append(self._saved)

    def reads(self, prefetch: Prefetch) -> None:
        """Another thread reads ahead from now on."""
        self._prefetch = prefetch

    def saw(self, turn: Turn) -> None:
        """After every turn."""
        self._turns += 1
        self._refused["journal"] += turn.refused
        self._status.saw(turn)
        remember(self._measures, turn.measures)
        if turn.event_ms is not None:
            self._event_ms = turn.event_ms
        if turn.answered:
            self._telemetry.learn_seconds.observe(turn.learn_s)
        if turn.probe_s:
            self._telemetry.probe_seconds.observe(turn.probe_s)
        for delay_s in turn.delays_s:
            self._telemetry.label_delay_seconds.observe(delay_s)
        for mark in turn.marks:
            self._drift_times_s[mark.on][mark.detector] = time.time()
        pauses = self._loop.pauses
        if pauses.checkpoint_s is not None:
            self._telemetry.checkpoint_pause_seconds.observe(pauses.checkpoint_s)
        if pauses.publish_s is not None:
            self._telemetry.publish_seconds.observe(pauses.publish_s)

    def report(self, phase: str) -> None:
        """Once a second: write, show, beat. A disk that is full does not stop the learning."""
        kept = self._loop.writer.store.kept()
        self._telemetry.show(self._reading(kept))
        self._loop.publisher.beat()
        try:
            self._status.write(self._prefetch.upstream, phase=phase, kept=kept)
            self._servers.tell()
        except OSError as error:
            self._refused["status"] += 1
            log.warning("status.not_written", error=str(error), next_step="trying again in a second")

    def _saved(self, _: Written, seconds: float) -> None:
        self._telemetry.checkpoint_seconds.observe(seconds)
        self._status.checkpoint_s = seconds

    def _reading(self, kept: Sequence[str]) -> Reading:
        loop, upstream = self._loop, self._prefetch.upstream
        admission, saved, shown = loop.admission, loop.writer.last, loop.published
        lag = lags(upstream.ends, admission.positions)
        ahead, names = self._prefetch.intake.sizes(), loop.drift.inputs.names
        return Reading(
            outcomes=loop.outcomes(),
            rejected={**admission.rejected, "not_finite": loop.tally.undone},
            read_records=loop.read,
            turns=self._turns,
            pending=loop.waiting(),
            late=late_facts(loop.pending),
            conformal=loop.conformal.values(),
            probe=loop.probe.values(),
            contexts=loop.contexts.values(),
            eras={about: list(now) for about, now in loop.probe.now.items()},
            classes=dict(loop.probe.classes),
            dead_letters=admission.dead_letters.written,
            dead_letters_lost=admission.dead_letters.lost,
            metrics=loop.metrics.values(),
            measures=dict(self._measures),
            labels=admission.labels.by_row,
            max_labels=admission.labels.max_labels,
            memory=loop.learner.memory_labels(),
            memory_capacity=loop.learner.memory_capacity,
            drift=dict(loop.drift.counts),
            drift_times_s=dict(self._drift_times_s["error"]),
            input_drift=dict(loop.drift.input_counts),
            input_drift_times_s=dict(self._drift_times_s["inputs"]),
            drift_alerts=loop.reactions.alerts(),
            classes_moved={each.which: each.size for each in loop.drift.newest("error")},
            features_moved={names[each.which]: each.size for each in loop.drift.newest("inputs")},
            step_size_factor=loop.reactions.faster,
            kept_checkpoints=len(kept),
            disk_refusals={**self._refused, "checkpoint": loop.writer.failed, "snapshot": loop.publisher.failed_writes},
            disk_free_bytes={name: _free(folder) for name, folder in self._folders.items()},
            checkpoint_number=saved.number if saved else NOT_YET,
            checkpoint_bytes=saved.size_bytes if saved else NOT_YET,
            checkpoint_time_s=saved.created_ms / 1000 if saved else NOT_YET,
            snapshot_number=shown.number if shown else NOT_YET,
            snapshot_time_s=shown.published_ms / 1000 if shown else NOT_YET,
            source_up=upstream.ok,
            source_errors=upstream.errors,
            commit_errors=upstream.commit_errors,
            lag_records=lag,
            lag_s=max(0.0, time.time() - self._event_ms / 1000) if sum(lag.values()) else 0.0,
            last_record_time_s=self._event_ms / 1000,
            prefetch_records=ahead[0],
            prefetch_bytes=ahead[1],
            followers=self._servers.running(),
            follower_restarts=self._servers.restarts(),
            device_bytes=self._servers.device_bytes(),
        )


def _free(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return NOT_YET
