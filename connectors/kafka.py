"""Reading Apache Kafka by kafka-python: `assign` and `seek` to positions that are ours, never a member of a group.

Without membership no rebalance can interrupt a learning step. Group commits, where a `group_id` is set, are for lag tools alone
and go by a thread of their own: trouble with the group coordinator cannot hold up reading. Nothing is ever reset: a
position that the topic no longer holds stops the source, or is passed over and reported when `on_gap` says so.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

import structlog
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    UnknownBrokerIdError,
    for_code,
)
from kafka.structs import OffsetAndMetadata

from connectors.kafka_client import Connection, connect, reason
from connectors.kafka_commits import Commits
from streamlearn.errors import PositionLostError, SourceError
from streamlearn.records import Gap, Positions, Record
from streamlearn.settings import key

log = structlog.get_logger()

WAIT_AT_BROKER_MS = 200
"""How long a fetch waits for records. kafka-python has one fetch per broker on its way: while that waits for quiet partitions,
a busy one whose records were not part of it waits too."""

ASK_MS = 1000  # for where a partition ends, when nothing came for long
NO_ID = str(UUID(int=0))


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
        self._commits: Commits | None = None
        self._witness: Any = None
        self._network: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._names: dict[TopicPartition, str] = {}
        self._paused: set[TopicPartition] = set()
        self._gaps: list[Gap] = []
        self._made: dict[str, str] = {}  # topic → its id, which no other topic ever bears
        self._metadata_came = threading.Event()
        self._lost_since: float | None = None
        self._look_again_at = 0.0  # when a silence is long enough to ask whether there is something to read
        self._give_up_at = 0.0  # when no answer to what was asked before can come
        self._behind: dict[TopicPartition, int] = {}  # where something lay to be read when that was asked
        self._lost = False  # the client is given up: a new one reads passwords and keys as they are now

    def seek(self, positions: Positions) -> None:
        """Connects. Positions of topics that are not configured are left alone.

        Errors  SourceError when the brokers do not answer or a topic does not exist within `timeout_s`; PositionLostError.
        """
        self._disconnect()
        self._consumer, self._network = connect(KafkaConsumer, self._upstream(), SourceError)
        self._witness = self._open_witness()
        cluster = self._network.cluster
        cluster.add_listener(lambda _: self._metadata_came.set())
        found = self._await_partitions(cluster.set_topics(self._settings.topics))
        self._recognise()
        if not self._made:
            log.warning("kafka.no_topic_ids", reason="a topic that is made anew may pass for the old one")
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
        self._heard()

    def poll(self, max_records: int, timeout_s: float, paused: Collection[str] = ()) -> Sequence[Record]:
        """Waits at the broker, not by looking again. After a loss it first connects anew, within `timeout_s`."""
        if self._lost:
            self.seek(self.positions())
            self._lost, self._lost_since = False, None
        consumer = self._open()
        try:
            self._look_at_metadata()
            self._pause(paused)
            fetched = consumer.poll(timeout_ms=int(1000 * timeout_s), max_records=max_records)
            if fetched:
                self._confirm({tp.topic for tp in fetched})
                self._heard()
            else:
                self._look_at_silence(consumer)
        except OffsetOutOfRangeError as error:
            self._pass_over(error.args[0])
            return []
        except LogTruncationError as error:
            raise PositionLostError(f"{self._where}: the topic was truncated or made anew: {error}") from error
        except KafkaError as error:
            self._lost = isinstance(error, UnknownBrokerIdError)  # kafka-python 3.0.12 would wait for its answer for ever
            self._assign()
            raise SourceError(f"{self._where}: {reason(error)}") from error
        return self._records(fetched)

    def positions(self) -> Positions:
        """One past the last record that `poll` returned, or where reading began."""
        return {self._names[tp]: position for tp, position in self._positions.items()}

    def ends(self) -> Positions:
        """As told with the last records; a transaction's end marker behind the last record does not count."""
        return {self._names[tp]: max(self._ends.get(tp, 0), position) for tp, position in self._positions.items()}

    def identities(self) -> Mapping[str, str]:
        """The topics' ids."""
        return dict(self._made)

    def exhausted(self) -> bool:
        """Never."""
        return False

    def gaps(self) -> list[Gap]:
        """What was skipped since the last call."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def commit(self, positions: Positions) -> None:
        """With a `group_id`: soon, for lag tools. Errors: SourceError, when earlier ones were refused."""
        offsets = {tp: OffsetAndMetadata(positions[n], "", -1) for tp, n in self._names.items() if n in positions}
        if self._settings.group_id is None or not offsets:
            return
        if self._commits is None:
            self._commits = Commits(self._open_committer, where=self._where, timeout_s=self._settings.timeout_s)
        self._commits.tell(offsets)

    def close(self) -> None:
        """Disconnect, once the last positions are committed."""
        commits, self._commits = self._commits, None
        if commits is not None:
            commits.close()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=1000)
        if self._witness is not None:
            self._witness.close()
        self._consumer = self._witness = self._network = None
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

    def _open_committer(self) -> Any:
        return connect(KafkaConsumer, self._upstream() | {"group_id": self._settings.group_id}, SourceError)[0]

    def _open_witness(self) -> Any:
        settings = {"request_timeout_ms": int(1000 * self._settings.timeout_s)}
        settings |= self._settings.upstream(KafkaAdminClient.DEFAULT_CONFIG)
        return connect(KafkaAdminClient, settings, SourceError)[0]

    def _await_partitions(self, answer: Any) -> list[TopicPartition]:
        """All partitions of all topics, once every topic is known."""
        until, came = self._clock() + self._settings.timeout_s, self._metadata_came
        answer.add_both(lambda _: came.set())
        while came.wait(max(0.0, until - self._clock())):
            came.clear()
            if not self._missing():
                return self._known_partitions()
            self._network.cluster.request_update()  # what was asked before the topics were set tells nothing of them
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
            raise SourceError(f"{self._where} does not say where its partitions begin and end: {reason(error)}") from error

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

    def _look_at_metadata(self) -> None:
        if self._metadata_came.is_set():
            self._metadata_came.clear()
            self._recognise()
            self._take_new_partitions()

    def _recognise(self) -> None:
        for topic in self._settings.topics:
            self._expect(topic, self._network.cluster.topic_id(topic))

    def _expect(self, topic: str, found: Any) -> None:
        """kafka-python asks for topics by name, so a topic that was made anew would be read on at the old one's positions."""
        if found and str(found) != NO_ID and self._made.setdefault(topic, str(found)) != str(found):
            raise PositionLostError(
                f"{self._where}: topic {topic} was deleted and made anew while it was read: saved positions mean other"
                " records now; start with an empty state directory, or read another topic"
            )

    def _confirm(self, topics: Collection[str]) -> None:
        """Asks for the topics' ids after their records came: those of a topic made anew since the last metadata are refused.

        By a connection of its own, since on that of the consumer the answer would wait behind its next fetch. Brokers before
        2.8 tell no ids, and are not asked.
        """
        known = sorted(topics & self._made.keys())
        for found in self._witness.describe_topics(known) if known else ():
            if found["error_code"]:
                raise for_code(found["error_code"])(f"topic {found['name']}, while records of it were on their way")
            self._expect(found["name"], found.get("topic_id"))

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
            self._look_for_stall(consumer)
            return
        self._lost_since = self._clock() if self._lost_since is None else self._lost_since
        if self._clock() - self._lost_since >= self._settings.timeout_s:
            self._lost = True  # also where topics are gone: kafka-python asks no more for one that was once refused as invalid
            closed = " or closed to this user" if cluster.unauthorized_topics else ""
            what = f"topic {', '.join(self._missing())} is gone{closed}" if connected else "no broker is connected"
            raise SourceError(
                f"{self._where}: {what} for {self._clock() - self._lost_since:.0f} s; reading goes on when it is back"
            )

    def _heard(self) -> None:
        """Something came, so nothing is lost."""
        self._lost_since, self._behind = None, {}
        self._look_again_at = self._clock() + self._settings.timeout_s

    def _look_for_stall(self, consumer: Any) -> None:
        """After a silence, twice: kafka-python tells of no fetch that is refused, however often, where it may try again.

        That one was answered is known by the highwater it brought; it may bring nothing else, where compaction left a gap.
        """
        partitions = consumer.assignment()
        if self._clock() < self._look_again_at or not partitions:
            return
        leader = self._network.cluster.leader_for_partition
        if headless := sorted(name(tp) for tp in partitions if leader(tp) in {None, -1}):
            raise SourceError(f"{self._where}: {', '.join(headless)} has no leader; reading goes on when it has one")
        try:
            ends = consumer.end_offsets(partitions, timeout_ms=ASK_MS)
        except KafkaError as error:
            raise SourceError(f"{self._where} does not say where its partitions end: {reason(error)}") from error
        reached = {tp: consumer.position(tp, timeout_ms=0) or self._positions[tp] for tp in partitions}
        behind = {tp: at for tp, at in reached.items() if at < ends[tp]}
        self._ends |= {tp: ends[tp] for tp in behind}
        waiting = {tp for tp, at in behind.items() if consumer.highwater(tp) is None and self._behind.get(tp) == at}
        if waiting:
            self._lost = self._clock() >= self._give_up_at  # of its own accord kafka-python 3.0.12 may never ask again
            places = ", ".join(sorted(f"{name(tp)}@{behind[tp]}" for tp in waiting))
            raise SourceError(f"{self._where} answers no fetch of what lies at {places}; reading goes on when it does")
        for tp in behind:
            consumer._subscription.assignment[tp].highwater = None
        self._behind = behind
        self._look_again_at = self._clock() + self._settings.timeout_s
        self._give_up_at = self._clock() + consumer.config["request_timeout_ms"] / 1000


def name(tp: TopicPartition) -> str:
    """`orders[3]`."""
    return f"{tp.topic}[{tp.partition}]"


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((k, v or b"") for k, v in headers) if headers else ()
