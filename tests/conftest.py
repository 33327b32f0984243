"""Fixtures that several folders use: a real Kafka broker on loopback, and topics on it."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import settings

from benchmarks.testbed.forks import Forks
from benchmarks.testbed.kafka_broker import load_broker

Topics = Callable[..., str]

settings.register_profile("any machine", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for the broker bears its marker: `-m "not kafka"` leaves it out."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a real broker: the one named by STREAMLEARN_KAFKA, or one started for this run."""
    address = os.environ.get("STREAMLEARN_KAFKA")
    if address:
        yield address
        return
    broker, data = load_broker(), tmp_path_factory.mktemp("kafka")
    try:
        node = broker.up(data)
    except broker.BrokerError as error:
        pytest.skip(f"no Kafka broker: {error}")
    yield node.bootstrap
    broker.down(data)


@pytest.fixture(scope="session")
def kafka_admin(kafka: str) -> Iterator[Any]:
    """kafka-python's admin client on the broker."""
    from kafka import KafkaAdminClient  # noqa: PLC0415 - loaded by tests that need a broker alone

    admin = KafkaAdminClient(bootstrap_servers=kafka)
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def kafka_topic(kafka_admin: Any) -> Topics:
    """Makes a topic with a name of its own: `kafka_topic(partitions=1, **configs)` gives the name."""
    numbers = count()

    def make(partitions: int = 1, **configs: str) -> str:
        name = f"test-{os.getpid()}-{next(numbers)}"
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        kafka_admin.create_topics({name: wanted}, timeout_ms=10_000, wait_for_metadata=True)
        return name

    return make


@pytest.fixture(scope="session")
def _forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("lives"))
    yield forks
    forks.close()


@pytest.fixture
def forks(_forks: Forks) -> Iterator[Forks]:
    """Runs the program again and again at little cost; what a test leaves running is killed after it."""
    yield _forks
    _forks.end_all()
