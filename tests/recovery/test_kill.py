"""SIGKILL at random instants while the daemon reads a real Kafka, the embedded log, a file: nothing shows afterwards."""

import json
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import connectors
from benchmarks.reliability.stream import Journalled
from benchmarks.testbed.forks import Forks, Life
from benchmarks.testbed.small import append, configured, sample, settled
from streamlearn.checkpoint import Checkpoints

RECORDS = 3600
KILLS = {(1, "kafka"): 28, (3, "kafka"): 20, (1, "log"): 12, (1, "file"): 12}  # by partitions and source
BAD = {5, 6, 7, 700, 1999, 3001}  # positions in each partition, where it has them


@dataclass
class Upstream:
    """Something that holds the records, and how to read it."""

    source: dict[str, Any]
    positions: Mapping[str, int]  # partition → records in it
    committed: Callable[[], Mapping[str, int]] = dict


def values(n: int, seed: int) -> list[bytes]:
    """Records of one partition, some of which cannot be learned."""
    draw = random.Random(seed)
    broken = [b"not json", b'{"features": [1.0, 2.0], "label": 1}', b'{"features": [0, 0, 0, 0, 0, 0], "label": 0.5}']
    return [broken[i % 3] if i in BAD else sample(draw) for i in range(n)]


def in_kafka(request: pytest.FixtureRequest, partitions: int) -> Upstream:
    from kafka import KafkaProducer  # noqa: PLC0415 - loaded by tests that need a broker alone
    from kafka.errors import CoordinatorNotAvailableError  # noqa: PLC0415

    address, admin = request.getfixturevalue("kafka"), request.getfixturevalue("kafka_admin")
    topic = request.getfixturevalue("kafka_topic")(partitions)
    held = {f"{topic}[{p}]": values(RECORDS // partitions, seed=p) for p in range(partitions)}
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=20, batch_size=1500)  # some fifteen records a batch
    for p, each in enumerate(held.values()):
        for value in each:
            producer.send(topic, value, partition=p)
    producer.close()
    group = f"lag-{topic}"

    def committed() -> Mapping[str, int]:
        try:
            offsets = admin.list_group_offsets({group: None})[group]
        except CoordinatorNotAvailableError:  # nobody has committed yet, so there is none
            return {}
        return {f"{tp.topic}[{tp.partition}]": found.offset for tp, found in offsets.items()}

    small = {"max_partition_fetch_bytes": 2000}  # partitions are read by turns, and each restart begins with another one's turn
    source = {"type": "kafka", "bootstrap_servers": address, "topics": [topic], "group_id": group, "client": small}
    return Upstream(source, {name: len(each) for name, each in held.items()}, committed)


def in_log(folder: Path) -> Upstream:
    append(folder / "samples.sqlite", values(RECORDS, seed=0))
    return Upstream({"type": "log", "path": str(folder / "samples.sqlite")}, {"samples[0]": RECORDS})


def in_file(folder: Path) -> Upstream:
    path = folder / "samples.jsonl"
    path.write_bytes(b"".join(value + b"\n" for value in values(RECORDS, seed=0)))
    return Upstream({"type": "file", "path": str(path), "follow": True}, {"samples[0]": RECORDS})


@pytest.fixture(
    params=[
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("kafka with three partitions", marks=pytest.mark.kafka),
        "log",
        "file",
    ]
)
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Upstream:
    name = request.param
    if name.startswith("kafka"):
        return in_kafka(request, 3 if "three" in name else 1)
    return in_log(tmp_path) if name == "log" else in_file(tmp_path)


def reading(upstream: Upstream, state: Path) -> Path:
    """The configuration. With several partitions the whole journal is kept, for a run that follows it from the beginning."""
    keep = 3 if len(upstream.positions) == 1 else 100_000
    return configured(state, upstream.source, checkpoint={"every_records": 40, "keep": keep})


class Checked:
    """What has to be true of the newest checkpoint after each kill."""

    def __init__(self, state: Path, upstream: Upstream) -> None:
        self._store, self._upstream = Checkpoints(state / "checkpoints"), upstream
        self.positions: dict[str, int] = {}

    def after_kill(self) -> None:
        committed = self._upstream.committed()
        if names := self._store.names():
            checkpoint, written = self._store.read(names[-1])
            assert outcomes(checkpoint.state) == sum(written.positions.values())
            for name, position in self.positions.items():
                assert written.positions[name] >= position, f"{name} went back"
            self.positions = dict(written.positions)
        assert all(self.positions.get(name, 0) >= position for name, position in committed.items()), "told before it was safe"


def outcomes(state: Any) -> int:
    """Records that have one, with those that wait for their chunk."""
    tally, admission = state.values["tally"], state.values["admission"]
    waiting = sum(len(state.arrays[name]) for name in ("chunks/labels", "pending/samples/ids", "pending/own/early_ids"))
    waiting += sum(state.values["pending"]["own"]["counts"].values())
    waiting += state.values["probe"]["taken"]
    return tally["learned"] + tally["undone"] + sum(admission["rejected"].values()) + admission["skipped"] + waiting


def live_until_killed(start: Callable[[], Life], decided: Journalled, draw: random.Random, *, most: int) -> None:
    """At an instant of its start in one of four lives, else 1 to `most` records further than ever before."""
    goal = decided() + draw.randint(1, most)
    life = start()
    if draw.random() < 0.25:
        time.sleep(draw.uniform(0, 0.1))  # there is nothing to wait for: any instant will do
    else:
        life.until(lambda: decided() >= goal, f"record {goal}")
        time.sleep(draw.uniform(0, 0.01))
    life.kill()
    assert life.wait() == -9


def run_to_the_end(start: Callable[[], Life], state: Path, upstream: Upstream) -> None:
    life = start()
    life.until(lambda: settled(state) >= RECORDS, "the last record's outcome")
    life.stop(30.0)


def letters(state: Path) -> list[str]:
    """The places of the dead letters, as often as they are there."""
    source = connectors.open_source("log", {"path": str(state / "dead_letters.sqlite")})
    source.seek({})
    found = source.poll(10_000, 1.0)
    source.close()
    return sorted(record.key.decode() for record in found)


@pytest.mark.timeout(900)  # seconds; a tenth of it where nothing else runs
def test_killed_at_random_instants_it_ends_in_the_same_bytes_as_undisturbed(upstream, tmp_path, forks: Forks):
    state, draw, kills = tmp_path / "killed", random.Random(11), KILLS[len(upstream.positions), upstream.source["type"]]
    config, checked, decided = reading(upstream, state), Checked(state, upstream), Journalled(state)

    def forked() -> Life:
        return forks.start("run", config, "--set", f"source.poll_records={draw.randint(1, 60)}")

    for kill in range(kills):
        executed = kill % 13 == 9  # at least one of each dozen starts from nothing, the others are forked
        life = (lambda: forks.execute("run", config)) if executed else forked
        live_until_killed(life, decided, draw, most=RECORDS // (kills + 5))
        checked.after_kill()
    assert sum(checked.positions.values()) < RECORDS, "the last kill was in the midst of it"
    run_to_the_end(forked, state, upstream)
    assert upstream.committed() == (upstream.positions if "group_id" in upstream.source else {})

    straight = tmp_path / "straight"
    if len(upstream.positions) > 1:
        assert decided.turns() > 100, "the order of partitions was a decision"
        shutil.copytree(state / "journal", straight / "journal")
    run_to_the_end(lambda: forks.start("run", reading(upstream, straight)), straight, upstream)

    killed, undisturbed = (json.loads(forks.run("inspect", folder, "--json").stdout) for folder in (state, straight))
    for fact in ("model_digest", "state_digest", "positions", "number", "counts", "rejected", "pending"):
        assert killed[fact] == undisturbed[fact], fact
    assert killed["positions"] == upstream.positions
    bad = sorted(f"{name}@{i}" for name, n in upstream.positions.items() for i in BAD if i < n)
    assert letters(state) == letters(straight) == bad
    assert sum(killed["rejected"].values()) == len(bad)
    assert not list((state / "checkpoints").glob(".*")), "nothing half written is left behind"
    assert killed["counts"]["learned"] + killed["pending"] + len(bad) == RECORDS
