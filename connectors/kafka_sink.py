"""Writing to Apache Kafka by kafka-python."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from kafka import KafkaProducer
from kafka.errors import KafkaError

from connectors.kafka_client import Connection, connect, reason
from streamlearn.errors import SinkError
from streamlearn.records import Message
from streamlearn.settings import key

IN_FLIGHT = 10_000  # messages after which `write` waits: kafka-python itself has no bound


class KafkaSink:
    """Appends to a topic: acknowledged by all replicas, without repeats by the client's own retries, at least once by ours."""

    class Settings(Connection):
        """Settings of the `kafka` sink."""

        topic: str = key(..., "topic to write to", min_length=1)
        compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = key("none", "how batches are compressed")
        linger_ms: int = key(5, "how long a message waits for company", unit="ms", ge=0)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._pending: list[Any] = []

    def write(self, messages: Sequence[Message]) -> None:
        """Sent in the background; waits for acknowledgements when 10,000 messages are on their way."""
        try:
            if self._producer is None:
                self._producer, _ = connect(KafkaProducer, self._upstream(), SinkError)
            for m in messages:
                if len(self._pending) >= IN_FLIGHT:
                    self.flush(self._settings.timeout_s)
                sent = self._producer.send(
                    self._settings.topic, m.value, key=m.key, headers=list(m.headers), timestamp_ms=m.time_ms
                )
                self._pending.append(sent)
        except (KafkaError, ValueError, TypeError) as error:
            if not self._pending:
                self._give_up()
            raise SinkError(f"{self._where} did not take a message: {reason(error)}") from error

    def flush(self, timeout_s: float) -> None:
        """Wait for all acknowledgements. After an error some of the messages may have arrived, and will be there twice."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        until = time.monotonic() + timeout_s
        with suppress(KafkaError):  # the messages themselves tell; and this one does not wait for batches that were split
            self._producer.flush(timeout_s)
        failed = [sent for sent in pending if not _arrived(sent, until)]
        if failed:
            why = reason(failed[0].exception) if failed[0].failed() else f"no answer in {timeout_s:g} s"
            self._give_up()
            raise SinkError(f"{self._where} refused {len(failed)} of {len(pending)} messages: {why}")

    def close(self) -> None:
        """Flush and disconnect. What cannot be delivered expires within `timeout_s`."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        pending, self._pending = self._pending, []
        _end(producer, 2 * self._settings.timeout_s)
        failed = sum(not sent.succeeded() for sent in pending)
        if failed:
            raise SinkError(f"{self._where} did not take the last {failed} messages before it was closed")

    def _give_up(self) -> None:
        """The next write connects anew: kafka-python 3.0.12 refuses all that follows once a batch was refused for good."""
        producer, self._producer = self._producer, None
        if producer is not None:
            _end(producer, 0.0)

    @property
    def _where(self) -> str:
        return f"kafka {self._settings.bootstrap_servers} topic {self._settings.topic}"

    def _upstream(self) -> dict[str, Any]:
        timeout_ms = int(1000 * self._settings.timeout_s)
        compression = self._settings.compression
        return self._settings.upstream(KafkaProducer.DEFAULT_CONFIG) | {
            "acks": "all",
            "enable_idempotence": True,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": max(1, timeout_ms // 2),
            "max_block_ms": timeout_ms,
            "linger_ms": self._settings.linger_ms,
            "compression_type": None if compression == "none" else compression,
        }


def _arrived(sent: Any, until: float) -> bool:
    try:
        sent.get(max(0.0, until - time.monotonic()))
    except KafkaError:
        return False
    return True


def _end(producer: Any, timeout_s: float) -> None:
    """Closed, with its thread and its sockets."""
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:  # kafka-python 3.0.12 stops to close where something is still on its way
        producer._sender.force_close()
        producer._sender.join(1.0)
        with suppress(KafkaError):
            producer.close(timeout=0)
