"""Samples in one Kafka topic, their labels later in a second, and SIGKILL in between: each is learned once, with its label."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.stream import Journalled, logged
from benchmarks.testbed.forks import Forks, Life
from benchmarks.testbed.small import CHUNK, configured, sample, settled
from streamlearn.checkpoint import Checkpoints
from streamlearn.inspection import inspected
from tests.conftest import Topics
from tests.recovery.test_kill import outcomes

SAMPLES = 600
TWICE = 60  # of the labels are sent a second time
KILLS = 6


class Topic:
    """What was sent to one partition, in order."""

    def __init__(self, address: str, name: str) -> None:
        from kafka import KafkaProducer  # noqa: PLC0415 - loaded by tests that need a broker alone

        self.name, self.sent = name, list[dict[str, Any]]()
        self._producer = KafkaProducer(bootstrap_servers=address, linger_ms=20, batch_size=1500)

    def send(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._producer.send(self.name, json.dumps(record).encode(), key=record["id"].encode(), partition=0)
        self._producer.flush()
        self.sent += records

    def close(self) -> None:
        self._producer.close()


def stream() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Samples without a label, and their labels in another order."""
    draw = random.Random(5)
    samples = [json.loads(sample(draw)) | {"id": f"s{i}"} for i in range(SAMPLES)]
    labels = [{"id": each["id"], "label": each.pop("label"), "time": 1000 + i} for i, each in enumerate(samples)]
    late = [labels[i] for i in sorted(range(SAMPLES), key=lambda i: i + draw.uniform(0, 80))]
    return samples, late


def read_to(life: Life, state: Path, records: int) -> None:
    life.until(lambda: settled(state) >= records, f"record {records}")


def killed_past(life: Life, decided: Journalled, goal: int) -> None:
    life.until(lambda: decided() >= goal, f"record {goal}")
    life.kill()
    assert life.wait() == -9


def finished(life: Life, state: Path, records: int) -> dict[str, Any]:
    life.event("daemon.started")
    (state / "status.json").unlink(missing_ok=True)  # what an earlier life said of itself
    read_to(life, state, records)
    life.stop()
    return inspected(state)


@pytest.mark.timeout(600)
def test_a_label_of_another_topic_finds_its_sample_once_whenever_it_is_killed(
    kafka: str, kafka_topic: Topics, tmp_path: Path, forks: Forks
) -> None:
    first, second = Topic(kafka, kafka_topic(1)), Topic(kafka, kafka_topic(1))
    samples, labels = stream()
    state, straight, draw = tmp_path / "killed", tmp_path / "straight", random.Random(7)

    def config(folder: Path) -> Path:
        reads = {"type": "kafka", "bootstrap_servers": kafka, "client": {"max_partition_fetch_bytes": 2000}}
        answers = {"type": "log", "path": f"{folder}.answers", "unique_keys": True}
        kept = {"every_records": 40, "keep": 100_000}  # with the whole journal, for the run that follows it
        beside = {**reads, "topics": [second.name]}
        source = {**reads, "topics": [first.name]}
        return configured(folder, source, label_source=beside, checkpoint=kept, predictions=answers)

    def start() -> Life:
        return forks.start("run", config(state), "--set", f"source.poll_records={draw.randint(1, 40)}")

    decided, store = Journalled(state), Checkpoints(state / "checkpoints")
    first.send(samples[: SAMPLES // 2])
    killed_past(start(), decided, SAMPLES // 2)  # all of them were answered, and none has a label
    first.send(samples[SAMPLES // 2 :])
    second.send(labels[: 2 * SAMPLES // 3] + labels[:TWICE])
    for _ in range(KILLS):
        room = SAMPLES + len(second.sent) - decided() - 1
        killed_past(start(), decided, decided() + draw.randint(1, max(1, room // 2)))
        checkpoint, written = store.read(store.names()[-1])
        assert outcomes(checkpoint.state) == sum(written.positions.values()), "each record has one outcome"
    second.send(labels[2 * SAMPLES // 3 :])
    records = SAMPLES + len(second.sent)
    killed = finished(start(), state, records)

    assert decided.turns() > 2, "which topic came next was a decision"
    shutil.copytree(state / "journal", straight / "journal")
    undisturbed = finished(forks.start("run", config(straight)), straight, records)
    for fact in ("model_digest", "state_digest", "positions", "number", "counts", "rejected", "pending", "waiting"):
        assert killed[fact] == undisturbed[fact], fact
    assert killed["positions"] == {f"{first.name}[0]": SAMPLES, f"{second.name}[0]": SAMPLES + TWICE}

    fate = killed["waiting"]
    assert (fate["joined"], fate["duplicate"], fate["label"], fate["sample"]) == (SAMPLES, TWICE, 0, 0)
    assert killed["counts"]["learned"] == SAMPLES - killed["pending"]
    assert killed["pending"] == SAMPLES % CHUNK == 0
    told = [json.loads(record.value or b"") for record in logged(Path(f"{state}.answers"))]
    due = {each["id"]: each["label"] for each in labels}
    assert sorted((each["place"], each["label"]) for each in told) == sorted(
        (f"{first.name}[0]@{i}", due[f"s{i}"]) for i in range(SAMPLES)
    ), "each sample was learned once, with the label of its id"
    assert told == [json.loads(record.value or b"") for record in logged(Path(f"{straight}.answers"))]
    first.close()
    second.close()
