"""Error codes that no real broker can be made to answer with: a daemon on librdkafka's mock cluster, and our sink on it."""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

from kafka import KafkaConsumer, TopicPartition

import connectors
from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.reliability.cluster import TIMEOUTS, Cluster
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.reliability.trial import HALF, RECORDS, SAME, Trial
from benchmarks.testbed.mock_cluster import FETCH, LIST_OFFSETS, OFFSET_COMMIT, PRODUCE, MockCluster, NoMockError
from streamlearn.errors import SinkError
from streamlearn.records import Message

Fault: TypeAlias = Callable[[], object]
BY = "error codes by librdkafka's mock cluster"
FETCHES = (6, 3, 56, 1, 29, -1, 9, 70, 71, 74, 75, 76, -195)  # -195 ends the connection
PARTS = (6, 3, 56, 1, 29, -1, 9, 74, 75, 76)
OFFSETS = (6, 3, 5, 56, 78, -1, 29, 74, 76, -195)
TOPICS = (5, 3, 29, -1, 17)
COMMITS = (16, 14, 27, 22, 25, 30, 82, 7, 15, 12, 28, 29, -1, -195)
AGAIN = (7, 6, 3, 5, 13, 19, 20, 56, -195)  # of a message: tried again by the client
FOR_GOOD = (2, 29, 10, 87, 17, 42, 44, 45, 47, 59, 31, -1)


class Mocked(Cluster):
    """A mock cluster in a real one's place, as far as a trial needs it."""

    def __init__(self, bench: Bench, brokers: int = 1) -> None:
        try:
            self.mock = MockCluster(brokers)
        except NoMockError as error:
            raise NotHereError(str(error)) from error
        bench.at_the_end(self.mock.close)
        self.brokers, self._topics = brokers, 0
        self.node = SimpleNamespace(bootstrap=self.mock.bootstrap)

    def make(self, name: str, partitions: int = 1, replicas: int = 1, **_: str) -> None:
        """A topic of that name."""
        self.mock.topic(name, partitions, min(replicas, self.brokers))

    def source(self, topic: str, *, proxied: bool = False, **changes: Any) -> dict[str, Any]:
        """Settings of a daemon's source."""
        assert not proxied
        return {"type": "kafka", "bootstrap_servers": self.mock.bootstrap, "topics": [topic]} | TIMEOUTS | changes


def through(trial: Trial, faults: Sequence[Fault]) -> list[float]:
    """The second half in as many parts as there are faults, each after its fault; seconds until each was read."""
    trial.first_half()
    took, first = list[float](), HALF
    for i, fault in enumerate(faults):
        until = HALF + (RECORDS - HALF) * (i + 1) // len(faults)
        fault()
        trial.cluster.send(trial.topic, trial.values[first:until])
        took.append(trial.reader.reads(until))
        first = until
    trial.finish()
    return took


@scenario("broker", "mock: fetches refused", produced=f"{BY}: {FETCHES} for an answer as a whole, {PARTS} for a partition")
def fetches(bench: Bench) -> Outcome:
    host = Mocked(bench)
    trial = Trial(bench, host=host)
    faults: list[Fault] = [partial(host.mock.refuse, FETCH, *[code] * 3) for code in FETCHES]
    faults += [partial(host.mock.refuse_partition, FETCH, trial.topic, 0, *[code] * 3) for code in PARTS]
    faults = faults[::6] if bench.quick else faults
    return Outcome(SAME, len(faults), through(trial, faults))


@scenario("broker", "mock: fetches refused for long", produced=f"{BY}: every fetch, until the loss was reported three times")
def stalled(bench: Bench) -> Outcome:
    host, runs = Mocked(bench), 1 if bench.quick else 3
    took = []
    for code in (29, -1, 71)[:runs]:
        bench.room(f"stall{code}")
        trial = Trial(bench, host=host)
        trial.first_half()
        host.mock.refuse(FETCH, *[code] * 100_000)
        host.send(trial.topic, trial.values[HALF:])
        trial.reader.lost(3)
        said = next(e["error"] for e in trial.reader.life.events if e["event"] == "source.lost")
        assert "answers no fetch of what lies at" in said, said
        host.mock.forgive(FETCH)
        took.append(trial.reader.reads(HALF + 1))
        trial.finish()
    return Outcome(f"reported as lost; {SAME}", runs, took)


@scenario(
    "broker",
    "mock: positions refused",
    produced=f"{BY}: {OFFSETS} twice each, for where a partition begins and ends, at the start",
)
def offsets(bench: Bench) -> Outcome:
    host = Mocked(bench)
    trial = Trial(bench, host=host)
    host.mock.refuse(LIST_OFFSETS, *[code for code in OFFSETS for _ in range(2)])
    took = through(trial, [lambda: None])
    return Outcome(SAME, len(OFFSETS), took)


@scenario("broker", "mock: metadata refused", produced=f"{BY}: {TOPICS} for the topic, each until the loss is reported")
def metadata(bench: Bench) -> Outcome:
    host = Mocked(bench)
    trial = Trial(bench, host=host)
    codes = TOPICS[-1:] if bench.quick else TOPICS

    def refused(code: int) -> None:
        before = sum(e["event"] == "source.lost" for e in trial.reader.life.events)
        host.mock.set_topic_error(trial.topic, code)
        trial.reader.lost(before + 2)
        host.mock.set_topic_error(trial.topic, 0)

    return Outcome(f"reported as lost; {SAME}", len(codes), through(trial, [partial(refused, code) for code in codes]))


@scenario("broker", "mock: commits refused", produced=f"{BY}: {COMMITS} each for long, for positions told to a group")
def commits(bench: Bench) -> Outcome:
    host = Mocked(bench)
    trial = Trial(bench, host=host, group_id="lag")

    def refused(code: int) -> None:
        host.mock.forgive(OFFSET_COMMIT)
        host.mock.refuse(OFFSET_COMMIT, *[code] * 1000)

    faults: list[Fault] = [partial(refused, code) for code in (COMMITS[::5] if bench.quick else COMMITS)]
    took = through(trial, [*faults, partial(host.mock.forgive, OFFSET_COMMIT)])
    assert committed(host, "lag", trial.topic) == RECORDS, "the last positions were committed"
    return Outcome(f"{SAME}; the last positions were committed", len(faults), took)


def committed(host: Cluster, group: str, topic: str) -> int | None:
    """What the group's coordinator knows."""
    consumer = KafkaConsumer(bootstrap_servers=host.node.bootstrap, group_id=group)
    try:
        found: int | None = consumer.committed(TopicPartition(topic, 0))
        return found
    finally:
        consumer.close(autocommit=False)


@scenario(
    "broker",
    "mock: leader and coordinator move",
    produced="both from one to the other of three brokers of librdkafka's mock, twelve times",
)
def moves(bench: Bench) -> Outcome:
    host = Mocked(bench, brokers=3)
    trial = Trial(bench, host=host, replicas=3, group_id="lag")

    def move(i: int) -> None:
        host.mock.lead(trial.topic, 0, i % 3 + 1)
        host.mock.coordinate("lag", (i + 1) % 3 + 1)

    took = through(trial, [partial(move, i) for i in range(12)])
    assert committed(host, "lag", trial.topic) == RECORDS, "the last positions were committed"
    return Outcome(f"{SAME}; the last positions were committed", 12, took)


@scenario(
    "broker",
    "mock: all brokers away",
    produced="three brokers of librdkafka's mock take no connection until the loss was reported three times",
)
def away(bench: Bench) -> Outcome:
    host = Mocked(bench, brokers=3)
    trial = Trial(bench, host=host, replicas=3)

    def gone() -> None:
        host.mock.down()
        trial.outlast()
        host.mock.up()

    return Outcome(SAME, 1, through(trial, [gone]))


@scenario("broker", "mock: round trips of 0.8 s", produced="each answer of librdkafka's mock 0.8 s late; time-outs of 10 s")
def far(bench: Bench) -> Outcome:
    host = Mocked(bench)
    trial = Trial(bench, host=host, timeout_s=10.0, client={})
    took = through(trial, [partial(host.mock.round_trip, 800)])
    return Outcome(SAME, 1, took)


@scenario("broker", "mock: messages refused", produced=f"{BY}: {AGAIN} twice each, {FOR_GOOD} for good, to the sink")
def messages(bench: Bench) -> Outcome:
    mock = Mocked(bench).mock
    for code in AGAIN:
        written_again(mock, code)
    for code in FOR_GOOD:
        refused_for_good(mock, code)
    text = "passing refusals: each message once and in order; lasting ones: reported, and taken when written again afterwards"
    return Outcome(text, len(AGAIN) + len(FOR_GOOD))


def written_again(mock: MockCluster, code: int) -> None:
    """A refusal that passes is nobody's business, and the order stays. Errors: AssertionError."""
    topic = mock.topic(f"again{code}")
    sink = opened(mock, topic)
    write(sink, "before", 5)
    mock.refuse(PRODUCE, code, code)
    write(sink, "while", 5)
    sink.close()
    assert held(mock, topic) == [*texts("before", 5), *texts("while", 5)], code


def refused_for_good(mock: MockCluster, code: int) -> None:
    """A refusal that lasts is an error, nothing counts as written, and the same sink works once it is over."""
    topic = mock.topic(f"good{code}")
    sink = opened(mock, topic)
    write(sink, "before", 5)
    mock.refuse(PRODUCE, *[code] * 10_000)
    try:
        write(sink, "while", 5)
    except SinkError as error:
        assert "refused 5 of 5 messages" in str(error), error
    else:
        raise AssertionError(f"{code}: what was refused was reported as written")
    mock.forgive(PRODUCE)
    sink.flush(5.0)  # nothing is on its way
    write(sink, "while", 5)
    sink.close()
    assert held(mock, topic) == [*texts("before", 5), *texts("while", 5)], code


def opened(mock: MockCluster, topic: str, **settings: Any) -> Any:
    """Our sink."""
    return connectors.open_sink("kafka", {"bootstrap_servers": mock.bootstrap, "topic": topic} | settings)


def texts(name: str, n: int) -> list[bytes]:
    """Values that can be told apart."""
    return [f"{name} {i}".encode() for i in range(n)]


def write(sink: Any, name: str, n: int) -> None:
    """Acknowledged. Errors: SinkError."""
    sink.write([Message(value) for value in texts(name, n)])
    sink.flush(10.0)


def held(mock: MockCluster, topic: str) -> list[bytes | None]:
    """All records of a topic, up to the end it had."""
    source = connectors.open_source("kafka", {"bootstrap_servers": mock.bootstrap, "topics": [topic]})
    source.seek({})
    ends, found = source.ends(), list[bytes | None]()
    while source.positions() != ends:
        found += [record.value for record in source.poll(100, 0.2)]
    source.close()
    return found
