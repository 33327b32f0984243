"""A broker of a scenario's own, which may be killed, slowed, cut off; a daemon that reads it, and one who asks it questions."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, TopicAlreadyExistsError

from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.reliability.stream import PATIENCE_S, Journalled, Upstream
from benchmarks.testbed.forks import Life
from benchmarks.testbed.kafka_broker import load_broker
from benchmarks.testbed.ports import free_port, free_ports
from benchmarks.testbed.proxy import Proxy
from benchmarks.testbed.small import SHAPE, configured, settled

TIMEOUTS = {"timeout_s": 1.0, "metadata_every_s": 0.5, "client": {"request_timeout_ms": 1000, "reconnect_backoff_ms": 20}}
"""Short, so that an outage of seconds is longer than each of them."""
LONGEST_S = 5.0 * 1.25 + 1.0  # between two tries of the daemon: its longest pause, with jitter, and one time-out


class Cluster:
    """One real broker, or two, with a proxy before the first. `source` is how a daemon reads from it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._broker = folder, load_broker()
        self._ports = free_ports(2)
        self.proxy = Proxy(self._ports[0], self._ports[1])
        self.up()
        self._second: Any = None
        self._topics = 0

    def up(self) -> None:
        """Start it where it was. Errors: NotHereError without Java or Maven."""
        proxied = self._broker.Listener("PROXIED", "PLAINTEXT", self._ports[1], told=self._ports[0])
        try:
            self.node = self._broker.up(self._folder / "1", listeners=[proxied], wait_s=240)
        except self._broker.BrokerError as error:
            raise NotHereError(f"no Kafka broker: {error}") from error

    def kill(self) -> None:
        """As a crash would."""
        self._broker.kill(self._folder / "1")

    def second(self) -> Any:
        """A second broker of the same cluster, started or started again."""
        self._second = self._broker.up(self._folder / "2", joins=self._folder / "1", wait_s=240)
        return self._second

    def kill_second(self) -> None:
        """As a crash would."""
        self._broker.kill(self._folder / "2")

    def close(self) -> None:
        """End all of it."""
        self.proxy.close()
        for name in ("2", "1"):
            self._broker.kill(self._folder / name)

    def admin(self) -> Any:
        """kafka-python's admin client; the caller closes it."""
        return KafkaAdminClient(bootstrap_servers=self.node.bootstrap)

    def topic(self, partitions: int = 1, replicas: int = 1, **configs: str) -> str:
        """A new topic."""
        self._topics += 1
        name = f"t{self._topics}"
        self.make(name, partitions, replicas, **configs)
        return name

    def make(self, name: str, partitions: int = 1, replicas: int = 1, **configs: str) -> None:
        """A topic of that name, as soon as the name is free."""
        wanted = {"num_partitions": partitions, "replication_factor": replicas, "configs": configs}
        admin, until = self.admin(), time.monotonic() + PATIENCE_S
        try:
            while True:
                try:
                    admin.create_topics({name: wanted}, timeout_ms=10_000, wait_for_metadata=True)
                except TopicAlreadyExistsError:
                    assert time.monotonic() < until, f"{name} was not deleted"
                    time.sleep(0.02)
                else:
                    return
        finally:
            admin.close()

    def send(self, topic: str, values: Sequence[bytes | None], *, partition: int = 0, **settings: Any) -> None:
        """Append, acknowledged when this returns."""
        producer = KafkaProducer(bootstrap_servers=self.node.bootstrap, linger_ms=20, batch_size=1500, **settings)
        sent = [producer.send(topic, value, b"k" if value is None else None, partition=partition) for value in values]
        producer.flush(PATIENCE_S)
        assert all(each.succeeded() for each in sent), "the broker did not take the records"
        producer.close()

    def source(self, topic: str, *, proxied: bool = False, **changes: Any) -> dict[str, Any]:
        """Settings of a daemon's source."""
        address = f"127.0.0.1:{self._ports[0]}" if proxied else self.node.bootstrap
        return {"type": "kafka", "bootstrap_servers": address, "topics": [topic]} | TIMEOUTS | changes

    def until(self, claim: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        """Return once it is so; the broker's own errors meanwhile are not ours."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                if claim():
                    return
            except KafkaError:
                pass
            assert time.monotonic() < until, f"{what} did not happen within {timeout_s:g} s"
            time.sleep(0.02)


def cluster(bench: Bench) -> Cluster:
    """The bench's, started on first use."""
    if bench.shared not in _CLUSTERS:
        _CLUSTERS[bench.shared] = Cluster(bench.shared / "cluster")
        bench.at_the_end(_CLUSTERS[bench.shared].close)
    return _CLUSTERS[bench.shared]


_CLUSTERS: dict[Path, Cluster] = {}


class Asker:
    """Asks a daemon for a prediction again and again, from its first answer on."""

    def __init__(self, port: int, every_s: float = 0.02) -> None:
        self.answers, self.failures = 0, list[str]()
        self._port, self._every_s = port, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Errors: AssertionError when a question was not answered, or none was."""
        self._stop.set()
        self._thread.join(10)
        assert self.answers > 10, "questions were answered"
        assert not self.failures, f"{len(self.failures)} questions failed: {self.failures[0]}"

    def _ask(self) -> None:
        body = json.dumps(
            {"inputs": [{"name": "features", "shape": [1, *SHAPE], "datatype": "FP32", "data": [0.5] * SHAPE[0]}]}
        )
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop.wait(self._every_s):
            try:
                connection.request("POST", "/v2/models/model/infer", body)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if self.answers:
                    self.failures.append(repr(error))
                continue
            if answer.status == 200:
                self.answers += 1
            elif self.answers:
                self.failures.append(f"{answer.status} {said!r}")


class Reader:
    """A daemon on a topic, and what it has decided so far."""

    def __init__(self, bench: Bench, upstream: Upstream, name: str = "state", **changes: Any) -> None:
        self.state, self._forks, self._upstream = bench.folder / name, bench.forks, upstream
        self.port = free_port()
        told = {
            "checkpoint": {"every_records": 40, "keep": 3},
            "predictions": {"type": "log", "path": f"{self.state}.answers", "unique_keys": True},
            "serve": {"enabled": True, "processes": 0 if bench.quick else 1, "port": self.port, "grpc_port": None},
        } | changes
        self.config = configured(self.state, upstream.source, **told)
        self.decided = Journalled(self.state)

    def start(self) -> Life:
        """A life of it, at small polls, so that faults come in the midst."""
        self.life = self._forks.start("run", self.config, "--set", "source.poll_records=7")
        return self.life

    def reads(self, n: int) -> float:
        """Seconds until n records in all were decided."""
        began = time.monotonic()
        self.life.until(lambda: self.decided() >= n, f"record {n}", PATIENCE_S)
        return time.monotonic() - began

    def lost(self, times: int = 1) -> None:
        """Return once it has said so often in this life that its source is lost."""
        said = "source.lost"
        self.life.until(lambda: sum(e["event"] == said for e in self.life.events) >= times, f"{times} times {said}", PATIENCE_S)

    def finish(self) -> None:
        """Drained."""
        self.life.until(lambda: settled(self.state) >= self._upstream.records, "the last outcome", PATIENCE_S)
        self.life.stop(PATIENCE_S)
