"""Apache Kafka by kafka-python: `assign` and `seek` to positions that are ours, never a member of a group.

Without membership no rebalance can interrupt a learning step. Group commits, where a `group_id` is set, are for lag tools alone
and go by a connection of their own: trouble with the group coordinator cannot hold up reading. Nothing is ever reset: a
position that the topic no longer holds stops the source, or is passed over and reported when `on_gap` says so.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError, UnsupportedCodecError
from kafka.structs import OffsetAndMetadata

from connectors.kafka_client import Connection, connect
from streamlearn.errors import PositionLostError, SinkError, SourceError
from streamlearn.records import Gap, Message, Positions, Record
from streamlearn.settings import key

WAIT_AT_BROKER_MS = 200
"""How long a fetch waits for records. kafka-python has one fetch per broker on its way: while that waits for quiet partitions,
a busy one whose records were not part of it waits too."""
IN_FLIGHT = 10_000  # messages after which `write` waits: kafka-python itself has no bound


class KafkaSource:
    """Reads topics from saved positions on; partitions that are added while it runs are read from their beginning."""

    class Settings(Connection):
        """Settings of the `kafka` source."""

        topics: tuple[str, ...] = key(..., "topics to read", min_length=1)
        start: Literal["earliest", "latest"] = key("earliest", "where the very first start begins")
        isolation_level: Literal["read_committed", "read_uncommitted"] = key(
            "read_committed", "whether records of aborted transactions are left out"
        )
        on_gap: Literal["stop", "skip"] = key("stop", "when retention has passed the saved position: stop, or skip and count")
        group_id: str | None = key(None, "group under which durable positions are committed for lag tools; left out, none are")
        metadata_every_s: float = key(30.0, "how often new partitions are looked for", unit="s", gt=0)
        fetch_bytes: int = key(8 << 20, "bytes asked for in one fetch, and so held by the client", unit="bytes", ge=1 << 16)

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._consumer: Any = None
        self._committer: Any = None
        self._network: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._names: dict[TopicPartition, str] = {}
        self._paused: set[TopicPartition] = set()
        self._gaps: list[Gap] = []
        self._metadata_came = threading.Event()
        self._lost_since: float | None = None

    def seek(self, positions: Positions) -> None:
        """Connects. Positions of topics that are not configured are left alone.

        Errors  SourceError when the brokers do not answer or a topic does not exist within `timeout_s`; PositionLostError.
        """
        self.close()
        self._consumer, self._network = connect(KafkaConsumer, self._upstream(), SourceError)
        cluster = self._network.cluster
        cluster.add_listener(lambda _: self._metadata_came.set())
        found = self._await_partitions(cluster.set_topics(self._settings.topics))
        saved = {tp: positions[name(tp)] for tp in found if name(tp) in positions}
        self._refuse_unknown(positions, found)
        begins, ends = self._bounds(found)
        first = ends if self._settings.start == "latest" and not saved else begins
        self._names = {tp: name(tp) for tp in found}
        self._positions = {tp: saved.get(tp, first[tp]) for tp in found}
        self._ends = dict(ends)
        for tp in found:
            self._within(tp, begins[tp], ends[tp])
        self._assign()

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """Waits at the broker, not by looking again."""
        consumer = self._open()
        try:
            if self._metadata_came.is_set():
                self._metadata_came.clear()
                self._take_new_partitions()
            self._pause(paused)
            fetched = consumer.poll(timeout_ms=int(1000 * timeout_s), max_records=max_records)
            if not fetched:
                self._look_at_silence(consumer)
        except OffsetOutOfRangeError as error:
            self._pass_over(error.args[0])
            return []
        except LogTruncationError as error:
            raise PositionLostError(f"{self._where}: the topic was truncated or made anew: {error}") from error
        except KafkaError as error:
            self._assign()
            raise SourceError(f"{self._where}: {_explained(error)}") from error
        return self._records(fetched)

    def positions(self) -> Positions:
        """One past the last record that `poll` returned, or where reading began."""
        return {self._names[tp]: position for tp, position in self._positions.items()}

    def ends(self) -> Positions:
        """As told with the last records; a transaction's end marker behind the last record does not count."""
        return {self._names[tp]: max(self._ends.get(tp, 0), position) for tp, position in self._positions.items()}

    def exhausted(self) -> bool:
        """Never."""
        return False

    def gaps(self) -> list[Gap]:
        """What was skipped since the last call."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def commit(self, positions: Positions) -> None:
        """With a `group_id`: within `timeout_s`, for lag tools. Errors: SourceError."""
        offsets = {tp: OffsetAndMetadata(positions[n], "", -1) for tp, n in self._names.items() if n in positions}
        if self._settings.group_id is None or not offsets:
            return
        try:
            if self._committer is None:
                settings = self._upstream() | {"group_id": self._settings.group_id}
                self._committer, _ = connect(KafkaConsumer, settings, SourceError)
            self._committer.commit(offsets, timeout_ms=int(1000 * self._settings.timeout_s))
        except KafkaError as error:
            raise SourceError(f"{self._where}: positions were not committed for lag tools: {error}") from error

    def close(self) -> None:
        """Disconnect."""
        for client in (self._consumer, self._committer):
            if client is not None:
                client.close(autocommit=False, timeout_ms=1000)
        self._consumer = self._committer = self._network = None
        self._paused = set()

    @property
    def _where(self) -> str:
        return f"kafka {self._settings.bootstrap_servers}"

    def _open(self) -> Any:
        if self._consumer is None:
            raise SourceError(f"{self._where} is not open: seek comes before poll")
        return self._consumer

    def _upstream(self) -> dict[str, Any]:
        return self._settings.upstream(KafkaConsumer.DEFAULT_CONFIG) | {
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": self._settings.isolation_level,
            "allow_auto_create_topics": False,
            "metadata_max_age_ms": int(1000 * self._settings.metadata_every_s),
            "fetch_max_bytes": self._settings.fetch_bytes,
            "fetch_max_wait_ms": WAIT_AT_BROKER_MS,
        }

    def _await_partitions(self, answer: Any) -> list[TopicPartition]:
        """All partitions of all topics, once every topic is known."""
        until, came = self._clock() + self._settings.timeout_s, self._metadata_came
        answer.add_both(lambda _: came.set())
        while came.wait(max(0.0, until - self._clock())):
            came.clear()
            if not self._missing():
                return self._known_partitions()
        topics = ", ".join(self._missing())
        raise SourceError(f"{self._where} has no topic {topics}, or does not show it to this user: create it or allow reading")

    def _missing(self) -> list[str]:
        return [topic for topic in self._settings.topics if not self._network.cluster.partitions_for_topic(topic)]

    def _known_partitions(self) -> list[TopicPartition]:
        numbers = self._network.cluster.partitions_for_topic
        return [TopicPartition(topic, n) for topic in self._settings.topics for n in sorted(numbers(topic) or ())]

    def _refuse_unknown(self, positions: Positions, found: Iterable[TopicPartition]) -> None:
        ours = {f"{topic}[" for topic in self._settings.topics}
        gone = [n for n in positions if n not in {name(tp) for tp in found} and n[: n.rfind("[") + 1] in ours]
        if gone:
            raise PositionLostError(
                f"{self._where} has no partition {gone[0]}, but a position of it is saved: was it made anew?"
            )

    def _bounds(self, partitions: list[TopicPartition]) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        timeout_ms = int(1000 * self._settings.timeout_s)
        try:
            begins = self._consumer.beginning_offsets(partitions, timeout_ms=timeout_ms)
            return begins, self._consumer.end_offsets(partitions, timeout_ms=timeout_ms)
        except KafkaError as error:
            raise SourceError(f"{self._where} does not say where its partitions begin and end: {_explained(error)}") from error

    def _within(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Move behind a gap, or refuse."""
        position, place = self._positions[tp], f"{name(tp)}@{self._positions[tp]}"
        if position > end:
            raise PositionLostError(
                f"{place} is saved, but the partition ends at {end}: it was truncated or made anew; start with an empty state"
                " directory, or read another topic"
            )
        if position >= begin:
            return
        if self._settings.on_gap == "stop":
            raise PositionLostError(
                f"{place} is the next to read, but the partition begins at {begin}: retention removed {begin - position}"
                " positions unread; set on_gap to 'skip' to go on behind them"
            )
        self._gaps.append(Gap(name(tp), position, begin))
        self._positions[tp] = begin

    def _pass_over(self, offsets: Mapping[TopicPartition, int]) -> None:
        partitions = list(offsets)
        begins, ends = self._bounds(partitions)
        for tp in partitions:
            self._within(tp, begins[tp], ends[tp])
        self._assign()

    def _assign(self) -> None:
        """Read on from our positions, whatever the client thinks."""
        active = [tp for tp in self._positions if tp not in self._paused]
        self._consumer.assign(active)
        for tp in active:
            self._consumer.seek(tp, self._positions[tp])

    def _take_new_partitions(self) -> None:
        new = [tp for tp in self._known_partitions() if tp not in self._positions]
        if new:
            self._positions |= self._bounds(new)[0]
            self._names |= {tp: name(tp) for tp in new}
            self._assign()

    def _pause(self, names: Collection[str]) -> None:
        """A paused partition is not assigned: kafka-python 3.0.12 may never return to what it had fetched of one it paused."""
        wanted = {tp for tp, n in self._names.items() if n in names} if names else set()
        if wanted != self._paused:
            resumed, self._paused = self._paused - wanted, wanted
            self._consumer.assign([tp for tp in self._positions if tp not in wanted])
            for tp in resumed:
                self._consumer.seek(tp, self._positions[tp])

    def _records(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> list[Record]:
        records: list[Record] = []
        for tp, batch in fetched.items():
            partition = self._names[tp]
            records += [
                Record(partition, r.offset, r.value, r.key, _headers(r.headers), r.timestamp if r.timestamp >= 0 else None)
                for r in batch
            ]
            self._positions[tp] = batch[-1].offset + 1
            self._ends[tp] = self._consumer.highwater(tp) or 0
        return records

    def _look_at_silence(self, consumer: Any) -> None:
        """Nothing came: behind a transaction's end marker there is no lag, and without brokers or topics the source is lost."""
        for tp in consumer.assignment():
            position, highwater = self._positions[tp], consumer.highwater(tp)
            if highwater is not None:
                at_end = highwater > position and (consumer.position(tp, timeout_ms=0) or 0) >= highwater
                self._ends[tp] = position if at_end else highwater
        cluster = self._network.cluster
        connected = any(self._network.connected(broker.node_id) for broker in cluster.brokers())
        if connected and not self._missing():
            self._lost_since = None
            return
        self._lost_since = self._clock() if self._lost_since is None else self._lost_since
        if self._clock() - self._lost_since >= self._settings.timeout_s:
            what = f"topic {', '.join(self._missing())} is gone" if connected else "no broker is connected"
            raise SourceError(
                f"{self._where}: {what} for {self._clock() - self._lost_since:.0f} s; reading goes on when it is back"
            )


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
            raise SinkError(f"{self._where} did not take a message: {_explained(error)}") from error

    def flush(self, timeout_s: float) -> None:
        """Wait for all acknowledgements. After an error some of the messages may have arrived, and will be there twice."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._producer.flush(timeout_s)
        except KafkaError as error:
            raise SinkError(f"{self._where} did not acknowledge {len(pending)} messages in {timeout_s:g} s: {error}") from error
        failed = [sent for sent in pending if not sent.succeeded()]
        if failed:
            reason = _explained(failed[0].exception) if failed[0].failed() else "no answer"
            raise SinkError(f"{self._where} refused {len(failed)} of {len(pending)} messages: {reason}")

    def close(self) -> None:
        """Flush and disconnect. What cannot be delivered expires within `timeout_s`."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        pending, self._pending = self._pending, []
        producer.close(timeout=2 * self._settings.timeout_s)
        failed = sum(not sent.succeeded() for sent in pending)
        if failed:
            raise SinkError(f"{self._where} did not take the last {failed} messages before it was closed")

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


def name(tp: TopicPartition) -> str:
    """`orders[3]`."""
    return f"{tp.topic}[{tp.partition}]"


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((k, v or b"") for k, v in headers) if headers else ()


def _explained(error: BaseException) -> str:
    if isinstance(error, UnsupportedCodecError):
        return f"{error}; install the codecs: streamlearn[kafka-codecs]"
    return str(error) or type(error).__name__
