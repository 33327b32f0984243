"""librdkafka's mock cluster, by ctypes from confluent-kafka's wheel: brokers in this process that answer with any error code.

It tells the versions of its protocol to a client that asks in the words of before 2019, and mangles its refusal of newer
ones; the door before each broker mends that refusal, so that kafka-python finds out by itself. It keeps 5 MiB of a partition,
knows no administration but metadata, and its groups are for one member.
"""

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_int16, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from benchmarks.testbed.ports import free_port
from benchmarks.testbed.proxy import Proxy

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, FIND_COORDINATOR, INIT_PRODUCER_ID = 0, 1, 2, 3, 8, 10, 22
"""Keys of requests, as Kafka's protocol numbers them."""
REFUSAL = bytes.fromhex("0023 01 0012 0000 0002 00000000")
MENDED = bytes.fromhex("0023 00000001 0012 0000 0002")
"""UNSUPPORTED_VERSION, and that ApiVersions is known from 0 to 2: as the mock says it, and as it is written in version 0."""
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (c_void_p, []),
    "conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "destroy": (None, [c_void_p]),
    "mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "mock_cluster_destroy": (None, [c_void_p]),
    "mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "mock_broker_set_host_port": (c_int, [c_void_p, c_int32, c_char_p, c_int]),
    "mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "mock_topic_delete": (c_int, [c_void_p, c_char_p]),
    "mock_topic_set_error": (None, [c_void_p, c_char_p, c_int]),
    "mock_push_request_errors_array": (None, [c_void_p, c_int16, c_size_t, c_void_p]),
    "mock_partition_push_request_errors": (c_int, [c_void_p, c_char_p, c_int32, c_int16, c_size_t]),
    "mock_clear_request_errors": (None, [c_void_p, c_int16]),
    "mock_broker_set_down": (c_int, [c_void_p, c_int32]),
    "mock_broker_set_up": (c_int, [c_void_p, c_int32]),
    "mock_broker_set_rtt": (c_int, [c_void_p, c_int32, c_int]),
    "mock_partition_set_leader": (c_int, [c_void_p, c_char_p, c_int32, c_int32]),
    "mock_coordinator_set": (c_int, [c_void_p, c_char_p, c_char_p, c_int32]),
}


class NoMockError(Exception):
    """confluent-kafka's wheel is not here, or holds no mock cluster."""


class MockCluster:
    """Brokers 1 to `brokers`; `bootstrap` is how to reach them."""

    def __init__(self, brokers: int = 1) -> None:
        self._library = _library()
        conf = self._call("conf_new")
        self._call("conf_set", conf, b"log_level", b"0", None, 0)
        self._client = self._call("new", 0, conf, None, 0)
        self._cluster = self._call("mock_cluster_new", self._client, brokers)
        told = self._call("mock_cluster_bootstraps", self._cluster).decode().split(",")
        self.doors = [Proxy(free_port(), int(address.rpartition(":")[2]), mend=_mended) for address in told]
        for i, door in enumerate(self.doors):
            self._ask("broker_set_host_port", i + 1, b"127.0.0.1", door.port)
        self.bootstrap = ",".join(f"127.0.0.1:{door.port}" for door in self.doors)

    def close(self) -> None:
        """End all of it."""
        for door in self.doors:
            door.close()
        self._call("mock_cluster_destroy", self._cluster)
        self._call("destroy", self._client)

    def topic(self, name: str, partitions: int = 1, replicas: int = 1) -> str:
        """A new topic."""
        self._ask("topic_create", name.encode(), partitions, replicas)
        return name

    def delete(self, topic: str) -> None:
        """It is no more."""
        self._ask("topic_delete", topic.encode())

    def refuse(self, api: int, *codes: int) -> None:
        """The next requests of this kind are answered with these errors, one after the other. -195 ends the connection."""
        self._ask("push_request_errors_array", api, len(codes), (c_int * len(codes))(*codes))

    def refuse_partition(self, api: int, topic: str, partition: int, *codes: int) -> None:
        """The same for one partition's part of the answers."""
        self._ask("partition_push_request_errors", topic.encode(), partition, api, len(codes), *map(c_int, codes))

    def forgive(self, api: int) -> None:
        """No more errors for requests of this kind."""
        self._ask("clear_request_errors", api)

    def set_topic_error(self, topic: str, code: int) -> None:
        """Metadata of this topic comes with this error, until it is 0."""
        self._ask("topic_set_error", topic.encode(), code)

    def down(self, broker: int = -1) -> None:
        """It takes no connection, and ends those it has; -1 means all."""
        self._ask("broker_set_down", broker)
        for door in self.doors:
            door.cut()

    def up(self, broker: int = -1) -> None:
        """It takes connections again."""
        self._ask("broker_set_up", broker)

    def round_trip(self, ms: int) -> None:
        """Each answer of each broker is so late."""
        self._ask("broker_set_rtt", -1, ms)

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """The partition's leader is this broker from now on; with -1 there is none."""
        self._ask("partition_set_leader", topic.encode(), partition, broker)

    def coordinate(self, group: str, broker: int) -> None:
        """The group's coordinator is this broker from now on."""
        self._ask("coordinator_set", b"group", group.encode(), broker)

    def _ask(self, what: str, *arguments: Any) -> None:
        code = self._call(f"mock_{what}", self._cluster, *arguments)
        assert not code, f"{what}{arguments} is refused with {code}"

    def _call(self, what: str, *arguments: Any) -> Any:
        function = getattr(self._library, f"rd_kafka_{what}")
        function.restype, function.argtypes = SIGNATURES[what]
        return function(*arguments)


@contextmanager
def mock_cluster(brokers: int = 1) -> Iterator[MockCluster]:
    """One that is closed in the end. Errors: NoMockError."""
    made = MockCluster(brokers)
    try:
        yield made
    finally:
        made.close()


def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        raise NoMockError("confluent-kafka is not installed")
    folder = Path(found.origin).parent
    libraries: Sequence[Path] = sorted((folder.parent / "confluent_kafka.libs").glob("librdkafka*.so*"))
    if not libraries:
        raise NoMockError("this wheel of confluent-kafka brings no librdkafka of its own")
    return ctypes.CDLL(str(libraries[0]))


def _mended(piece: bytes) -> bytes:
    if len(piece) == 8 + len(REFUSAL) and piece.endswith(REFUSAL):
        return (4 + len(MENDED)).to_bytes(4, "big") + piece[4:8] + MENDED
    return piece
