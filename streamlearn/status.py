"""`status.json`: what the page shows, rewritten once a second by the learner's thread. Nothing here is part of the state.

Schema  {name, learner, phase, started_ms, updated_ms, number, records_per_second, outcomes: {outcome: records},
    pending: rows that wait for their chunk, waiting: {label: samples, sample: labels}, late: figures of `late_facts`,
    contexts: figures of `Contexts.values`,
    probe: figures of `Probe.values`, eras: {auto: [accuracy], ever: [accuracy], matrix: [[accuracy]] of auto, a row an era's
    end and one for now, era_records, best: [accuracy of auto at an era's end], best_at: [labelled records then]},
    classes: [[label, accuracy, its best at an era's end, labelled records then]] worst first,
    lag: {partition: records}, accuracy: figures of `Metrics.values` by name,
    recall: [[label, ratio]], measures: {name: number}, memory: [[label, rows]], labels: number of labels,
    history: {time_ms, learned, accuracy, windowed, throughput, lag, step_size_mean, step_size_zero_ratio,
    gradient_alignment: [number or null]}, drift: [{learned, detector, on: error or inputs, time_ms, moved: [{name, before, now,
    size}]}], drift_counts: {error: {detector: number}, inputs: …}, alerts: {error, inputs: 0 or 1}, faster: factor of the step
    sizes now, kept: [names of checkpoints that a drift kept], sets: [[coverage, share of hits, mean size]],
    checkpoint: {name, number, time_ms, size_bytes, duration_s} or null, snapshot: {number, time_ms} or null,
    rejected: [{place, reason, stage, time_ms}], source: {ok, message, errors}}. A number that does not exist yet is null.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from streamlearn.disk import replace_file
from streamlearn.drift import Mark
from streamlearn.pending import Pending
from streamlearn.prefetch import Upstream
from streamlearn.prequential import Prequential, Turn
from streamlearn.probe import Probe
from streamlearn.records import Json, Positions

log = structlog.get_logger()

POINTS = 600
MEASURED = ("step_size_mean", "step_size_zero_ratio", "gradient_alignment")
COLUMNS = ("time_ms", "learned", "accuracy", "windowed", "throughput", "lag", *MEASURED)
TOP_LABELS = 20


class History:
    """Curves over the life of the state directory, in at most `POINTS` points: when full, every other point goes."""

    def __init__(self, points: int = POINTS) -> None:
        self._points = points
        self._every, self._ticks = 1, 0
        self.columns: dict[str, list[Json]] = {name: [] for name in COLUMNS}

    def add(self, **values: float | None) -> None:
        """A point, unless the curve has become coarser than its ticks."""
        self._ticks += 1
        if self._ticks % self._every:
            return
        for name in COLUMNS:
            self.columns[name].append(values[name])
        if len(self.columns["time_ms"]) >= self._points:
            self._every *= 2
            self.columns = {name: column[1::2] for name, column in self.columns.items()}

    def restore(self, columns: Mapping[str, list[Json]], *, learned: int) -> None:
        """The curves of an earlier process, up to what the restored state had learned."""
        keep = [i for i, count in enumerate(columns["learned"]) if count <= learned]
        unknown: list[Json] = [None] * len(columns["learned"])
        self.columns = {name: [columns.get(name, unknown)[i] for i in keep] for name in COLUMNS}
        self._every = 2 if len(keep) > self._points // 2 else 1


class Status:
    """Gathers what the loop did and writes it, whole or not at all."""

    def __init__(self, path: Path, loop: Prequential, facts: Mapping[str, Json], *, clock_ms: Callable[[], int]) -> None:
        self._path, self._loop, self._facts, self._clock_ms = path, loop, dict(facts), clock_ms
        self._started_ms = clock_ms()
        self._history = History()
        self._marks: deque[dict[str, Json]] = deque(maxlen=100)
        self._measures: dict[str, float] = {}
        self._read, self._since_ms = 0, self._started_ms
        self.checkpoint_s = math.nan
        self._resume()

    def _resume(self) -> None:
        learned = self._loop.tally.learned
        try:
            before = msgspec.json.decode(self._path.read_bytes())
            self._history.restore(before["history"], learned=learned)
            self._marks.extend(mark for mark in before["drift"] if mark["learned"] <= learned)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            log.warning("status.unreadable", path=str(self._path), error=str(error), next_step="the curves begin anew")

    def saw(self, turn: Turn) -> None:
        """Called after every turn."""
        self._read += turn.read
        remember(self._measures, turn.measures)
        self._marks.extend(self._told(mark) for mark in turn.marks if self._loop.reactions.does("mark", mark))

    def _told(self, mark: Mark) -> dict[str, Json]:
        moved = [
            {"name": name, "before": each.before, "now": each.now, "size": each.size}
            for name, each in zip(self._loop.moved(mark), mark.moved, strict=True)
        ]
        return {
            "learned": mark.row,
            "detector": mark.detector,
            "on": mark.on,
            "time_ms": self._clock_ms(),
            "moved": moved,
        }

    def write(self, upstream: Upstream, *, phase: str, kept: Sequence[str]) -> None:
        """Called once a second; `kept` are the names of checkpoints that retention does not remove."""
        now_ms = self._clock_ms()
        seconds = max(1, now_ms - self._since_ms) / 1000
        throughput, self._read, self._since_ms = self._read / seconds, 0, now_ms
        lag = lags(upstream.ends, self._loop.admission.positions)
        values = self._loop.metrics.values()
        self._history.add(
            time_ms=now_ms,
            learned=self._loop.tally.learned,
            accuracy=known(values["accuracy"]),
            windowed=known(values["windowed_accuracy"]),
            throughput=throughput,
            lag=sum(lag.values()),
            **{name: known(self._measures.get(name, math.nan)) for name in MEASURED},
        )
        status = (
            self._facts
            | self._figures(values)
            | self._durable()
            | {
                "phase": phase,
                "started_ms": self._started_ms,
                "updated_ms": now_ms,
                "records_per_second": throughput,
                "lag": lag,
                "history": self._history.columns,
                "drift": list(self._marks),
                "drift_counts": {"error": dict(self._loop.drift.counts), "inputs": dict(self._loop.drift.input_counts)},
                "alerts": self._loop.reactions.alerts(),
                "faster": self._loop.reactions.faster,
                "sets": [[each, *map(known, found)] for each, found in self._loop.conformal.values().items()],
                "kept": kept,
                "source": {"ok": upstream.ok, "message": upstream.message, "errors": upstream.errors},
            }
        )
        replace_file(self._path, msgspec.json.encode(status))

    def _figures(self, values: Mapping[str, float]) -> dict[str, Json]:
        loop = self._loop
        by_row = loop.admission.labels.by_row
        recall = {k.removeprefix("recall/"): v for k, v in values.items() if k.startswith("recall/")}
        memory = sorted(loop.composition().items(), key=lambda item: -item[1])
        others = sum(rows for _, rows in memory[TOP_LABELS:])
        return {
            "number": loop.tally.number,
            "outcomes": loop.outcomes(),
            "pending": len(loop.chunks),
            "waiting": loop.pending.waiting(),
            "late": {name: known(value) for name, value in late_facts(loop.pending).items()},
            "contexts": {name: known(value) for name, value in loop.contexts.values().items()},
            "probe": {name: known(value) for name, value in loop.probe.values().items()},
            "eras": _eras(loop.probe),
            "classes": [[str(by_row[row]), *shares] for row, shares in _worst(loop.probe)],
            "labels": len(by_row),
            "accuracy": {name: known(value) for name, value in values.items() if not name.startswith("recall/")},
            "recall": [[str(by_row[int(row)]) if row.isdigit() else row, known(ratio)] for row, ratio in recall.items()],
            "measures": {name: known(value) for name, value in self._measures.items()},
            "memory": [[str(label), rows] for label, rows in memory[:TOP_LABELS]] + ([["other", others]] if others else []),
        }

    def _durable(self) -> dict[str, Json]:
        last = self._loop.writer.last
        saved = last and {
            "name": last.name,
            "number": last.number,
            "time_ms": last.created_ms,
            "size_bytes": last.size_bytes,
            "duration_s": known(self.checkpoint_s),
        }
        shown = self._loop.published
        served = shown and {"number": shown.number, "time_ms": shown.published_ms}
        rejected = list(self._loop.admission.dead_letters.last)
        return {"checkpoint": saved, "snapshot": served, "rejected": rejected}


def remember(measures: dict[str, float], new: Mapping[str, float]) -> None:
    """Take new figures; one that was not measured this time stays what it was."""
    measures.update({name: value for name, value in new.items() if not math.isnan(value) or name not in measures})


def lags(ends: Positions | None, positions: Positions) -> dict[str, int]:
    """Records upstream that were not admitted yet, by partition."""
    return {name: max(0, end - positions.get(name, 0)) for name, end in (ends or {}).items()}


def _eras(probe: Probe) -> dict[str, Json]:
    now = {about: [known(value) for value in values] for about, values in probe.now.items()}
    best = [found or (None, None) for found in probe.best_of_eras()]
    bests: dict[str, Json] = {"best": [value for value, _ in best], "best_at": [at for _, at in best]}
    return now | bests | {"matrix": probe.accuracy_matrix(), "era_records": probe.era_records}


def _worst(probe: Probe) -> list[tuple[int, list[Json]]]:
    """Label rows, each with its accuracy now, its best, and when that was."""
    worst = sorted(probe.classes.items(), key=lambda item: (item[1], item[0]))[:TOP_LABELS]
    return [(row, [value, *probe.best.get(row, (None, None))]) for row, value in worst]


def late_facts(pending: Pending) -> dict[str, float]:
    """What is known of answers whose labels came late, or have not come: numbers by name, NaN where there is none yet."""
    low, estimate, high = pending.estimate()
    return {
        "bytes": pending.size_bytes,
        "served_accuracy": pending.served.value,
        "estimate_low": low,
        "estimate": estimate,
        "estimate_high": high,
        "bias": pending.calibration.bias,
        "unanswered": pending.unanswered,
        "expired_by_time": pending.expiries["time"],
        "expired_by_bound": pending.expiries["bound"],
    }


def known(value: float) -> float | None:
    """JSON has no NaN: what does not exist yet is null."""
    return float(value) if math.isfinite(value) else None
