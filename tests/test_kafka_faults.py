"""Kafka's error codes, by librdkafka's mock cluster: what passes is nobody's business, what lasts is told, reading goes on.

`python -m benchmarks.reliability broker --only mock` does the same to a daemon, and writes rows.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import structlog.testing
from kafka import KafkaConsumer, TopicPartition

from benchmarks.reliability import refusals
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.table import SCENARIOS
from benchmarks.testbed.forks import Forks
from benchmarks.testbed.mock_cluster import (
    FETCH,
    FIND_COORDINATOR,
    INIT_PRODUCER_ID,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    PRODUCE,
    MockCluster,
    NoMockError,
    mock_cluster,
)
from connectors import open_sink, open_source
from connectors.kafka import KafkaSource
from streamlearn.errors import ConfigError, PositionLostError, SinkError, SourceError
from streamlearn.records import Message

NOW = {"request_timeout_ms": 1000}
OLD = NOW | {"api_version": [2, 3]}
"""As if the brokers were of 2019: they tell no ids of topics."""
QUICK = {"timeout_s": 1.0, "metadata_every_s": 0.3, "client": NOW}
PATIENCE_S = 20.0
NAMES = count()


@pytest.fixture(scope="module")
def mock() -> Iterator[MockCluster]:
    try:
        with mock_cluster(3) as made:
            yield made
    except NoMockError as error:
        pytest.skip(str(error))


@pytest.fixture
def topic(mock: MockCluster) -> Iterator[str]:
    name = mock.topic(f"t{next(NAMES)}", partitions=2, replicas=3)
    yield name
    for api in (PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, FIND_COORDINATOR, INIT_PRODUCER_ID):
        mock.forgive(api)
    mock.set_topic_error(name, 0)


class Reading:
    """A source on a topic, what is sent to it, and what came: every record once, in order, positions one past the last."""

    def __init__(self, mock: MockCluster, topic: str, **settings: Any) -> None:
        self.topic = topic
        self.sink = refusals.opened(mock, topic)
        source = open_source("kafka", {"bootstrap_servers": mock.bootstrap, "topics": [topic], **QUICK, **settings})
        assert isinstance(source, KafkaSource)
        self.source, self.sent, self.errors = source, 0, list[str]()
        self.found: dict[str, list[bytes | None]] = {}

    def send(self, n: int = 20) -> None:
        self.sink.write([Message(b"%d" % i) for i in range(self.sent, self.sent + n)])
        self.sink.flush(10.0)
        self.sent += n

    def poll(self) -> None:
        before = self.source.positions()
        try:
            came = self.source.poll(7, 0.1)
        except PositionLostError:
            raise
        except SourceError as error:
            self.errors.append(str(error))
            assert self.source.positions() == before
            return
        for record in came:
            held = self.found.setdefault(record.partition, [])
            assert record.position == len(held)
            held.append(record.value)
        assert self.source.positions() == {f"{self.topic}[{p}]": len(self.found.get(f"{self.topic}[{p}]", [])) for p in (0, 1)}

    def all(self) -> None:
        """Until all that was sent has come. Errors: AssertionError."""
        until = time.monotonic() + PATIENCE_S
        while sum(map(len, self.found.values())) < self.sent:
            assert time.monotonic() < until, f"{self.found}, {self.errors}"
            self.poll()
        values = [int(value or b"-1") for held in self.found.values() for value in held]
        assert sorted(values) == list(range(self.sent))
        assert all(held == sorted(held, key=lambda value: int(value or b"-1")) for held in self.found.values())

    def fails(self, text: str, times: int = 1) -> None:
        """Until so many errors with this text have come."""
        until = time.monotonic() + PATIENCE_S
        while sum(text in error for error in self.errors) < times:
            assert time.monotonic() < until, f"not told: {text}, but {self.errors}"
            self.poll()

    def silent(self, polls: int = 5) -> None:
        """Nothing more comes."""
        for _ in range(polls):
            self.poll()
        self.all()


@pytest.fixture
def reading(mock: MockCluster, topic: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("connectors.kafka.WAIT_AT_BROKER_MS", 50)  # what the mock always waits where nothing lies
    made: list[Reading] = []

    def begin(**settings: Any) -> Reading:
        made.append(Reading(mock, topic, **settings))
        made[-1].send()
        made[-1].source.seek({})
        made[-1].all()
        return made[-1]

    yield begin
    for each in made:
        each.source.close()
        each.sink.close()


@pytest.mark.parametrize("client", [NOW, OLD], ids=["now", "2019"])
def test_a_refused_fetch_is_tried_again(mock: MockCluster, reading: Any, client: dict[str, Any]) -> None:
    held = reading(client=client)
    for code in refusals.FETCHES:
        mock.refuse(FETCH, code, code)
        held.send()
        held.all()
    assert held.errors == []
    held.silent()


@pytest.mark.parametrize("client", [NOW, OLD], ids=["now", "2019"])
def test_a_partition_that_is_refused_is_tried_again_and_told_where_that_may_not_help(
    mock: MockCluster, topic: str, reading: Any, client: dict[str, Any]
) -> None:
    held = reading(client=client)
    for code in refusals.PARTS:
        mock.refuse_partition(FETCH, topic, 0, code, code)
        mock.refuse_partition(FETCH, topic, 1, code)
        held.send()
        held.all()
        told, held.errors = held.errors, []
        assert all("TopicAuthorizationFailedError" in error and "has no right" in error for error in told) or code != 29
        anew = client == OLD and code in {74, 75}  # kafka-python 3.0.12 asks no more, so it is told, and connects anew
        assert bool(told) == (code in {29, -1, 76}) or anew, (code, told)
    held.silent()


@pytest.mark.parametrize("code", [29, 71, -1])
def test_fetches_that_are_refused_for_long_are_told_and_reading_goes_on_after(
    mock: MockCluster, topic: str, reading: Any, code: int
) -> None:
    held = reading()
    mock.refuse(FETCH, *[code] * 100_000)
    held.send()
    held.fails("answers no fetch of what lies at", times=2)
    assert f"{topic}[0]@" in held.errors[-1]
    mock.forgive(FETCH)
    held.all()


def test_a_long_silence_is_no_loss(reading: Any) -> None:
    held = reading(timeout_s=0.2)
    held.silent(20)
    assert held.errors == []


def test_a_partition_without_a_leader_is_told(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock breaks down where there is none, so the client's view is changed."""
    held = reading(timeout_s=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(held.source._network.cluster, "leader_for_partition", lambda _: -1)
        held.fails(f"{held.topic}[0], {held.topic}[1] has no leader; reading goes on when it has one", times=2)
    held.errors.clear()
    held.send()
    held.all()
    assert held.errors == []


def test_a_broker_away_that_leads_is_told_while_others_are_there(mock: MockCluster, topic: str, reading: Any) -> None:
    held = reading()
    for partition in (0, 1):
        mock.lead(topic, partition, 2)
    held.send()
    held.all()
    mock.down(2)
    held.fails("2")
    mock.up(2)
    held.all()
    held.sink.close()  # kafka-python's producer hangs for its time-out when a leader is not among the brokers
    held.send()
    held.all()


def test_refused_positions_are_asked_for_again(mock: MockCluster, topic: str, reading: Any) -> None:
    held = reading()
    for code in refusals.OFFSETS:
        mock.refuse(LIST_OFFSETS, code, code)
        positions = held.source.positions()
        for _ in range(3):  # the daemon's thread tries again for ever
            try:
                held.source.seek(positions)
            except SourceError as error:
                assert code == 29, error
                assert "does not say where its partitions begin and end: " in str(error)
                assert "this user has no right to it" in str(error)
            else:
                break
        assert held.source.positions() == positions
        held.send()
        held.all()


def test_positions_that_are_refused_for_long_are_a_source_error(mock: MockCluster, reading: Any) -> None:
    held = reading()
    mock.refuse(LIST_OFFSETS, *[6] * 100_000)
    with pytest.raises(SourceError, match="does not say where its partitions begin and end: KafkaTimeoutError"):
        held.source.seek(held.source.positions())


@pytest.mark.parametrize("code", refusals.TOPICS)
def test_a_topic_whose_metadata_is_refused_is_lost_until_it_is_back(
    mock: MockCluster, topic: str, reading: Any, code: int
) -> None:
    """Of one that was once refused as invalid (17) kafka-python 3.0.12 never asks again."""
    held = reading()
    mock.set_topic_error(topic, code)
    held.fails(f"topic {topic} is gone or closed to this user for" if code == 29 else f"topic {topic} is gone for")
    held.fails(f"has no topic {topic}, or does not show it to this user")
    mock.set_topic_error(topic, 0)
    held.send()
    held.all()


def test_an_earlier_loss_is_no_part_of_a_later_one(mock: MockCluster, topic: str, reading: Any) -> None:
    held = reading(timeout_s=2.0)
    for _ in range(2):
        mock.set_topic_error(topic, 3)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            held.poll()
        mock.set_topic_error(topic, 0)
        while held.source._missing():
            held.poll()
        held.send(1)
        held.all()
    assert held.errors == []


@pytest.mark.parametrize("code", refusals.COMMITS)
def test_a_refused_commit_is_told_with_the_next_and_holds_up_nothing(mock: MockCluster, reading: Any, code: int) -> None:
    held = reading(group_id=f"group{code}", timeout_s=0.5)
    mock.refuse(OFFSET_COMMIT, *[code] * 100_000)
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            held.source.commit(held.source.positions())
        except SourceError as error:
            assert "positions were not committed for lag tools: " in str(error)
            break
        assert time.monotonic() < until, "the refusal was told"
        held.send(1)
        held.all()
    mock.forgive(OFFSET_COMMIT)
    held.send()
    held.all()
    positions = held.source.positions()
    with suppress(SourceError):  # what was refused before
        held.source.commit(positions)
    held.source.close()
    assert group_positions(mock, f"group{code}", positions) == positions


def group_positions(mock: MockCluster, group: str, names: dict[str, int]) -> dict[str, int | None]:
    consumer = KafkaConsumer(bootstrap_servers=mock.bootstrap, group_id=group)
    found = {n: consumer.committed(TopicPartition(n[: n.rindex("[")], int(n[n.rindex("[") + 1 : -1]))) for n in names}
    consumer.close(autocommit=False)
    return found


def test_leader_and_coordinator_move(mock: MockCluster, topic: str, reading: Any) -> None:
    held = reading(group_id="moved")
    for i in range(6):
        for partition in (0, 1):
            mock.lead(topic, partition, (i + partition) % 3 + 1)
        mock.coordinate("moved", i % 3 + 1)
        held.send()
        held.all()
        held.source.commit(held.source.positions())
    positions = held.source.positions()
    held.source.close()
    assert held.errors == []
    assert group_positions(mock, "moved", positions) == positions


def test_all_brokers_away_are_told_and_reading_goes_on_when_they_are_back(mock: MockCluster, reading: Any) -> None:
    held = reading()
    mock.down()
    held.fails("no broker is connected", times=1)
    mock.up()
    held.sink.close()
    held.send()
    held.all()


def test_round_trips_of_800_ms_are_slow_and_nothing_else(mock: MockCluster, reading: Any) -> None:
    held = reading(timeout_s=10.0, client={})
    mock.round_trip(800)
    try:
        held.send()
        held.all()
    finally:
        mock.round_trip(0)
    assert held.errors == []


@pytest.mark.parametrize("code", refusals.AGAIN)
def test_a_message_that_is_refused_twice_is_written_once(mock: MockCluster, code: int) -> None:
    refusals.written_again(mock, code)


@pytest.mark.parametrize("code", refusals.FOR_GOOD)
def test_a_message_that_is_refused_for_good_is_a_sink_error_and_the_sink_goes_on(mock: MockCluster, code: int) -> None:
    refusals.refused_for_good(mock, code)


def test_a_batch_that_is_too_large_is_split_and_no_error(mock: MockCluster, topic: str) -> None:
    sink = refusals.opened(mock, topic, linger_ms=100)
    refusals.write(sink, "before", 1)
    mock.refuse(PRODUCE, 10)
    refusals.write(sink, "a", 20)
    sink.close()
    assert sorted(refusals.held(mock, topic), key=str) == sorted(
        [*refusals.texts("before", 1), *refusals.texts("a", 20)], key=str
    )


def test_a_sink_whose_brokers_do_not_answer_closes_with_a_sink_error(mock: MockCluster, topic: str) -> None:
    sink = refusals.opened(mock, topic, timeout_s=0.3)
    refusals.write(sink, "before", 1)
    mock.refuse(PRODUCE, *[7] * 100_000)
    sink.write([Message(b"lost")])
    with pytest.raises(SinkError, match="did not take the last 1 messages"):
        sink.close()
    sink.close()


def test_brokers_that_tell_no_ids_are_read_with_a_warning(mock: MockCluster, topic: str) -> None:
    with structlog.testing.capture_logs() as lines:
        held = Reading(mock, topic, client=OLD)
        held.send()
        held.source.seek({})
    assert [line["event"] for line in lines] == ["kafka.no_topic_ids"]
    held.all()
    assert held.source.identities() == {}
    held.source.close()
    held.sink.close()


@pytest.mark.parametrize("value", ["2.3", 2, [2], ["2", "3"], [2, 3, 1, 1]])
def test_an_api_version_is_a_list_of_numbers(value: object) -> None:
    for make, settings in ((open_source, {"topics": ["t"]}), (open_sink, {"topic": "t"})):
        with pytest.raises(ConfigError, match=r"api_version is .*, expected numbers such as \[2, 3\]"):
            make("kafka", {"client": {"api_version": value}, **settings})


@pytest.fixture(scope="module")
def bench(_forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("mock"), quick=True, forks=_forks)
    yield made
    made.close()


# The scenario's own client, in this process, forgets sockets; the program is another process.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("name", ["mock: fetches refused", "mock: commits refused"])
def test_a_daemon_learns_the_same_as_undisturbed(mock: MockCluster, bench: Bench, name: str) -> None:
    (scenario,) = (each for each in SCENARIOS if each.name == name)
    bench.room(name.replace(" ", "-").replace(":", ""))
    try:
        scenario.play(bench)
    finally:
        gc.collect()  # here, where the filter holds
