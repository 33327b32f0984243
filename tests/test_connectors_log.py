"""The embedded log: dense positions under several writers, retention, durability, and what is refused."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.log import LogSink, LogSource
from streamlearn.errors import PositionLostError, SinkError, SourceError
from streamlearn.records import Gap, Message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.log"


def append(path: Path, values: list[bytes], **settings: Any) -> None:
    sink = LogSink(LogSink.Settings(path=path, **settings))
    sink.write([Message(value) for value in values])
    sink.close()


def opened(path: Path, at: int | None = None, **settings: Any) -> LogSource:
    source = LogSource(LogSource.Settings(path=path, **settings))
    source.seek({} if at is None else {"s[0]": at})
    return source


def values(source: LogSource, timeout_s: float = 0.0) -> list[tuple[int, bytes | None]]:
    found = [(record.position, record.value) for record in source.poll(10_000, timeout_s)]
    source.close()
    return found


WRITER = """
import sys
from pathlib import Path
from connectors.log import LogSink
from streamlearn.records import Message
path, name = sys.argv[1:]
sink = LogSink(LogSink.Settings(path=Path(path)))
sys.stdin.readline()
for i in range(200):
    sink.write([Message(f"{name} {i}".encode()), Message(f"{name} {i} again".encode())])
    sink.flush(30.0)
sink.close()
"""


def test_two_processes_that_write_at_once_leave_no_gap_and_tear_nothing_apart(path: Path) -> None:
    """A reader follows meanwhile; what one flush wrote stands together."""
    arguments = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*arguments, name], stdin=subprocess.PIPE, text=True) for name in "ab"]
    source, found = opened(path), []
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.close()
    until = time.monotonic() + 60
    while len(found) < 800 and time.monotonic() < until:
        found += source.poll(1000, 0.5)
    source.close()
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert [record.position for record in found] == list(range(800))
    text = [(record.value or b"").decode() for record in found]
    assert [f"{first} again" for first in text[::2]] == text[1::2]
    for name in "ab":
        assert [line for line in text if line.startswith(name)][::2] == [f"{name} {i}" for i in range(200)]


KILLED = """
import os, sys
from pathlib import Path
from connectors.log import LogSink
from streamlearn.records import Message
sink = LogSink(LogSink.Settings(path=Path(sys.argv[1])))
sink.write([Message(b"flushed")])
sink.flush(10.0)
sink.write([Message(b"not flushed")])
os.kill(os.getpid(), 9)
"""


def test_what_was_flushed_survives_kill_9_and_what_was_not_is_not_there(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    append(path, [b"next"])
    assert values(opened(path)) == [(0, b"flushed"), (1, b"next")]


def test_flushing_syncs_to_the_disk(path: Path) -> None:
    """SQLite's word for it: synchronous 2 is FULL, a sync after each transaction also in WAL."""
    sink = LogSink(LogSink.Settings(path=path))
    sink.write([Message(b"a")])
    sink.flush(1.0)
    assert sink._database is not None
    assert sink._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert sink._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    sink.close()


def test_a_waiting_reader_sees_a_record_within_a_few_hundredths_of_a_second(path: Path) -> None:
    append(path, [])
    source, written = opened(path), []

    def write() -> None:
        append(path, [b"x"])
        written.append(time.monotonic())

    writer = threading.Timer(0.3, write)
    writer.start()
    got = source.poll(10, 10.0)
    seen = time.monotonic()
    writer.join()
    source.close()
    assert [record.value for record in got] == [b"x"]
    assert seen - written[0] < 0.25


@pytest.mark.parametrize(("settings", "kept"), [({"max_records": 10}, 10), ({"max_bytes": 40}, 10), ({"max_bytes": 43}, 10)])
def test_the_oldest_go_first_and_positions_stay(path: Path, settings: dict[str, int], kept: int) -> None:
    for first in range(0, 100, 5):
        append(path, [b"%04d" % i for i in range(first, first + 5)], **settings)
    assert values(opened(path)) == [(i, b"%04d" % i) for i in range(100 - kept, 100)]


def test_retention_keeps_the_newest_record_even_when_it_is_too_large(path: Path) -> None:
    append(path, [b"a", b"b" * 100], max_bytes=10)
    assert values(opened(path)) == [(1, b"b" * 100)]
    append(path, [b"c"], max_bytes=10)
    assert values(opened(path)) == [(2, b"c")]


def test_the_file_stops_growing_under_retention(path: Path) -> None:
    sizes = []
    for _ in range(6):
        append(path, [bytes(1000)] * 1000, max_records=1000)
        sizes.append(path.stat().st_size)
    assert sizes[-1] <= 1.5 * sizes[1]


def test_a_position_that_retention_passed_stops_the_source(path: Path) -> None:
    append(path, [b"%d" % i for i in range(20)], max_records=5)
    with pytest.raises(PositionLostError, match=r"s\[0\]@3 is the next to read, but .* begins at 15: .* 12 records unread"):
        opened(path, 3)


def test_a_position_that_retention_passed_is_skipped_and_reported_when_asked_for(path: Path) -> None:
    append(path, [b"%d" % i for i in range(20)], max_records=5)
    source = opened(path, 3, on_gap="skip")
    assert source.gaps() == [Gap("s[0]", 3, 15)]
    assert source.gaps() == []
    assert source.positions() == {"s[0]": 15}
    assert values(source)[0] == (15, b"15")


@pytest.mark.parametrize("on_gap", ["stop", "skip"])
def test_retention_that_overtakes_a_running_reader_is_noticed(path: Path, on_gap: str) -> None:
    append(path, [b"%d" % i for i in range(10)])
    source = opened(path, on_gap=on_gap)
    assert len(source.poll(4, 0.0)) == 4
    append(path, [b"%d" % i for i in range(10, 30)], max_records=5)
    if on_gap == "stop":
        for _ in range(2):
            with pytest.raises(PositionLostError, match="21 records unread"):
                source.poll(100, 0.0)
        assert source.positions() == {"s[0]": 4}
        source.close()
    else:
        assert values(source) == [(i, b"%d" % i) for i in range(25, 30)]
        assert source.gaps() == [Gap("s[0]", 4, 25)]


def test_the_first_start_may_begin_at_the_end_and_later_ones_may_not(path: Path) -> None:
    append(path, [b"old"])
    source = opened(path, start="latest")
    assert source.positions() == {"s[0]": 1}
    append(path, [b"new"])
    assert values(source) == [(1, b"new")]
    assert values(opened(path, 0, start="latest")) == [(0, b"old"), (1, b"new")]


def test_unique_keys_make_writing_twice_harmless(path: Path) -> None:
    def write() -> None:
        sink = LogSink(LogSink.Settings(path=path, unique_keys=True))
        sink.write([Message(b"1", b"a"), Message(b"2", b"b"), Message(b"3", b"a"), Message(b"no key"), Message(b"no key")])
        sink.close()

    write()
    write()
    assert values(opened(path)) == [(0, b"1"), (1, b"2"), (2, b"no key"), (3, b"no key"), (4, b"no key"), (5, b"no key")]


def test_one_poll_holds_a_bounded_number_of_bytes(path: Path) -> None:
    append(path, [bytes(100)] * 10)
    source = opened(path, max_poll_bytes=250)
    assert [len(source.poll(100, 0.0)) for _ in range(5)] == [3, 3, 3, 1, 0]
    source.close()


def test_a_busy_writer_is_waited_for_and_then_an_error_that_lost_nothing(path: Path) -> None:
    append(path, [b"a"])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sink = LogSink(LogSink.Settings(path=path))
    sink.write([Message(b"b")])
    with pytest.raises(SinkError, match=r"s.log did not take 1 messages: database is locked"):
        sink.flush(0.05)
    other.execute("COMMIT")
    other.close()
    sink.write([Message(b"b")])
    sink.close()
    assert values(opened(path)) == [(0, b"a"), (1, b"b")]


def other_program(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (a)")
    database.close()


def later_version(path: Path) -> None:
    append(path, [b"a"])
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA user_version = 9")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"not a database, but long enough to be read as one" * 40), "not a database"),
        (other_program, "SQLite file of another program"),
        (later_version, "written by version 9, this program reads 1"),
    ],
)
def test_a_file_that_is_no_log_of_ours_is_refused_and_left_alone(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(SourceError, match=message):
        opened(path)
    sink = LogSink(LogSink.Settings(path=path))
    sink.write([Message(b"x")])
    with pytest.raises(SinkError, match=message):
        sink.close()
    assert path.read_bytes() == before


def test_polling_before_seeking_is_an_error_that_says_so(path: Path) -> None:
    with pytest.raises(SourceError, match="seek comes before poll"):
        LogSource(LogSource.Settings(path=path)).poll(1, 0.0)


def test_a_reader_may_come_before_the_first_writer(path: Path) -> None:
    source = opened(path)
    assert source.poll(1, 0.0) == []
    append(path, [b"first"])
    assert values(source, 5.0) == [(0, b"first")]
