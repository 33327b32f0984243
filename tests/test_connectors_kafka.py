"""Kafka, against a real broker: retention, new partitions, transactions, codecs, loss of the broker, and secrets."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, TopicAlreadyExistsError

import connectors.kafka_client
from benchmarks.testbed.kafka_broker import load_broker
from connectors import open_sink, open_source
from connectors.kafka import KafkaSource
from connectors.kafka_sink import KafkaSink
from streamlearn.errors import ConfigError, PositionLostError, SinkError, SourceError
from streamlearn.records import Gap, Message, Record
from tests.conftest import Topics
from tests.contracts.upstreams import by_partition, read


@pytest.fixture
def topic(kafka_topic: Topics) -> str:
    return kafka_topic(1)


@pytest.fixture
def opened(kafka: str, topic: str) -> Iterator[Any]:
    sources: list[KafkaSource] = []

    def make(at: int | None = None, **settings: Any) -> KafkaSource:
        values = {"bootstrap_servers": kafka, "topics": [topic], **settings}
        source = open_source("kafka", values)
        assert isinstance(source, KafkaSource)
        sources.append(source)
        source.seek({} if at is None else {f"{topic}[0]": at})
        return source

    yield make
    for source in sources:
        source.close()


def send(kafka: str, topic: str, values: list[bytes | None], **settings: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka, **settings)
    for value in values:
        producer.send(topic, value, key=b"k", partition=0)
    producer.close()


def numbers(n: int, first: int = 0) -> list[bytes | None]:
    return [b"%d" % i for i in range(first, first + n)]


def found(source: KafkaSource, n: int) -> list[tuple[int, bytes | None]]:
    return [(record.position, record.value) for record in read(source, n)]


def remove_before(admin: Any, topic: str, position: int) -> None:
    admin.delete_records({TopicPartition(topic, 0): position}, timeout_ms=10_000)


def test_retention_past_the_saved_position_stops_the_source(kafka: str, kafka_admin: Any, topic: str, opened: Any) -> None:
    send(kafka, topic, numbers(20))
    remove_before(kafka_admin, topic, 15)
    with pytest.raises(PositionLostError, match=r"\[0\]@3 is the next to read, but the partition begins at 15: .* removed 12"):
        opened(3)


def test_retention_past_the_saved_position_is_skipped_and_reported(
    kafka: str, kafka_admin: Any, topic: str, opened: Any
) -> None:
    send(kafka, topic, numbers(20))
    remove_before(kafka_admin, topic, 15)
    source = opened(3, on_gap="skip")
    assert source.gaps() == [Gap(f"{topic}[0]", 3, 15)]
    assert source.gaps() == []
    assert found(source, 5) == [(i, b"%d" % i) for i in range(15, 20)]


@pytest.mark.parametrize("on_gap", ["stop", "skip"])
def test_retention_that_overtakes_a_running_source_is_noticed(
    kafka: str, kafka_admin: Any, topic: str, opened: Any, on_gap: str
) -> None:
    """The source is paused meanwhile, so that it holds nothing of what is removed."""
    send(kafka, topic, numbers(10))
    source = opened(on_gap=on_gap)
    assert len(read(source, 10)) == 10
    source.poll(1, 0.0, [f"{topic}[0]"])
    send(kafka, topic, numbers(10, first=10))
    remove_before(kafka_admin, topic, 15)
    if on_gap == "skip":
        assert found(source, 5) == [(i, b"%d" % i) for i in range(15, 20)]
        assert source.gaps() == [Gap(f"{topic}[0]", 10, 15)]
        return
    for _ in range(2):
        with pytest.raises(PositionLostError, match="removed 5 positions unread"):
            read(source, 5)
    assert source.positions() == {f"{topic}[0]": 10}


def test_partitions_that_are_added_while_it_runs_are_read_from_their_beginning(
    kafka: str, kafka_admin: Any, topic: str, opened: Any
) -> None:
    send(kafka, topic, numbers(3))
    source = opened(metadata_every_s=0.2, start="latest")
    assert source.positions() == {f"{topic}[0]": 3}
    kafka_admin.create_partitions({topic: 3}, timeout_ms=10_000)
    producer = KafkaProducer(bootstrap_servers=kafka)
    for partition in (1, 2, 0):
        _until_known(producer, topic, partition)
        producer.send(topic, b"new", partition=partition)
    producer.close()
    assert {record.partition: record.position for record in read(source, 3)} == {
        f"{topic}[0]": 3,
        f"{topic}[1]": 0,
        f"{topic}[2]": 0,
    }
    assert source.positions() == {f"{topic}[0]": 4, f"{topic}[1]": 1, f"{topic}[2]": 1}


def _until_known(producer: Any, topic: str, partition: int) -> None:
    until = time.monotonic() + 10
    while partition not in producer.partitions_for(topic) and time.monotonic() < until:
        producer._metadata.request_update()
        threading.Event().wait(0.02)


def test_partitions_added_while_it_was_down_are_read_from_their_beginning(kafka: str, kafka_topic: Topics) -> None:
    """Positions that were saved before know nothing of them; `latest` is for the very first start alone."""
    topic = kafka_topic(2)
    producer = KafkaProducer(bootstrap_servers=kafka)
    for partition in (0, 1):
        producer.send(topic, b"a", partition=partition)
    producer.close()
    source = open_source("kafka", {"bootstrap_servers": kafka, "topics": [topic], "start": "latest"})
    source.seek({f"{topic}[0]": 1})
    assert [record.partition for record in read(source, 1)] == [f"{topic}[1]"]
    source.close()


def test_several_topics_are_read(kafka: str, kafka_topic: Topics) -> None:
    topics = [kafka_topic(1), kafka_topic(2)]
    for topic in topics:
        send(kafka, topic, numbers(5))
    source = open_source("kafka", {"bootstrap_servers": kafka, "topics": topics})
    source.seek({})
    wanted = {f"{topic}[0]": [b"%d" % i for i in range(5)] for topic in topics}
    assert {p: [r.value for r in records] for p, records in by_partition(read(source, 10)).items()} == wanted
    assert source.positions() == {f"{topics[0]}[0]": 5, f"{topics[1]}[0]": 5, f"{topics[1]}[1]": 0}
    source.close()


def test_a_tombstone_is_a_record_without_a_value(kafka: str, topic: str, opened: Any) -> None:
    send(kafka, topic, [b"a", None, b"b"])
    assert found(opened(), 3) == [(0, b"a"), (1, None), (2, b"b")]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_every_codec_is_read_from_within_a_batch_and_written(kafka: str, topic: str, opened: Any, codec: str) -> None:
    send(kafka, topic, numbers(50), compression_type=codec, linger_ms=200)
    assert found(opened(17), 33) == [(i, b"%d" % i) for i in range(17, 50)]
    sink = open_sink("kafka", {"bootstrap_servers": kafka, "topic": topic, "compression": codec})
    sink.write([Message(b"written")])
    sink.close()
    assert found(opened(50), 1) == [(50, b"written")]


def transactions(kafka: str, topic: str) -> None:
    """Positions 0 to 2 committed and 3 its marker, 4 to 6 aborted and 7 its marker, 8 committed and 9 its marker."""
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=topic)
    producer.init_transactions()
    for values, commit in ((numbers(3), True), ([b"x", b"y", b"z"], False), ([b"last"], True)):
        producer.begin_transaction()
        for value in values:
            producer.send(topic, value, partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()


def test_aborted_records_are_not_there_and_end_markers_are_no_lag(kafka: str, topic: str, opened: Any) -> None:
    transactions(kafka, topic)
    source = opened()
    assert found(source, 4) == [(0, b"0"), (1, b"1"), (2, b"2"), (8, b"last")]
    assert source.positions() == {f"{topic}[0]": 9}
    until = time.monotonic() + 10
    while source.ends() != source.positions() and time.monotonic() < until:
        assert source.poll(10, 0.1) == []
    assert source.ends() == {f"{topic}[0]": 9}
    assert found(opened(5), 1) == [(8, b"last")]


def test_aborted_records_are_there_when_asked_for(kafka: str, topic: str, opened: Any) -> None:
    transactions(kafka, topic)
    values = [value for _, value in found(opened(isolation_level="read_uncommitted"), 7)]
    assert values == [b"0", b"1", b"2", b"x", b"y", b"z", b"last"]


def test_positions_are_committed_for_lag_tools_only_with_a_group(kafka: str, topic: str, opened: Any) -> None:
    send(kafka, topic, numbers(5))
    opened().commit({f"{topic}[0]": 2})
    committing = opened(group_id=f"group of {topic}")
    committing.commit({f"{topic}[0]": 3, "another[0]": 7})
    committing.close()  # it may take until then
    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id=f"group of {topic}")
    assert consumer.committed(TopicPartition(topic, 0)) == 3
    consumer.close()
    assert found(opened(group_id=f"group of {topic}"), 5)[0] == (0, b"0")


def test_a_topic_that_does_not_exist_is_a_source_error_and_is_not_made(kafka: str, kafka_admin: Any, topic: str) -> None:
    missing = f"not-{topic}"
    source = open_source("kafka", {"bootstrap_servers": kafka, "topics": [topic, missing], "timeout_s": 0.5})
    with pytest.raises(SourceError, match=f"has no topic {missing}, or does not show it"):
        source.seek({})
    source.close()
    assert missing not in kafka_admin.list_topics()


def test_a_saved_partition_that_is_gone_is_lost(kafka: str, topic: str) -> None:
    source = open_source("kafka", {"bootstrap_servers": kafka, "topics": [topic]})
    with pytest.raises(PositionLostError, match=rf"has no partition {topic}\[4\], but a position of it is saved"):
        source.seek({f"{topic}[0]": 0, f"{topic}[4]": 9})
    source.close()


def test_a_topic_that_is_deleted_while_it_is_read_is_a_source_error(
    kafka: str, kafka_admin: Any, topic: str, opened: Any
) -> None:
    send(kafka, topic, numbers(1))
    source = opened(timeout_s=0.3, metadata_every_s=0.2)
    read(source, 1)
    kafka_admin.delete_topics([topic], timeout_ms=10_000)
    with pytest.raises(SourceError, match=f"topic {topic} is gone"):
        for _ in range(100):
            source.poll(1, 0.1)


def made_anew(admin: Any, topic: str) -> None:
    """Deleted, and made again as soon as its name is free."""
    admin.delete_topics([topic], timeout_ms=10_000)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, timeout_ms=10_000)
        except TopicAlreadyExistsError:
            threading.Event().wait(0.02)
        else:
            return
    pytest.fail("the topic was not deleted")


def test_a_topic_that_is_made_anew_while_it_is_read_is_lost_and_none_of_its_records_is_read(
    kafka: str, kafka_admin: Any, topic: str, opened: Any
) -> None:
    """It is filled beyond the old position, where kafka-python, which asks by name, would read on until it looks again."""
    send(kafka, topic, numbers(5))
    source = opened(timeout_s=5, metadata_every_s=60)
    assert len(found(source, 5)) == 5
    made_anew(kafka_admin, topic)
    send(kafka, topic, [b"of another topic"] * 50)
    got: list[Record] = []
    with pytest.raises(PositionLostError, match=f"topic {topic} was deleted and made anew while it was read"):
        for _ in range(100):
            got += source.poll(10, 0.1)
    assert got == []


def test_a_topic_has_another_identity_once_it_is_made_anew(kafka: str, kafka_admin: Any, topic: str, opened: Any) -> None:
    before, again = opened().identities(), opened().identities()
    made_anew(kafka_admin, topic)
    after = opened().identities()
    assert before == again != after
    assert list(before) == list(after) == [topic]


def test_errors_of_the_client_are_source_errors_and_reading_goes_on_where_it_was(
    kafka: str, topic: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(kafka, topic, numbers(10))
    source = opened()
    first = found(source, 5)

    def damaged(*arguments: object, **named: object) -> None:
        raise CorruptRecordError("Record batch failed crc check")

    with monkeypatch.context() as patch:
        patch.setattr(Fetcher, "fetched_records", damaged)
        with pytest.raises(SourceError, match="failed crc check"):
            source.poll(1, 0.1)
    assert [position for position, _ in first + found(source, 5)] == list(range(10))


def test_a_broker_that_is_killed_is_a_source_error_until_it_is_back_and_nothing_is_lost(tmp_path: Path, kafka: str) -> None:
    """A broker of its own, since the others share theirs. `kafka` is asked for, so that this skips where that does."""

    broker = load_broker()
    node = broker.up(tmp_path / "broker")
    try:
        sink = open_sink("kafka", {"bootstrap_servers": node.bootstrap, "topic": "t", "timeout_s": 2})
        sink.write([Message(b"%d" % i) for i in range(10)])
        sink.flush(10.0)
        source = open_source("kafka", {"bootstrap_servers": node.bootstrap, "topics": ["t"], "timeout_s": 1})
        source.seek({})
        before = read(source, 10)
        os.kill(node.pid, 9)
        with pytest.raises(SourceError, match=r"no broker is connected|Connection|closed"):
            for _ in range(300):
                source.poll(10, 0.1)
        sink.write([Message(b"lost")])
        with pytest.raises(SinkError):
            sink.flush(5.0)
        broker.up(tmp_path / "broker")
        _write_through_errors(sink, [Message(b"back")])
        after = _read_through_errors(source, 1)
        source.close()
        sink.close()
        assert [record.value for record in before] == [b"%d" % i for i in range(10)]
        assert {record.value for record in after} <= {b"lost", b"back"}
        assert [record.position for record in before + after] == list(range(10 + len(after)))
    finally:
        broker.down(tmp_path / "broker")


def _write_through_errors(sink: Any, messages: list[Message]) -> None:
    for _ in range(20):
        try:
            sink.write(messages)
            sink.flush(10.0)
        except SinkError:
            continue
        return
    pytest.fail("the broker did not come back")


def _read_through_errors(source: Any, n: int) -> list[Record]:
    records: list[Record] = []
    until = time.monotonic() + 60
    while len(records) < n and time.monotonic() < until:
        try:
            records += source.poll(n, 0.2)
        except SourceError:
            threading.Event().wait(0.1)
    return records


def test_what_is_on_its_way_is_bounded(kafka: str, topic: str, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.kafka_sink.IN_FLIGHT", 10)
    sink = KafkaSink(KafkaSink.Settings(bootstrap_servers=kafka, topic=topic))
    sink.write([Message(b"%d" % i) for i in range(35)])
    assert len(sink._pending) == 5
    sink.close()
    assert [value for _, value in found(opened(), 35)] == numbers(35)


def test_a_header_without_a_value_is_empty(kafka: str, topic: str, opened: Any) -> None:
    """kafka-python cannot write one."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka})
    producer.produce(topic, b"v", headers=[("a", None), ("b", b"1")])
    producer.flush(10)
    assert [record.headers for record in read(opened(), 1)] == [(("a", b""), ("b", b"1"))]


def test_a_message_that_is_too_large_is_a_sink_error(kafka: str, topic: str) -> None:
    sink = open_sink("kafka", {"bootstrap_servers": kafka, "topic": topic})
    with pytest.raises(SinkError, match="larger than"):
        sink.write([Message(bytes(2_000_000))])
    sink.close()


def test_a_message_that_the_broker_refuses_is_a_sink_error(kafka: str, kafka_topic: Topics) -> None:
    topic = kafka_topic(1, **{"max.message.bytes": "1000"})
    sink = open_sink("kafka", {"bootstrap_servers": kafka, "topic": topic})
    sink.write([Message(bytes(5000))])
    with pytest.raises(SinkError, match="refused 1 of 1 messages"):
        sink.flush(10.0)
    sink.close()


def test_failing_to_connect_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    for kind in (KafkaSource, KafkaSink):
        values = {"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.2}
        names: dict[str, Any] = {"topics": ("t",)} if kind is KafkaSource else {"topic": "t"}
        client = kind(kind.Settings(**values, **names))
        with pytest.raises((SourceError, SinkError), match=r"127.0.0.1:1: .*ECONNREFUSED"):
            client.seek({}) if isinstance(client, KafkaSource) else client.write([Message(b"x")])
        client.close()
    assert set(threading.enumerate()) <= before


SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "me"}


def test_a_secret_is_handed_on_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    for client in ({**SASL, "sasl_plain_password": "hunter2"}, {**SASL, "sasl_plain_password_file": str(tmp_path / "secret")}):
        settings = KafkaSource.Settings(topics=("t",), bootstrap_servers="127.0.0.1:1", timeout_s=0.1, client=client)
        assert settings.upstream(KafkaConsumer.DEFAULT_CONFIG)["sasl_plain_password"] == "hunter2"  # noqa: S105
        assert settings.upstream(KafkaConsumer.DEFAULT_CONFIG)["sasl_mechanism"] == "PLAIN"
        with pytest.raises(SourceError) as caught:
            KafkaSource(settings).seek({})
        for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump()), str(caught.value)):
            assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (
            {"sasl_plain_pasword": "hunter2"},
            "'sasl_plain_pasword' is no setting of kafka-python: did you mean 'sasl_plain_password'",
        ),
        ({"enable_auto_commit": True}, "'enable_auto_commit' is not for you to set here"),
        ({"group_id": "g"}, "'group_id' is not for you to set here"),
        ({"security_protocol": "TLS"}, "security_protocol is 'TLS', expected PLAINTEXT, SSL"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism has no effect when security_protocol is PLAINTEXT"),
    ],
)
def test_settings_that_are_not_known_or_ours_are_refused(client: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_source("kafka", {"topics": ["t"], "client": client})
    assert "hunter2" not in str(caught.value)


def test_a_secret_whose_file_is_not_there_is_a_configuration_error() -> None:
    client = {**SASL, "sasl_plain_password_file": "/no/such/file"}
    source = open_source("kafka", {"topics": ["t"], "client": client})
    with pytest.raises(ConfigError, match=r"client.sasl_plain_password_file names a file that cannot be read: No such file"):
        source.seek({})


def test_settings_that_the_client_does_not_take_are_configuration_errors() -> None:
    source = open_source("kafka", {"topics": ["t"], "client": {"request_timeout_ms": 10**9}})
    with pytest.raises(ConfigError, match=r"cannot work with these settings: .*request_timeout_ms"):
        source.seek({})


def test_a_slow_checksum_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(connectors.kafka_client.log, "warning", lambda event, **fields: warned.append(f"{event} {fields}"))
    monkeypatch.setattr(connectors.kafka_client.importlib.util, "find_spec", lambda _: None)
    source = open_source("kafka", {"topics": ["t"], "bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.1})
    with pytest.raises(SourceError):
        source.seek({})
    assert "crc32c is not installed" in warned[0]


def test_polling_before_seeking_is_an_error_that_says_so() -> None:
    with pytest.raises(SourceError, match="seek comes before poll"):
        open_source("kafka", {"topics": ["t"]}).poll(1, 0.0)
