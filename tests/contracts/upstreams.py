"""Upstreams that the contracts of sources and sinks run against: each can be filled, read by a new source, and broken."""

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from connectors import open_sink, open_source
from connectors.stdin import StdinSource
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
    seekable: bool = True  # whether reading can begin anywhere, and another reader finds what the first has read
    bounded: bool = True  # whether a position can lie beyond the end
    knows_ends: bool = True  # before anything was read
    done: Callable[[], object] = lambda: None
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

    return Upstream(make, fill, unreachable={"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.5})


def lines_upstream(path: Path, *, header: bool, follow: bool) -> Upstream:
    sent, partition = 0, f"{path.stem}[0]"
    path.write_bytes(b"a,b,label\r\n" if header else b"")

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        nonlocal sent
        lines = [f"{i},{i * i},{'x' * (i % 7)}".encode() for i in range(sent, sent + n)]
        with path.open("ab") as file:
            file.write(b"".join(line + (b"\r\n" if i % 2 else b"\n") for i, line in enumerate(lines)))
        sent += n
        return {partition: [Record(partition, sent - n + i, line) for i, line in enumerate(lines)]}

    def make(**settings: Any) -> Source:
        return open_source("file", {"path": str(path), "header": header, "follow": follow, **settings})

    return Upstream(make, fill, unreachable={"path": str(path.parent / "none.csv")}, follows=follow)


def messages_upstream(folder: Path) -> Upstream:
    path, sent = folder / "m.messages", 0

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        nonlocal sent
        new = messages(n, sent)
        sink = open_sink("file", {"path": str(path)})
        sink.write(new)
        sink.close()
        sent += n
        return {"m[0]": recorded("m[0]", new, sent - n)}

    def make(**settings: Any) -> Source:
        return open_source("file", {"path": str(path), "follow": True, **settings})

    return Upstream(make, fill, unreachable={"path": str(folder / "none.messages")})


def npz_upstream(folder: Path) -> Upstream:
    path = folder / "rows.npz"

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        x, y = np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3), np.arange(n) % 10
        np.savez(path, x=x, y=y)
        head = (("content-type", b"application/x-tensor"), ("shape", b"2,3"), ("dtype", b"<f4"))
        values = [struct.pack("<6f", *range(6 * i, 6 * i + 6)) for i in range(n)]
        rows = [Record("rows[0]", i, v, None, (*head, ("label", b"%d" % (i % 10)))) for i, v in enumerate(values)]
        return {"rows[0]": rows}

    def make(**settings: Any) -> Source:
        return open_source("file", {"path": str(path), **settings})

    return Upstream(make, fill, unreachable={"path": str(folder / "none.npz")}, follows=False)


def synthetic_upstream() -> Upstream:
    """What a reader must find is what another reader found in one go: the contract is about order and positions alone."""
    length = 0

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        nonlocal length
        length += n
        source = make()
        source.seek({})
        records = list(source.poll(length, 0.0))
        assert [record.position for record in records] == list(range(length))
        return {"synthetic[0]": records[length - n :]}

    def make(**settings: Any) -> Source:
        return open_source("synthetic", {"records": length, "features": 3, **settings})

    return Upstream(make, fill, follows=False, bounded=False)


def stdin_upstream() -> Upstream:
    """A pipe: what one reader took the next does not find."""
    out, into = os.pipe()
    sent = 0

    def fill(n: int) -> Mapping[str, Sequence[Record]]:
        nonlocal sent
        lines = [f"line {i}".encode() for i in range(sent, sent + n)]
        os.write(into, b"".join(line + b"\n" for line in lines))
        sent += n
        return {"stdin[0]": [Record("stdin[0]", sent - n + i, line) for i, line in enumerate(lines)]}

    def make(**settings: Any) -> Source:
        return StdinSource(StdinSource.Settings(**settings), descriptor=out)

    return Upstream(make, fill, seekable=False, bounded=False, knows_ends=False, done=lambda: (os.close(out), os.close(into)))


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
