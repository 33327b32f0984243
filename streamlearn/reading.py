"""What the loop knows of itself at one instant, and how the value of a metric is found in it.

`telemetry/` lists the metrics; each names one of these functions, or a field.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from streamlearn.follower_files import Servers
from streamlearn.records import Label

OTHER = "other"
TOP_LABELS, LABEL_CHARACTERS = 20, 64
ABOUTS = ("auto", "ever")
NOT_YET = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the loop knows of itself at one instant: plain numbers, replaced as a whole. NaN where there is nothing yet."""

    outcomes: Mapping[str, int] = field(default_factory=dict)  # of the whole stream, as the checkpoint holds them
    rejected: Mapping[str, int] = field(default_factory=dict)  # by reason, of the whole stream
    read_records: int = 0  # since the process began
    turns: int = 0  # since the process began
    pending: Mapping[str, int] = field(default_factory=dict)  # by what they wait for
    late: Mapping[str, float] = field(default_factory=dict)  # `status.late_facts`
    conformal: Mapping[float, tuple[float, float]] = field(default_factory=dict)  # coverage → its share of hits, mean size
    probe: Mapping[str, float] = field(default_factory=dict)  # `Probe.values()`
    eras: Mapping[str, Sequence[float]] = field(default_factory=dict)  # about → accuracy by era
    classes: Mapping[int, float] = field(default_factory=dict)  # label row → accuracy on the probe
    contexts: Mapping[str, float] = field(default_factory=dict)  # `Contexts.values()`
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
    input_drift: Mapping[str, int] = field(default_factory=dict)  # the same on the inputs
    input_drift_times_s: Mapping[str, float] = field(default_factory=dict)
    drift_alerts: Mapping[str, float] = field(default_factory=dict)  # `Reactions.alerts()`
    classes_moved: Mapping[int, float] = field(default_factory=dict)  # label row → rise of its error, at the newest detection
    features_moved: Mapping[str, float] = field(default_factory=dict)  # feature → deviations that it moved by, the same
    step_size_factor: float = 1.0
    kept_checkpoints: int = 0
    disk_refusals: Mapping[str, int] = field(default_factory=dict)  # by what was not written, since the process began
    disk_free_bytes: Mapping[str, float] = field(default_factory=dict)  # by folder
    checkpoint_number: float = NOT_YET
    checkpoint_bytes: float = NOT_YET
    checkpoint_time_s: float = NOT_YET
    snapshot_number: float = NOT_YET
    snapshot_time_s: float = NOT_YET
    source_up: bool = False
    source_errors: int = 0
    commit_errors: int = 0  # positions that lag tools were not told of, since the process began
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


def metric(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.metrics.get(name, NOT_YET)


def measure(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.measures.get(name, NOT_YET)


def late(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.late.get(name, NOT_YET)


def conformal(which: int) -> Callable[[Seen], Mapping[str, float]]:
    return lambda seen: {str(coverage): found[which] for coverage, found in seen.now.conformal.items()}


def probe(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.probe.get(name, NOT_YET)


def visits(name: str) -> Callable[[Seen], float]:
    return lambda seen: seen.now.contexts.get(name, NOT_YET)


def by_about(name: str) -> Callable[[Seen], Values]:
    return lambda seen: {about: seen.now.probe.get(f"{name}/{about}", NOT_YET) for about in ABOUTS}


def by_era(about: str) -> Callable[[Seen], Values]:
    return lambda seen: {str(era): value for era, value in enumerate(seen.now.eras.get(about, ()))}


def class_probe(seen: Seen) -> Mapping[str, float]:
    """The worst classes: those are the ones that have to be seen."""
    worst = sorted(seen.now.classes.items(), key=lambda item: (item[1], item[0]))
    return {shown(seen.now.labels[row], row): share for row, share in worst[:TOP_LABELS]}


def fired(times_s: Mapping[str, float], detectors: Mapping[str, int]) -> Mapping[str, float]:
    """When each last did; a detector that never did has a series too."""
    return {name: times_s.get(name, NOT_YET) for name in detectors}


def classes_moved(seen: Seen) -> Mapping[str, float]:
    return {shown(seen.now.labels[row], row): size for row, size in seen.now.classes_moved.items()}


def features_moved(seen: Seen) -> Mapping[str, float]:
    return {_cut(name, i): size for i, (name, size) in enumerate(seen.now.features_moved.items())}


def unlabelled(seen: Seen) -> Mapping[str, float]:
    names = {"low": "estimate_low", "estimate": "estimate", "high": "estimate_high"}
    return {bound: seen.now.late.get(name, NOT_YET) for bound, name in names.items()}


def free(folders: Sequence[str]) -> Callable[[Seen], Mapping[str, float]]:
    return lambda seen: {folder: seen.now.disk_free_bytes.get(folder, NOT_YET) for folder in folders}


def expiries(seen: Seen) -> Mapping[str, float]:
    return {reason: seen.now.late.get(f"expired_by_{reason}", 0.0) for reason in ("time", "bound")}


def shown(label: Label, row: int) -> str:
    """A label as text that no other label has: text that reads like an integer, or like `other`, stands in quotes."""
    text = str(label)
    if isinstance(label, str) and (text == OTHER or text.startswith('"') or text.lstrip("-").isdigit()):
        text = f'"{text}"'
    return _cut(text, row)


def _cut(text: str, row: int) -> str:
    return text if len(text) <= LABEL_CHARACTERS else f"{text[:LABEL_CHARACTERS]}…{row}"


def recalls(seen: Seen) -> Mapping[str, float]:
    found = {name.removeprefix("recall/"): v for name, v in seen.now.metrics.items() if name.startswith("recall/")}
    labels = seen.now.labels
    return {row if row == OTHER else shown(labels[int(row)], int(row)): value for row, value in found.items()}


def memory(seen: Seen) -> Mapping[str, float]:
    held = sorted(seen.now.memory.items(), key=lambda item: (-item[1], item[0]))
    return {shown(seen.now.labels[row], row): count for row, count in held}


def members(seen: Seen) -> Mapping[str, float]:
    prefix = "member_weight/"
    return {name.removeprefix(prefix): v for name, v in seen.now.measures.items() if name.startswith(prefix)}
