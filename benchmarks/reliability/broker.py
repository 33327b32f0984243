"""Broker faults, against a real Apache Kafka: what a daemon that reads it does, and that it answers questions meanwhile."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kafka import KafkaProducer, TopicPartition

from benchmarks.reliability import outage, refusals
from benchmarks.reliability.bench import Bench
from benchmarks.reliability.cluster import Cluster, Reader, cluster
from benchmarks.reliability.stream import PATIENCE_S, Upstream, values
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.reliability.trial import HALF, RECORDS, SAME, Trial
from benchmarks.testbed.proxy import Fault
from benchmarks.testbed.small import settled
from streamlearn.inspection import inspected

assert outage
assert refusals  # their scenarios are of this group too


def behind(bench: Bench, fault: Fault) -> tuple[Trial, float]:
    """All of it is read through a proxy that does this to the answers."""
    trial = Trial(bench, proxied=True)
    trial.first_half()
    trial.cluster.proxy.fault = fault
    trial.cluster.proxy.cut()
    took = trial.second_half()
    trial.reader.reads(RECORDS)
    trial.cluster.proxy.fault = Fault()
    trial.finish()
    return trial, took


@scenario("broker", "slow", produced="each piece of an answer 0.2 s late, by a proxy before a real broker")
def slow(bench: Bench) -> Outcome:
    _, took = behind(bench, Fault(delay_s=0.2))
    return Outcome(SAME, 1, [took])


@scenario("broker", "answers that drip", produced="answers in pieces of 97 bytes, 5 ms apart, by a proxy before a real broker")
def dripping(bench: Bench) -> Outcome:
    _, took = behind(bench, Fault(delay_s=0.005, piece_bytes=97))
    return Outcome(SAME, 1, [took])


@scenario(
    "broker",
    "connections cut in the midst of an answer",
    produced="each connection ends after 200 to 6,000 bytes of answers, then whole again, by a proxy before a real broker",
)
def cut(bench: Bench) -> Outcome:
    trial = Trial(bench, proxied=True)
    trial.first_half()
    proxy, wanted = trial.cluster.proxy, 5 if bench.quick else 40
    proxy.fault, before = Fault(cut_after=(200, 6000)), proxy.cuts
    proxy.cut()
    trial.cluster.send(trial.topic, trial.values[HALF:])
    trial.cluster.until(lambda: proxy.cuts >= before + wanted, f"{wanted} cuts", PATIENCE_S)
    proxy.fault = Fault()
    began = time.monotonic()
    trial.reader.reads(RECORDS)
    trial.finish()
    return Outcome(SAME, proxy.cuts - before, [time.monotonic() - began])


@scenario(
    "broker",
    "the leader moves",
    produced="two real brokers: SIGKILL to the one that leads, then the leadership given back to it when it has caught up",
)
def moved(bench: Bench) -> Outcome:
    host = Cluster(bench.folder / "cluster")  # one that knew a second broker goes on asking for it, so others have their own
    bench.at_the_end(host.close)
    host.second()
    trial = Trial(bench, host=host, replicas=2)
    host.until(lambda: lead(host, trial.topic, by=2), "the second broker leads")
    trial.first_half()
    host.kill_second()
    recover_s = [trial.second_half()]
    host.second()
    host.until(lambda: lead(host, trial.topic, by=2), "the second broker leads again", PATIENCE_S)
    trial.finish()
    host.close()
    return Outcome(SAME, 1, recover_s)


def lead(host: Cluster, topic: str, *, by: int) -> bool:
    """Whether that broker leads the topic now, after it was asked to."""
    admin = host.admin()
    try:
        (found,) = admin.describe_topics([topic])
        partition = found["partitions"][0]
        if partition["leader_id"] != by and by in partition["isr_nodes"]:
            if partition["replica_nodes"][0] != by:
                admin.alter_partition_reassignments({TopicPartition(topic, 0): [by, 3 - by]})
            else:
                admin.elect_leaders(0, {topic: [0]})
        return bool(partition["leader_id"] == by)
    finally:
        admin.close()


@scenario("broker", "topic missing, then made", produced="daemon started before its topic; real broker")
def missing(bench: Bench) -> Outcome:
    host = cluster(bench)
    name = f"late-{time.monotonic_ns()}"
    held = values(60, seed=4)
    upstream = Upstream(host.source(name), {f"{name}[0]": held})
    reader = Reader(bench, upstream, serve={"enabled": False})
    reader.start()
    reader.lost(2)
    host.make(name)
    host.send(name, held)
    recover_s = reader.reads(len(held))
    reader.finish()
    return Outcome("read from its beginning", 1, [recover_s])


@scenario(
    "broker",
    "topic deleted and made anew",
    produced="deleted, made again and filled beyond the old position, while the daemon reads and while it is down; real broker",
)
def made_anew(bench: Bench) -> Outcome:
    for running in (True, False):
        bench.room(f"anew-{running}")
        trial = Trial(bench)
        trial.first_half()
        if not running:
            trial.reader.life.kill(15)
            trial.asker.stop()
            assert trial.reader.life.wait(PATIENCE_S) == 0
        delete(trial.cluster, trial.topic)
        trial.cluster.make(trial.topic)
        trial.cluster.send(trial.topic, values(RECORDS + 40, seed=5))
        life = trial.reader.life if running else trial.reader.start()
        assert life.wait(PATIENCE_S) == 3, life.stderr
        assert "deleted and made anew" in life.stderr.splitlines()[-1], life.stderr
        assert trial.reader.decided() == HALF, "no record of the new topic was taken"
    return Outcome("stops with exit code 3 and a line that says why; no record of the new topic was read", 2)


def delete(host: Cluster, topic: str) -> None:
    """Gone when this returns, or about to go."""
    admin = host.admin()
    admin.delete_topics([topic], timeout_ms=10_000)
    admin.close()


@scenario("broker", "partitions added", produced="one partition becomes three while the daemon reads; real broker")
def widened(bench: Bench) -> Outcome:
    host = cluster(bench)
    topic = host.topic()
    held = {f"{topic}[{p}]": values(60, seed=p) for p in range(3)}
    upstream = Upstream(host.source(topic), held)
    reader = Reader(bench, upstream, serve={"enabled": False})
    host.send(topic, held[f"{topic}[0]"])
    reader.start()
    reader.reads(60)
    admin = host.admin()
    admin.create_partitions({topic: 3}, timeout_ms=10_000)
    admin.close()
    for p in (1, 2):
        host.until(lambda: partitions(host, topic) == 3, "three partitions")
        host.send(topic, held[f"{topic}[{p}]"], partition=p)
    recover_s = reader.reads(180)
    reader.finish()
    return Outcome("read from their beginning, each record once", 1, [recover_s])


def partitions(host: Cluster, topic: str) -> int:
    """How many the broker knows."""
    producer = KafkaProducer(bootstrap_servers=host.node.bootstrap)
    try:
        return len(producer.partitions_for(topic) or ())
    finally:
        producer.close()


@scenario(
    "broker",
    "retention has passed the saved position",
    produced="records deleted up to 60 behind the saved position, with `on_gap` stop, then skip; real broker",
)
def removed(bench: Bench) -> Outcome:
    trial = Trial(bench)
    trial.first_half()
    trial.asker.stop()
    trial.reader.life.stop(PATIENCE_S)
    trial.cluster.send(trial.topic, trial.values[HALF:])
    admin = trial.cluster.admin()
    admin.delete_records({TopicPartition(trial.topic, 0): HALF + 60}, timeout_ms=10_000)
    admin.close()
    life = trial.reader.start()
    assert life.wait(PATIENCE_S) == 3, life.stderr
    assert "retention removed 60 positions unread; set on_gap to 'skip'" in life.stderr.splitlines()[-1], life.stderr
    trial.reader.life = bench.forks.start("run", trial.reader.config, "--set", "source.on_gap=skip")
    trial.reader.finish()
    counts = inspected(trial.reader.state)["counts"]
    assert counts["skipped"] == 60, counts
    return Outcome("stop: exit code 3, one line with both positions; skip: 60 records counted as skipped, the rest learned", 2)


@contextmanager
def produced(host: Cluster, topic: str) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=host.node.bootstrap, transactional_id=f"{topic}-{time.monotonic_ns()}")
    producer.init_transactions()
    yield producer
    producer.close()


@scenario(
    "broker",
    "aborted transactions",
    produced="every other transaction of twenty records is aborted, `read_committed`; real broker",
)
def aborted(bench: Bench) -> Outcome:
    host = cluster(bench)
    topic = host.topic()
    good = values(120, seed=6)
    with produced(host, topic) as producer:
        for first in range(0, 120, 20):
            transact(producer, topic, [b"never to be seen"] * 20, commit=False)
            transact(producer, topic, good[first : first + 20], commit=True)
    upstream = Upstream(host.source(topic), {f"{topic}[0]": good})
    reader = Reader(bench, upstream, serve={"enabled": False})
    reader.start()
    reader.life.until(lambda: settled_in(reader) == 120, "all committed records", PATIENCE_S)
    reader.life.stop(PATIENCE_S)
    return Outcome("the committed records alone were read, each once", 6)


def transact(producer: KafkaProducer, topic: str, records: Sequence[bytes], *, commit: bool) -> None:
    """One transaction."""
    producer.begin_transaction()
    for value in records:
        producer.send(topic, value, partition=0)
    producer.flush()
    (producer.commit_transaction if commit else producer.abort_transaction)()


def settled_in(reader: Reader) -> int:
    """Records with an outcome."""
    return settled(reader.state)


@scenario("broker", "codecs", produced="gzip, lz4, snappy and zstd in turns on one partition; real broker")
def compressed(bench: Bench) -> Outcome:
    trial = Trial(bench)
    codecs = ("gzip", "lz4", "snappy", "zstd")
    for i, first in enumerate(range(0, RECORDS, 30)):
        trial.cluster.send(trial.topic, trial.values[first : first + 30], compression_type=codecs[i % 4])
    trial.reader.start()
    trial.reader.reads(RECORDS)
    trial.reader.finish()
    plain = Trial(bench)
    plain.cluster.send(plain.topic, trial.values)
    told = Reader(bench, plain.upstream, "plain", serve={"enabled": False})
    told.start()
    told.reads(RECORDS)
    told.finish()
    assert inspected(trial.reader.state)["model_digest"] == inspected(told.state)["model_digest"]
    return Outcome("the same parameters as from records that were not compressed", 4)


@scenario(
    "broker",
    "empty values, and records over the size limit",
    produced="tombstones, and values of 2 MB under `decode.max_bytes` of 1 MB and `fetch_bytes` of 64 KiB; real broker",
)
def odd(bench: Bench) -> Outcome:
    host = cluster(bench)
    topic = host.topic(1, 1, **{"max.message.bytes": "4000000"})
    mixed: list[bytes | None] = []
    for i, value in enumerate(value for value in values(130, seed=7) if value.startswith(b'{"features": [') and b"-" in value):
        mixed += [value] + ([None] if i % 10 == 3 else [bytes(2_000_000)] if i % 10 == 7 else [])
    host.send(topic, mixed, max_request_size=4_000_000)
    odd_ones = sum(value is None or len(value) > 1_000_000 for value in mixed)
    upstream = Upstream(host.source(topic, fetch_bytes=1 << 16), {f"{topic}[0]": [value or b"" for value in mixed]})
    reader = Reader(bench, upstream, serve={"enabled": False}, decode={"max_bytes": 1_000_000})
    reader.start()
    reader.finish()
    found = inspected(reader.state)
    assert sum(found["rejected"].values()) == odd_ones, found["rejected"]
    assert found["counts"]["learned"] + found["pending"] == len(mixed) - odd_ones
    return Outcome("each a dead letter with its reason; its neighbours were learned", odd_ones)
