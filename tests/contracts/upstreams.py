"""Upstreams that the contracts of sources and sinks run against: each can be filled, read by a new source, and broken."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from connectors import open_sink, open_source
from streamlearn.protocols import Source
from streamlearn.records import Message, Record

WAIT_S = 10.0


@dataclass
class Upstream:
    """`fill(n)` adds n records and returns what a reader must find, by partition, from where the last call ended."""

    open: Callable[..., Source]
    fill: Callable[[int], Mapping[str, Sequence[Record]]]
    unreachable: Mapping[str, Any] | None = None  # settings with which `seek` must fail
    follows: bool = True  # whether records that are added later are found
    seekable: bool = True
    partitions: int = 1
    held: dict[str, list[Record]] = field(default_factory=dict)

    def hold(self, n: int) -> dict[str, list[Record]]:
        """Everything that was ever filled, by partition, after n more."""
        for partition, records in self.fill(n).items():
            self.held.setdefault(partition, []).extend(records)
        return self.held


def messages(n: int, first: int = 0) -> list[Message]:
    """Different in every part."""
    return [
        Message(
            value=f"value {i}".encode() + os.urandom(i % 5),
            key=f"key {i}".encode() if i % 3 else None,
            headers=(("source", b"test"), ("n", str(i).encode())) if i % 2 else (),
            time_ms=1_700_000_000_000 + 7 * i,
        )
        for i in range(first, first + n)
    ]


def recorded(partition: str, sent: Sequence[Message], first: int) -> list[Record]:
    """What a reader must find for messages that were appended at position `first`."""
    return [Record(partition, first + i, m.value, m.key, m.headers, m.time_ms) for i, m in enumerate(sent)]


def log_upstream(folder: Path) -> Upstream:
    sent = 0

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        nonlocal sent
        new = messages(n, sent)
        sink = open_sink("log", {"path": str(folder / "stream.log")})
        sink.write(new)
        sink.close()
        sent += n
        return {"stream[0]": recorded("stream[0]", new, sent - n)}

    def make(**settings: Any) -> Source:
        return open_source("log", {"path": str(folder / "stream.log"), **settings})

    return Upstream(make, fill, unreachable={"path": str(folder / "no" / "such" / "folder.log")})


def kafka_upstream(address: str, topic: str, partitions: int) -> Upstream:
    sent = [0] * partitions

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        found: dict[str, Sequence[Record]] = {}
        producer = KafkaProducer(bootstrap_servers=address, linger_ms=20)
        for p in range(partitions):
            new = messages(n // partitions, sent[p])
            for m in new:
                producer.send(topic, m.value, key=m.key, headers=list(m.headers), timestamp_ms=m.time_ms, partition=p)
            found[f"{topic}[{p}]"] = recorded(f"{topic}[{p}]", new, sent[p])
            sent[p] += len(new)
        producer.close()
        return found

    def make(**settings: Any) -> Source:
        return open_source("kafka", {"bootstrap_servers": address, "topics": [topic], **settings})

    return Upstream(make, fill, unreachable={"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.5}, partitions=partitions)


def read(source: Source, n: int, max_records: int = 100, paused: Iterable[str] = ()) -> list[Record]:
    """At least n records, or fewer when none come for ten seconds."""
    records: list[Record] = []
    silent_s = 0.0
    while len(records) < n and silent_s < WAIT_S:
        got = source.poll(min(max_records, n - len(records)), 0.5, list(paused))
        assert len(got) <= max_records
        silent_s = 0.0 if got else silent_s + 0.5
        records += got
    return records


def by_partition(records: Iterable[Record]) -> dict[str, list[Record]]:
    """In the order of reading."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found
