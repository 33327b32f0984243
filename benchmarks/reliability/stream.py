"""A stream that checks itself, in whatever holds it: what its records have to lead to is known without the program.

Each record's place says whether it can be learned, and labels appear one after the other, so the head grows as it is read.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import connectors
from benchmarks.reliability.bench import Bench
from benchmarks.testbed.forks import Life
from benchmarks.testbed.small import append, configured, sample, settled
from streamlearn.checkpoint import Checkpoints
from streamlearn.inspection import inspected
from streamlearn.records import Record

PATIENCE_S = 600.0  # ends a run that hangs; it is no claim, how long something took stands in its row
BAD = frozenset({5, 6, 7, 33, 98, 700, 1999, 3001})  # positions in each partition, where it has them
BROKEN = (b"not json", b'{"features": [1.0, 2.0], "label": 1}', b'{"features": [0, 0, 0, 0, 0, 0], "label": 0.5}')


@dataclass(slots=True)
class Upstream:
    """Something that holds the records, and how to read it."""

    source: dict[str, Any]
    held: Mapping[str, list[bytes]]  # by partition
    committed: Callable[[], Mapping[str, int]] = field(default=dict)
    late: bool = False  # labels come later, or never

    @property
    def positions(self) -> dict[str, int]:
        """One past the last record of each partition."""
        return {name: len(values) for name, values in self.held.items()}

    @property
    def records(self) -> int:
        """Of all partitions."""
        return sum(self.positions.values())

    @property
    def bad(self) -> set[str]:
        """Places of the records that cannot be learned."""
        return {f"{name}@{i}" for name, n in self.positions.items() for i in BAD if i < n}

    @property
    def good(self) -> set[str]:
        """Places of the others."""
        return {f"{name}@{i}" for name, n in self.positions.items() for i in range(n) if i not in BAD}


def values(n: int, seed: int) -> list[bytes]:
    """Records of one partition. A new label comes every twelve records, until there are forty."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        told = json.loads(sample(draw))
        told["label"] += f"-{draw.randrange(1 + min(9, i // 12))}"
        made.append(BROKEN[i % 3] if i in BAD else json.dumps(told).encode())
    return made


def late_values(n: int, seed: int) -> list[bytes]:
    """Records of one partition, whose labels come with them (3 of 10), up to thirty records later, before them, or never."""
    draw, due = random.Random(seed), dict[int, list[dict[str, Any]]]()
    made: list[bytes] = []
    while len(made) < n:
        i = len(made)
        told = json.loads(sample(draw))
        if i in BAD:
            told = None
        elif waiting := due.pop(i, []):
            told, *rest = waiting
            due.setdefault(i + 1, []).extend(rest)
        elif draw.random() < 0.7:
            told["id"] = f"{seed}-{i}"
            label = {"kind": "label", "id": told["id"], "label": told.pop("label")}
            comes = draw.random()
            if comes < 0.8:
                first, second = (told, label) if comes < 0.7 else (label, told)
                told = first
                due.setdefault(i + draw.randint(1, 30), []).append(second)
        made.append(BROKEN[i % 3] if told is None else json.dumps(told).encode())
    return made


def in_log(folder: Path, records: int, _: int = 1, late: bool = False) -> Upstream:
    """On the embedded log."""
    held = (late_values if late else values)(records, seed=0)
    append(folder / "samples.sqlite", held)
    return Upstream({"type": "log", "path": str(folder / "samples.sqlite")}, {"samples[0]": held}, late=late)


def in_file(folder: Path, records: int) -> Upstream:
    """In a file of JSON lines."""
    path, held = folder / "samples.jsonl", values(records, seed=0)
    path.write_bytes(b"".join(value + b"\n" for value in held))
    return Upstream({"type": "file", "path": str(path), "follow": True}, {"samples[0]": held})


def in_kafka(bench: Bench, records: int, partitions: int = 1, late: bool = False) -> Upstream:
    """On a real Kafka, in small batches, so that partitions are read by turns. Errors: NotHereError."""
    from kafka import KafkaProducer  # noqa: PLC0415 - loaded by scenarios that need a broker alone

    topic = bench.topic(partitions)
    make = late_values if late else values
    held = {f"{topic}[{p}]": make(records // partitions, seed=p) for p in range(partitions)}
    producer = KafkaProducer(bootstrap_servers=bench.kafka, linger_ms=20, batch_size=1500)  # some fifteen records a batch
    for p, each in enumerate(held.values()):
        for value in each:
            producer.send(topic, value, partition=p)
    producer.close()
    small = {"max_partition_fetch_bytes": 2000}  # each restart begins with another partition's turn
    source = {"type": "kafka", "bootstrap_servers": bench.kafka, "topics": [topic], "client": small}
    return Upstream(source, held, late=late)


def with_group(bench: Bench, upstream: Upstream, group: str) -> Upstream:
    """The same records, and a consumer group that nobody had before, which is told how far they are safe."""
    from kafka.errors import CoordinatorNotAvailableError  # noqa: PLC0415 - loaded by scenarios that need a broker alone

    def committed() -> Mapping[str, int]:
        try:
            offsets = bench.admin.list_group_offsets({group: None})[group]
        except CoordinatorNotAvailableError:  # nobody has committed yet, so there is none
            return {}
        return {f"{tp.topic}[{tp.partition}]": found.offset for tp, found in offsets.items()}

    return replace(upstream, source={**upstream.source, "group_id": group}, committed=committed)


def reading(upstream: Upstream, state: Path, **changes: Any) -> Path:
    """The configuration. Where it decides, the whole journal is kept, for a run that follows it from the beginning."""
    keep = 3 if len(upstream.held) == 1 and not upstream.late else 100_000
    changes = LATE | changes if upstream.late else changes
    answers = {"type": "log", "path": str(state) + ".answers", "unique_keys": True}
    told = {"predictions": answers, "checkpoint": {"every_records": 40, "keep": keep}} | changes
    return configured(state, upstream.source, **told)


LATE = {
    "pending": {"max_rows": 30, "expire_s": 0.2},  # more wait than there is room for, and none for long
    "probe": {"share": 0.1, "first_rows": 1, "era_records": 50, "score_every": 40},
}


class Journalled:
    """Records whose order has been decided, by the whole lines of the journal: the finest sign of progress there is."""

    def __init__(self, state: Path) -> None:
        self._folder, self._read, self._until = state / "journal", Counter[Path](), Counter[str]()

    def turns(self) -> int:
        """How often reading went from one partition to another, over the whole journal."""
        lines = [line for path in sorted(self._folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
        order = [json.loads(line).get("partition") for line in lines]
        return sum(one != other for one, other in pairwise(order))

    def __call__(self) -> int:
        for path in sorted(self._folder.glob("*.jsonl")):
            try:
                new = path.read_bytes()[self._read[path] :]
            except FileNotFoundError:  # cut meanwhile
                continue
            whole = new[: new.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            for line in whole.splitlines():
                entry = json.loads(line)
                if entry["kind"] == "order":
                    self._until[entry["partition"]] = max(self._until[entry["partition"]], entry["until"])
        return self._until.total()


class Checked:
    """What has to be true of the newest checkpoint after each kill."""

    def __init__(self, state: Path, upstream: Upstream) -> None:
        self._store, self._upstream = Checkpoints(state / "checkpoints"), upstream
        self.positions: dict[str, int] = {}

    def after_kill(self) -> None:
        """Errors: AssertionError."""
        committed = self._upstream.committed()
        if names := self._store.names():
            checkpoint, written = self._store.read(names[-1])
            assert outcomes(checkpoint.state) == sum(written.positions.values()), "each record has one outcome"
            for name, position in self.positions.items():
                assert written.positions[name] >= position, f"{name} went back"
            self.positions = dict(written.positions)
        assert all(self.positions.get(name, 0) >= position for name, position in committed.items()), "told before it was safe"


def outcomes(state: Any) -> int:
    """Records that have one, with those that wait for their chunk."""
    tally, admission = state.values["tally"], state.values["admission"]
    waiting = sum(len(state.arrays[name]) for name in ("chunks/labels", "pending/samples/ids", "pending/own/early_ids"))
    late = sum(state.values["pending"]["own"]["counts"].values()) + state.values["probe"]["taken"]
    settled_ = tally["learned"] + tally["undone"] + sum(admission["rejected"].values()) + admission["skipped"]
    return int(settled_ + late + waiting)


def run_to_the_end(life: Life, state: Path, upstream: Upstream) -> None:
    """Until every record has its outcome, then a drain."""
    life.event("daemon.started", PATIENCE_S)  # from here on it takes signals
    (state / "status.json").unlink(missing_ok=True)  # what an earlier life said of itself
    life.until(lambda: is_done(state, upstream), "the last record's outcome", PATIENCE_S)
    life.stop(PATIENCE_S)


def is_done(state: Path, upstream: Upstream) -> bool:
    """Whether every record was read, and what waited for a label has expired: it would in one run and not in another."""
    if settled(state) < upstream.records:
        return False
    waiting = json.loads((state / "status.json").read_bytes())["waiting"]
    return not (upstream.late and waiting["label"] + waiting["sample"])


def logged(path: Path) -> list[Record]:
    """All records of an embedded log."""
    source = connectors.open_source("log", {"path": str(path)})
    source.seek({})
    found: list[Record] = []
    while new := source.poll(10_000, 0.01):
        found += new
    source.close()
    return found


FACTS = ("model_digest", "state_digest", "positions", "number", "labels", "counts", "rejected", "pending")


def check_surviving(state: Path, straight: Path, upstream: Upstream) -> None:
    """The history that survived in `state` is that of the undisturbed run in `straight`, and that of the stream itself.

    Errors  AssertionError.
    """
    killed, undisturbed = inspected(state), inspected(straight)
    for fact in FACTS:
        assert killed[fact] == undisturbed[fact], f"{fact} is {killed[fact]}, undisturbed it is {undisturbed[fact]}"
    assert killed["positions"] == upstream.positions, "it read to the end"
    letters = sorted((record.key or b"").decode() for record in logged(state / "dead_letters.sqlite"))
    assert letters == sorted(upstream.bad), "dead letters: each bad record once"
    told = logged(Path(f"{state}.answers"))
    answered = [(record.key or b"").decode() for record in told]
    assert len(answered) == len(set(answered)), "no record was answered twice"
    assert set(answered) <= upstream.good, "nobody learned what cannot be learned"
    assert killed["counts"]["learned"] == len(answered), "learned once"
    (_check_late if upstream.late else _check_all_learned)(killed, upstream, answered)
    assert [r.value for r in told] == [r.value for r in logged(Path(f"{straight}.answers"))], (
        "each answer is the undisturbed one"
    )
    if len(upstream.held) == 1:
        told_labels = (json.loads(value).get("label") for each in upstream.held.values() for value in _good(each))
        labels = dict.fromkeys(label for label in told_labels if label)
        assert killed["labels"] == list(labels), "labels keep the order in which they came"


def _check_all_learned(killed: Mapping[str, Any], upstream: Upstream, answered: list[str]) -> None:
    waits = len(upstream.good) - len(answered)
    assert waits == killed["pending"] < 10, "all but those that wait were tested, then learned"


def _check_late(killed: Mapping[str, Any], upstream: Upstream, answered: list[str]) -> None:
    """By the stream's own labels: nothing was learned whose label never came, and what a label joined had one fate."""
    labels, records = set[str](), dict[str, Any]()
    for name, held in upstream.held.items():
        for i, value in enumerate(held):
            if i not in BAD:
                told = records[f"{name}@{i}"] = json.loads(value)
                labels |= {told["id"]} if told.get("kind") == "label" else set()
    learnable = {p for p, r in records.items() if "features" in r and ("label" in r or r["id"] in labels)}
    assert set(answered) <= learnable, "nobody learned what has no label"
    alone = sum("id" not in r for r in records.values())
    fate, now = killed["waiting"], len(answered) + killed["pending"] + killed["probe"]["taken"]
    assert now == alone + fate["joined"], (
        "each labelled record, and each that was joined, was learned, kept for the test or waits"
    )
    assert killed["probe"]["taken"], "some were kept from the learner"
    assert fate.get("expired"), "some waited in vain"


def _good(held: list[bytes]) -> list[bytes]:
    return [value for i, value in enumerate(held) if i not in BAD]
