"""The values that travel through the daemon. All are plain data over numpy; none knows torch, clocks or files."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamlearn.schema import Schema

Array: TypeAlias = NDArray[Any]
Json: TypeAlias = Any
"""What `json.dumps` takes without help: None, bool, int, float, str, list, and dict with string keys."""

Label: TypeAlias = str | int
"""A label on the wire. `1` and `"1"` are different labels."""

Positions: TypeAlias = Mapping[str, int]
"""Partition name → where the next read begins: one past the last record."""

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
NO_EVIDENCE = np.zeros(0, np.float32)
Headers: TypeAlias = tuple[tuple[str, bytes], ...]
KIND = "streamlearn-kind"
"""Name of the header that a record bears which is no sample."""
LABEL: Headers = ((KIND, b"label"),)
ANSWER: Headers = ((KIND, b"answer"),)
About: TypeAlias = Literal["now", "ever", "auto"]
"""What a question is about: the present only, all that was ever learned, or whichever the input looks like."""


class Message(NamedTuple):
    """What a sink is asked to write."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    time_ms: int | None = None  # since the epoch, UTC


class Record(NamedTuple):
    """What a source read. `place` is how messages and logs name it."""

    partition: str  # "orders[3]": one name for topic and partition, everywhere
    position: int
    value: bytes | None  # None is a tombstone
    key: bytes | None = None
    headers: Headers = ()
    time_ms: int | None = None  # since the epoch, UTC

    @property
    def place(self) -> str:
        """`orders[3]@88112`."""
        return f"{self.partition}@{self.position}"

    @property
    def traceparent(self) -> str | None:
        """The W3C trace that it belongs to, by its header, or by that of the CloudEvent it is."""
        found = (value for name, value in reversed(self.headers) if name in ("traceparent", "ce_traceparent"))
        return traceparent(next(found, None))

    @property
    def size_bytes(self) -> int:
        """Payload bytes held in memory by this record."""
        return len(self.value or b"") + len(self.key or b"") + sum(len(n) + len(v) for n, v in self.headers)


def traceparent(found: bytes | str | None) -> str | None:
    """A `traceparent` of W3C Trace Context as it may be passed on and written to logs; None for anything else."""
    text = found.decode("latin-1") if isinstance(found, bytes) else found
    return text if text is not None and TRACEPARENT.fullmatch(text) else None


class Gap(NamedTuple):
    """Records that the upstream no longer held when they were asked for, and that were passed over on request."""

    partition: str
    first: int  # the position that was asked for
    next: int  # where reading went on; `next - first` positions were skipped


class Answer(NamedTuple):
    """What a learner says of rows whose labels will come later."""

    logits: Array  # float32 [n, C]
    evidence: Array
    """float32 [n, k]: what the learner wants back in `Batch.evidence` when it learns these rows, k = 0 where it wants nothing.
    What it means is the learner's own business; with NaN to its right it means the same."""


class Given(NamedTuple):
    """An answer that was given before the label was known."""

    number: int  # of the state that gave it
    logits: Array  # float32 [C], up to a constant the log-probabilities; C = 0 when there was no answer yet
    is_served: bool = False  # to somebody who asked; else the loop's own, when the record came
    label: Label | None = None  # what a served answer said; its row is checked against the label map
    evidence: Array = NO_EVIDENCE  # float32 [k], see `Answer`

    @property
    def confidence(self) -> float:
        """Probability of the answer; NaN where there was none."""
        top = self.logits.max(initial=-np.inf)
        return float(1.0 / np.exp(self.logits.astype(np.float64) - float(top)).sum()) if np.isfinite(top) else np.nan


class Sample(NamedTuple):
    """What decoding makes of a record, besides the features it wrote into its row of the batch."""

    label: Label | None = None
    id: str | None = None
    time_ms: int | None = None  # of the event, since the epoch, UTC
    context: int | None = None  # task identity, where a stream has one
    kind: Literal["sample", "label", "answer"] = "sample"  # a `label` has no features, an `answer` was served
    given: Given | None = None  # of an `answer`


@dataclass(frozen=True, slots=True)
class Batch:
    """Admitted rows in journal order. Row i is the sample read at `at[i]` of partition `partitions[i]`."""

    x: Array  # float32 [n, *shape], as decoded: no transform applied; of named columns NaN is missing, a category its bucket
    labels: Array  # int64 [n], rows of the label map
    contexts: Array  # int64 [n], task identity; -1 where unknown
    ids: Array  # uint64 [n], hash of the sample's id; 0 where it has none
    times_ms: Array  # int64 [n], event time; -1 where unknown
    partitions: Array  # int32 [n], index into the daemon's list of partition names
    at: Array  # int64 [n], position of the row's own record
    evidence: Array  # float32 [n, k], of rows that were answered when they came, see `Answer`; NaN where there is none

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> "Batch":
        """These rows, as views."""
        return Batch(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def of(cls, x: Array, labels: Array, contexts: Array | None = None) -> "Batch":
        """Rows that came from no stream, for tests, benchmarks and library use; positions count from 0."""
        n = len(labels)
        return cls(
            x=np.ascontiguousarray(x, np.float32),
            labels=np.asarray(labels, np.int64),
            contexts=np.full(n, -1, np.int64) if contexts is None else np.asarray(contexts, np.int64),
            ids=np.zeros(n, np.uint64),
            times_ms=np.full(n, -1, np.int64),
            partitions=np.zeros(n, np.int32),
            at=np.arange(n, dtype=np.int64),
            evidence=no_evidence(n),
        )


def no_evidence(count: int) -> Array:
    """Of rows that were not answered before."""
    return np.zeros((count, 0), np.float32)


def stacked_evidence(parts: Sequence[Array]) -> Array:
    """Of parts [n, k] of different k one, as wide as it has to be, NaN to the right."""
    known = [np.flatnonzero(~np.isnan(part).all(0)) for part in parts]
    width = max((int(columns[-1]) + 1 for columns in known if len(columns)), default=0)
    whole = np.full((sum(map(len, parts)), width), np.nan, np.float32)
    first = 0
    for part in parts:
        whole[first : first + len(part), : part.shape[1]] = part[:, :width]
        first += len(part)
    return whole


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What `learn` did: the answers given before each label was used, and what can be said of the updates."""

    logits: Array  # float32 [n, C]; -inf where the label was not learned yet; C = 0 before the first label
    rejected: Array  # bool [n]: rows of an update that was undone because it was not finite
    measures: Mapping[str, float] = field(default_factory=dict)
    """Means over this call, by name: `gradient_alignment` and its `…_age_chunks`, `step_size_mean`, `step_size_zero_ratio`,
    `update_norm`, `member_weight/NAME`; a name is present only when the learner has it now. NaN where nothing was measured."""


@dataclass(frozen=True, slots=True)
class State:
    """All that `restore` needs: arrays by name (safetensors) and JSON values. Never a live reference, never an object."""

    arrays: Mapping[str, Array] = field(default_factory=dict)
    values: Mapping[str, Json] = field(default_factory=dict)

    def under(self, name: str) -> "State":
        """The part that `nest` put under `name`."""
        prefix = f"{name}/"
        return State(
            {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)},
            dict(self.values.get(name, {})),
        )

    @classmethod
    def nest(cls, parts: "Mapping[str, State]") -> "State":
        """One state out of several, each under its name (which holds no `/`)."""
        arrays = {f"{name}/{k}": v for name, part in parts.items() for k, v in part.arrays.items()}
        return cls(arrays, {name: dict(part.values) for name, part in parts.items()})


@dataclass(frozen=True, slots=True)
class Initialisation:
    """What meta-training ends in and a stream starts from: a network, what of it may still move, and how fast."""

    algorithm: str
    order: int | None  # of the meta-gradient; None where the algorithm has none
    model: Mapping[str, Json]  # settings of the network
    shape: tuple[int, ...]  # of one input
    inputs: Mapping[str, Json]  # settings of the input transform
    arrays: Mapping[str, Array]  # float32: `body.…`
    plastic: tuple[str, ...]  # names in `arrays` that the stream may move; the rows of its head always may
    head: Literal["drawn", "zero"]  # where the head row of a new label begins
    learning_rate: float  # of deployment, chosen on held-out classes
    duration: float | None = None  # how long gradient flow adapts, where that was learned; in steps of rate 1
    split: str = ""  # fingerprint of which classes were trained on and which were held out
    seed: int = 0
    steps: int = 0  # meta-steps it took
    measures: Mapping[str, float] = field(default_factory=dict)  # on held-out classes

    def values(self) -> dict[str, Json]:
        """All but the arrays."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "arrays"}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in named.items()}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all of it: names, shapes and bytes of the arrays, and the values."""
        sha = hashlib.sha256(json.dumps(self.values(), sort_keys=True).encode())
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode() + array.tobytes())
        return sha.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class MetaReport:
    """What one meta-step did."""

    loss: float  # of the query after adaptation, mean over its episodes
    rejected: bool  # the meta-gradient was not finite, and nothing moved
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answering:
    """How to answer without the learner: a pure function named `form` in `serving/forms/`, its arrays and settings."""

    form: str
    arrays: Mapping[str, Array]
    settings: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is served: read-only, and everything one answer needs, so that no answer can mix two of them."""

    number: int  # learned chunks; `model_version` in answers
    answering: Answering
    labels: tuple[Label, ...]  # by row
    shape: tuple[int, ...]  # of one input
    published_ms: int  # since the epoch, UTC
    positions: Positions = field(default_factory=dict)
    schema: Schema | None = None  # of named columns, of which `shape` is the number
    sets: Mapping[float, float] = field(default_factory=dict)  # coverage → largest 1 − p of a label in its set
