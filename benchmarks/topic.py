"""A real Kafka for a benchmark, and topics of one partition on it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaAdminClient

from connectors import open_sink
from streamlearn.records import Message

ADDRESS = "STREAMLEARN_KAFKA"
BROKER = Path(__file__).parents[1] / "deploy/kafka/broker.py"


@contextmanager
def broker(data: Path) -> Iterator[str]:
    """Address of the broker that STREAMLEARN_KAFKA names, or of one that lives on `data` as long as this context."""
    if address := os.environ.get(ADDRESS):
        yield address
        return
    control = [sys.executable, str(BROKER)]
    started = subprocess.run([*control, "up", "--data", str(data)], capture_output=True, text=True, check=False)
    if started.returncode:
        raise RuntimeError(f"no Kafka: {started.stderr.strip()}; or name a broker's host:port in {ADDRESS}")
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([*control, "down", "--data", str(data)], check=True, stdout=subprocess.DEVNULL)


class Topic:
    """A new topic with one partition, and a producer to it."""

    def __init__(self, address: str, name: str) -> None:
        self.name, self._address = name, address
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.close()
        self._sink = open_sink("kafka", {"bootstrap_servers": address, "topic": name})

    def produce(self, messages: Sequence[Message]) -> None:
        """All of these are acknowledged when this returns."""
        self._sink.write(messages)
        self._sink.flush(60.0)

    def close(self) -> None:
        """Delete the topic."""
        self._sink.close()
        admin = KafkaAdminClient(bootstrap_servers=self._address)
        admin.delete_topics([self.name])
        admin.close()
