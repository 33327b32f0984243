"""Every Prometheus name, label, unit and meaning, in one list, and what each is read from.

`scrape.py` turns the list into the page that Prometheus scrapes; `docs/metrics.md` is made from it, and every alert and
every panel of the dashboard is held to it by a test.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from streamlearn.follower_files import BUCKETS, Servers
from streamlearn.records import Label

PREFIX = "streamlearn_"
OTHER = "other"
TOP_LABELS, MAX_PARTITIONS, MAX_MEMBERS, LABEL_CHARACTERS = 20, 100, 20, 64
OUTCOMES = ("learned", "rejected", "skipped")
REASONS = ("decode", "admit", "learn", "not_finite")
CODES = ("200", "400", "404", "500", "501", "503")
NOT_YET = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the loop knows of itself at one instant: plain numbers, replaced as a whole. NaN where there is nothing yet."""

    outcomes: Mapping[str, int] = field(default_factory=dict)  # of the whole stream, as the checkpoint holds them
    rejected: Mapping[str, int] = field(default_factory=dict)  # by reason, of the whole stream
    read_records: int = 0  # since the process began
    turns: int = 0  # since the process began
    pending: Mapping[str, int] = field(default_factory=dict)  # by stage
    dead_letters: int = 0  # written, since the process began
    dead_letters_lost: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)  # `Metrics.values()`
    measures: Mapping[str, float] = field(default_factory=dict)  # of the newest `LearnReport`
    labels: Sequence[Label] = ()  # by row
    max_labels: int = 0
    memory: Mapping[int, int] = field(default_factory=dict)  # label row → rows held
    memory_capacity: int = 0
    drift: Mapping[str, int] = field(default_factory=dict)  # detector → detections in the whole stream
    drift_times_s: Mapping[str, float] = field(default_factory=dict)  # detector → when it last fired, since the epoch
    checkpoint_number: float = NOT_YET
    checkpoint_bytes: float = NOT_YET
    checkpoint_time_s: float = NOT_YET
    snapshot_number: float = NOT_YET
    snapshot_time_s: float = NOT_YET
    source_up: bool = False
    source_errors: int = 0
    lag_records: Mapping[str, int] = field(default_factory=dict)  # by partition
    lag_s: float = NOT_YET
    last_record_time_s: float = NOT_YET
    prefetch_records: int = 0
    prefetch_bytes: int = 0
    followers: int = 0  # processes that run
    follower_restarts: int = 0
    device_bytes: Mapping[str, int] = field(default_factory=dict)  # empty without an accelerator


class Seen(NamedTuple):
    """What one scrape is made from."""

    now: Reading
    servers: Servers
    accuracy_floor: float


Values: TypeAlias = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. `read` is missing where it is observed as it happens."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    help: str
    read: Callable[[Seen], Values] | None = None
    label: str = ""
    values: tuple[str, ...] = ()  # known beforehand: these series exist from the first scrape
    limit: int = 0  # most values of a label whose values come from outside; the rest is summed up as `other`
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """With the prefix of the program."""
        return PREFIX + self.name


def _metric(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.metrics.get(name, NOT_YET)


def _measure(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.measures.get(name, NOT_YET)


def _shown(label: Label, row: int) -> str:
    """A label as text that no other label has: text that reads like an integer, or like `other`, stands in quotes."""
    text = str(label)
    if isinstance(label, str) and (text == OTHER or text.startswith('"') or text.lstrip("-").isdigit()):
        text = f'"{text}"'
    return text if len(text) <= LABEL_CHARACTERS else f"{text[:LABEL_CHARACTERS]}…{row}"


def _recalls(seen: Seen) -> Mapping[str, float]:
    found = {name.removeprefix("recall/"): v for name, v in seen.now.metrics.items() if name.startswith("recall/")}
    labels = seen.now.labels
    return {row if row == OTHER else _shown(labels[int(row)], int(row)): value for row, value in found.items()}


def _memory(seen: Seen) -> Mapping[str, float]:
    held = sorted(seen.now.memory.items(), key=lambda item: (-item[1], item[0]))
    return {_shown(seen.now.labels[row], row): count for row, count in held}


def _members(seen: Seen) -> Mapping[str, float]:
    prefix = "member_weight/"
    return {name.removeprefix(prefix): v for name, v in seen.now.measures.items() if name.startswith(prefix)}


MILLISECONDS_UP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SECONDS_UP = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

ROWS = (
    Row(
        "records_total",
        "counter",
        "records",
        "Records of the whole stream by outcome, as the checkpoint counts them; after a crash it goes on from the checkpoint",
        lambda s: s.now.outcomes,
        "outcome",
        OUTCOMES,
    ),
    Row("read_records_total", "counter", "records", "Records taken since the process began", lambda s: s.now.read_records),
    Row("turns_total", "counter", "turns", "Turns of the loop since the process began: its heartbeat", lambda s: s.now.turns),
    Row(
        "pending_records",
        "gauge",
        "records",
        "Records admitted and not learned yet, by what they wait for",
        lambda s: s.now.pending,
        "stage",
        ("chunk",),
    ),
    Row(
        "rejected_records_total",
        "counter",
        "records",
        "Rejected records of the whole stream: refused at a stage, or learned and undone because the update was not finite",
        lambda s: s.now.rejected,
        "reason",
        REASONS,
    ),
    Row("dead_letters_total", "counter", "records", "Dead letters since the process began", lambda s: s.now.dead_letters),
    Row(
        "dead_letters_lost_total",
        "counter",
        "records",
        "Dead letters that could not be written and were passed, since the process began",
        lambda s: s.now.dead_letters_lost,
    ),
    Row("accuracy_ratio", "gauge", "ratio", "Fading prequential accuracy: each row tested, then learned", _metric("accuracy")),
    Row("windowed_accuracy_ratio", "gauge", "ratio", "Prequential accuracy of a window", _metric("windowed_accuracy")),
    Row("balanced_accuracy_ratio", "gauge", "ratio", "Mean recall over all labels met", _metric("balanced_accuracy")),
    Row("no_change_accuracy_ratio", "gauge", "ratio", "Accuracy of repeating the last label", _metric("no_change_accuracy")),
    Row(
        "majority_accuracy_ratio",
        "gauge",
        "ratio",
        "Accuracy of always answering the most frequent label",
        _metric("majority_accuracy"),
    ),
    Row("accuracy_floor_ratio", "gauge", "ratio", "Configured floor of the accuracy; NaN: none", lambda s: s.accuracy_floor),
    Row("kappa", "gauge", "1", "Cohen's kappa of a window: agreement beyond chance, 1 at best", _metric("kappa")),
    Row("log_loss", "gauge", "nats", "Fading prequential log loss, floored for labels not learned yet", _metric("log_loss")),
    Row("class_recall_ratio", "gauge", "ratio", "Fading recall of a label", _recalls, "label", (OTHER,), 100),
    Row("learn_seconds", "histogram", "seconds", "Duration of one call of the learner", buckets=MILLISECONDS_UP),
    Row(
        "drift_detections_total",
        "counter",
        "detections",
        "Detections of drift in the whole stream",
        lambda s: s.now.drift,
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row(
        "drift_timestamp_seconds",
        "gauge",
        "seconds",
        "When a detector last fired, since the epoch",
        lambda s: {name: s.now.drift_times_s.get(name, NOT_YET) for name in s.now.drift},
        "detector",
        limit=MAX_MEMBERS,
    ),
    Row("gradient_alignment", "gauge", "1", "Cosine of new against replayed gradients", _measure("gradient_alignment")),
    Row("step_size_mean", "gauge", "1", "Mean of the learned step sizes", _measure("step_size_mean")),
    Row("step_size_zero_ratio", "gauge", "ratio", "Share of step sizes at zero", _measure("step_size_zero_ratio")),
    Row("update_norm", "gauge", "1", "Euclidean length of an update of the parameters", _measure("update_norm")),
    Row("member_weight_ratio", "gauge", "ratio", "Weight of a member of a pool", _members, "member", limit=MAX_MEMBERS),
    Row("memory_rows", "gauge", "rows", "Rows of the replay memory", _memory, "label", (OTHER,), TOP_LABELS),
    Row("memory_capacity_rows", "gauge", "rows", "Bound of the replay memory", lambda s: s.now.memory_capacity),
    Row("labels", "gauge", "labels", "Labels in the label map", lambda s: len(s.now.labels)),
    Row("labels_limit", "gauge", "labels", "Bound of the label map", lambda s: s.now.max_labels),
    Row("checkpoint_seconds", "histogram", "seconds", "Time to write a checkpoint, beside the loop", buckets=SECONDS_UP),
    Row("checkpoint_pause_seconds", "histogram", "seconds", "Pause of the loop for a checkpoint", buckets=MILLISECONDS_UP),
    Row("checkpoint_timestamp_seconds", "gauge", "seconds", "Time of the newest checkpoint", lambda s: s.now.checkpoint_time_s),
    Row("checkpoint_size_bytes", "gauge", "bytes", "Size of the newest checkpoint", lambda s: s.now.checkpoint_bytes),
    Row("checkpoint_number", "gauge", "chunks", "Number of the newest checkpoint", lambda s: s.now.checkpoint_number),
    Row("snapshot_number", "gauge", "chunks", "Number of the newest published snapshot", lambda s: s.now.snapshot_number),
    Row(
        "snapshot_timestamp_seconds",
        "gauge",
        "seconds",
        "When it was published, since the epoch",
        lambda s: s.now.snapshot_time_s,
    ),
    Row("publish_seconds", "histogram", "seconds", "Duration of publishing a snapshot", buckets=MILLISECONDS_UP),
    Row("source_up", "gauge", "1", "1 while the source answers, else 0", lambda s: float(s.now.source_up)),
    Row(
        "source_errors_total",
        "counter",
        "errors",
        "Errors of the source since the process began",
        lambda s: s.now.source_errors,
    ),
    Row(
        "lag_records",
        "gauge",
        "records",
        "Records upstream that were not taken yet",
        lambda s: s.now.lag_records,
        "partition",
        limit=MAX_PARTITIONS,
    ),
    Row("lag_seconds", "gauge", "seconds", "Age of the last record taken, 0 when nothing is waiting", lambda s: s.now.lag_s),
    Row(
        "last_record_timestamp_seconds",
        "gauge",
        "seconds",
        "Event time of the last record taken, since the epoch",
        lambda s: s.now.last_record_time_s,
    ),
    Row("prefetch_records", "gauge", "records", "Records read ahead of the loop", lambda s: s.now.prefetch_records),
    Row("prefetch_bytes", "gauge", "bytes", "Bytes read ahead of the loop", lambda s: s.now.prefetch_bytes),
    Row(
        "requests_total",
        "counter",
        "requests",
        "Requests answered since the process began, by status code",
        lambda s: s.servers.requests,
        "code",
        (*CODES, OTHER),
    ),
    Row("request_seconds", "histogram", "seconds", "Duration of a request, in the server", buckets=BUCKETS),
    Row("answered_rows_total", "counter", "rows", "Rows answered since the process began", lambda s: s.servers.rows),
    Row("posted_samples_total", "counter", "records", "Samples posted since the process began", lambda s: s.servers.samples),
    Row("followers", "gauge", "processes", "Follower processes that run", lambda s: s.now.followers),
    Row(
        "follower_restarts_total",
        "counter",
        "restarts",
        "Followers started again since the process began",
        lambda s: s.now.follower_restarts,
    ),
    Row("served_snapshot_number", "gauge", "chunks", "Least number that a follower serves", lambda s: s.servers.number),
    Row(
        "learner_silence_seconds",
        "gauge",
        "seconds",
        "The longest that a follower has not heard of the learner",
        lambda s: s.servers.silence_s,
    ),
    Row(
        "failed_loads_total",
        "counter",
        "loads",
        "Snapshots that a follower could not load, since the process began",
        lambda s: s.servers.failed_loads,
    ),
    Row(
        "device_memory_bytes",
        "gauge",
        "bytes",
        "Memory held on an accelerator; no series without one",
        lambda s: s.now.device_bytes,
        "device",
        limit=MAX_MEMBERS,
    ),
    Row("build_info", "info", "1", "Labels version and python: what runs"),
    Row("config_info", "info", "1", "Labels name, learner, model, source, device and digest: what was configured"),
)


def reference() -> str:
    """`docs/metrics.md`, from the list."""
    lines = [
        "# Metrics",
        "",
        "Made from `streamlearn/telemetry.py` by `python -m streamlearn.telemetry`; do not edit.",
        "",
        "One page, `http://HOST:8082/metrics` (`telemetry.host`, `telemetry.port`), shows the learner and its followers.",
        "A gauge is NaN until there is something to tell. The usual `process_*` metrics of the learner's process stand beside.",
        "",
        "| name | type | unit | labels | what it says |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{row.full_name}` | {row.kind} | {row.unit} | {_label_text(row)} | {row.help} |" for row in ROWS]
    return "\n".join(lines) + "\n"


def _label_text(row: Row) -> str:
    if not row.label:
        return ""
    known = ", ".join(f"`{value}`" for value in row.values if value != OTHER or not row.limit)
    bound = f"{row.limit} values at most, the rest is `{OTHER}`" if row.limit else ""
    return f"`{row.label}`: {known or bound}"


if __name__ == "__main__":
    sys.stdout.write(reference())
