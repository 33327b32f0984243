"""What a scenario works with: a folder of its own, cheap lives of the program, a real Kafka when it asks for one."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.testbed.forks import Forks
from benchmarks.testbed.kafka_broker import load_broker

UPSTREAMS = ("log", "kafka", "kafka-3")
"""What a killed daemon reads: the embedded log, a real Kafka with one partition, and with three."""


class NotHereError(Exception):
    """The machine lacks what the scenario needs; the message says what. No row is written."""


class Bench:
    """Made once for a command; `room` gives each scenario an empty folder. Everything that was started ends with `close`."""

    def __init__(
        self,
        folder: Path,
        *,
        quick: bool = False,
        most: int = 100,
        upstreams: Sequence[str] = UPSTREAMS,
        forks: Forks | None = None,
        kafka: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.most, self.upstreams = most, upstreams  # kills at a named point on each of these, at most
        self.quick, self.folder, self._root = quick, folder, folder
        self.shared = folder / "shared"  # for what several scenarios use
        self.shared.mkdir(exist_ok=True)
        self._own = contextlib.ExitStack()
        self._kafka = kafka or os.environ.get("STREAMLEARN_KAFKA", "")
        self._forks, self._topics = forks, 0

    def room(self, name: str) -> Path:
        """An empty folder of that name, which `folder` is from now on."""
        self.folder = self._root / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    @property
    def forks(self) -> Forks:
        """Starts the program at the price of a fork."""
        if self._forks is None:
            lives = self._root / "lives"
            lives.mkdir(exist_ok=True)
            self._forks = Forks(lives)
            self._own.callback(self._forks.close)
        return self._forks

    @property
    def kafka(self) -> str:
        """Bootstrap address of a real broker, started on first use. Errors: NotHereError without Java or Maven."""
        if not self._kafka:
            broker, data = load_broker(), self._root / "kafka"
            try:
                node = broker.up(data)
            except broker.BrokerError as error:
                raise NotHereError(f"no Kafka broker: {error}") from error
            self._own.callback(broker.down, data)
            self._kafka = node.bootstrap
        return self._kafka

    def topic(self, partitions: int = 1, **configs: str) -> str:
        """A new topic on the broker."""
        self._topics += 1
        name = f"reliability-{os.getpid()}-{self._topics}"
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        self.admin.create_topics({name: wanted}, timeout_ms=10_000, wait_for_metadata=True)
        return name

    @cached_property
    def admin(self) -> Any:
        """kafka-python's admin client on the broker, closed with the bench."""
        from kafka import KafkaAdminClient  # noqa: PLC0415 - loaded by scenarios that need a broker alone

        made = KafkaAdminClient(bootstrap_servers=self.kafka)
        self._own.callback(made.close)
        return made

    def at_the_end(self, action: Callable[[], object]) -> None:
        """Called by `close`."""
        self._own.callback(action)

    def close(self) -> None:
        """End what was started."""
        self._own.close()
