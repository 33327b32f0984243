"""Every sink keeps its promises: what was flushed is there for another process, whole and in order."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from connectors import open_sink, open_source
from streamlearn.errors import SinkError
from streamlearn.protocols import Sink, Source
from streamlearn.records import Message
from tests.contracts.upstreams import messages, read, recorded


class Downstream(NamedTuple):
    """A sink, and the source that reads what it wrote."""

    open: Callable[..., Sink]
    reader: tuple[str, Mapping[str, Any]]  # name and settings
    partition: str
    unreachable: Mapping[str, Any]

    def read_back(self) -> Source:
        source = open_source(*self.reader)
        source.seek({})
        return source


@pytest.fixture(params=["log", "file", "kafka"])
def downstream(request: pytest.FixtureRequest, tmp_path: Path) -> Downstream:
    name = request.param
    if name == "kafka":
        topic, address = request.getfixturevalue("kafka_topic")(1), request.getfixturevalue("kafka")
        values = {"bootstrap_servers": address, "topic": topic}
        reader = {"bootstrap_servers": address, "topics": [topic]}
        return Downstream(
            lambda **more: open_sink("kafka", {**values, **more}),
            ("kafka", reader),
            f"{topic}[0]",
            {"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.5},
        )
    path = tmp_path / f"out.{'messages' if name == 'file' else 'log'}"
    return Downstream(
        lambda **more: open_sink(name, {"path": str(path), **more}),
        (name, {"path": str(path)}),
        "out[0]",
        {"path": str(tmp_path / "none" / "out.log")},
    )


def test_value_key_headers_and_time_come_back_in_order(downstream: Downstream) -> None:
    sent = [
        *messages(200),
        Message(b"", b"", (("", b""), ("twice", b"1"), ("twice", b"\xff\x00")), 0),
        Message(bytes(range(256)), bytes(range(256))),
        Message('{"é": "\u2028"}\n'.encode(), time_ms=1_700_000_000_000),
    ]
    sink = downstream.open()
    sink.write(sent[:100])
    sink.write(sent[100:])
    sink.flush(10.0)
    source = downstream.read_back()
    got = read(source, len(sent))
    wanted = recorded(downstream.partition, sent, 0)
    assert [r._replace(time_ms=None) for r in got] == [r._replace(time_ms=None) for r in wanted]
    assert all(g.time_ms == w.time_ms for g, w in zip(got, wanted, strict=True) if w.time_ms is not None)
    source.close()
    sink.close()


READER = """
import json, sys
from connectors import open_source
name, values, n = json.loads(sys.argv[1])
source = open_source(name, values)
source.seek({})
found = []
for _ in range(40):
    found += source.poll(1000, 0.25)
    if len(found) >= n:
        break
source.close()
print(json.dumps([record.value.decode() for record in found]))
"""


def test_another_process_reads_what_was_flushed_while_the_sink_is_open(downstream: Downstream) -> None:

    sink = downstream.open()
    sink.write([Message(f"v{i}".encode()) for i in range(50)])
    sink.flush(10.0)
    arguments = [sys.executable, "-c", READER, json.dumps([*downstream.reader, 50])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [f"v{i}" for i in range(50)]
    sink.close()


def test_closing_flushes_and_may_be_done_twice(downstream: Downstream) -> None:
    sink = downstream.open()
    sink.write([Message(b"last words")])
    sink.close()
    sink.close()
    source = downstream.read_back()
    assert [record.value for record in read(source, 1)] == [b"last words"]
    source.close()


def test_a_sink_that_was_never_used_closes(downstream: Downstream) -> None:
    sink = downstream.open()
    sink.flush(1.0)
    sink.close()


def test_writing_goes_on_behind_what_is_there(downstream: Downstream) -> None:
    for part in range(3):
        sink = downstream.open()
        sink.write([Message(f"{part}.{i}".encode()) for i in range(5)])
        sink.close()
    source = downstream.read_back()
    assert [record.value for record in read(source, 15)] == [f"{part}.{i}".encode() for part in range(3) for i in range(5)]
    source.close()


def test_many_messages_are_taken_with_bounded_memory_and_all_arrive(downstream: Downstream) -> None:
    sink = downstream.open()
    for first in range(0, 12_000, 500):
        sink.write([Message(b"%d" % i) for i in range(first, first + 500)])
    sink.flush(30.0)
    source = downstream.read_back()
    assert [record.value for record in read(source, 12_000, max_records=2000)] == [b"%d" % i for i in range(12_000)]
    source.close()
    sink.close()


def test_an_unreachable_downstream_is_a_sink_error_within_the_time_out(downstream: Downstream) -> None:
    sink = downstream.open(**downstream.unreachable)
    began = time.monotonic()
    with pytest.raises(SinkError):
        _write(sink)
    assert time.monotonic() - began < 3.0
    sink.close()


def _write(sink: Sink) -> None:
    sink.write([Message(b"x")])
    sink.flush(1.0)
