"""The table of connectors, files line by line, standard input and the synthetic stream: what the contract does not ask."""

import json
import math
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import connectors
from connectors import SINKS, SOURCES, open_sink, open_source, sink_class, source_class
from connectors.file import FileSource
from connectors.lines import Lines
from connectors.stdin import StdinSource
from connectors.synthetic import SyntheticSource
from streamlearn.errors import ConfigError, PositionLostError, SinkError, SourceError
from streamlearn.records import Message, Record
from streamlearn.settings import Section


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_of_the_table_is_there_with_its_settings(name: str) -> None:
    assert issubclass(source_class(name).Settings, Section)


@pytest.mark.parametrize("name", SINKS)
def test_every_sink_of_the_table_is_there_with_its_settings(name: str) -> None:
    assert issubclass(sink_class(name).Settings, Section)


@pytest.mark.parametrize("kind", [*SOURCES.values(), *SINKS.values()])
def test_every_key_has_a_line_of_help(kind: str) -> None:
    module, _, name = kind.partition(":")
    settings = getattr(__import__(module, fromlist=[name]), name).Settings
    assert [key for key, field in settings.model_fields.items() if not field.description] == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="source 'kafak' is not known: did you mean 'kafka'"):
        open_source("kafak", {})
    with pytest.raises(ConfigError, match="dead_letters 'zzz' is not known: known are file, kafka, log"):
        open_sink("zzz", {}, path="dead_letters")


def test_wrong_settings_are_answered_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"source.pth is not a known key: did you mean 'path'"):
        open_source("log", {"pth": "a"})
    with pytest.raises(ConfigError, match=r"source.path is missing"):
        open_source("log", {})


def test_opening_connects_to_nothing() -> None:
    """Connecting is for `seek` and the first write, which are retried."""
    open_source("kafka", {"bootstrap_servers": "127.0.0.1:1", "topics": ["t"]}).close()
    open_sink("kafka", {"bootstrap_servers": "127.0.0.1:1", "topic": "t"}).close()
    open_source("log", {"path": "/no/such/folder/a.log"}).close()


class Source(SyntheticSource):
    """What an entry point's module offers."""


def test_others_join_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("theirs", __name__, connectors.GROUP), EntryPoint("broken", "no.such.module", connectors.GROUP)]
    monkeypatch.setattr(connectors, "entry_points", lambda group: EntryPoints(p for p in points if p.group == group))
    assert isinstance(open_source("theirs", {"records": 1}), Source)
    with pytest.raises(ConfigError, match=r"sink 'theirs' cannot be used: .* has no class Sink"):
        open_sink("theirs", {})
    with pytest.raises(ConfigError, match="source 'broken' cannot be loaded: No module named 'no'"):
        open_source("broken", {})
    with pytest.raises(ConfigError, match="did you mean 'theirs'"):
        open_source("their", {})


def test_looking_at_the_table_loads_no_client_library() -> None:
    code = "import sys, connectors; print(sorted({'kafka', 'sqlite3', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def opened(path: Path, at: int = 0, **settings: Any) -> FileSource:
    source = FileSource(FileSource.Settings(path=path, **settings))
    source.seek({f"{path.stem}[0]": at})
    return source


def values(source: FileSource, n: int = 10_000) -> list[tuple[int, bytes | None]]:
    return [(record.position, record.value) for record in source.poll(n, 0.0)]


def test_a_last_line_without_a_line_break_is_a_record_unless_the_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo")
    source, follower = opened(path), opened(path, follow=True)
    assert values(source) == [(0, b"one"), (1, b"two")]
    assert source.exhausted()
    assert values(follower) == [(0, b"one")]
    assert follower.ends() == {"a[0]": 1}
    with path.open("ab") as file:
        file.write(b" and a half\n")
    assert values(follower) == [(1, b"two and a half")]
    for each in (source, follower):
        each.close()


def test_a_saved_position_behind_a_last_line_without_a_line_break_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo")
    source = opened(path, 2)
    assert (values(source), source.exhausted()) == ([], True)
    source.close()
    with pytest.raises(PositionLostError, match=r"a\[0\]@3 is saved, but .* ends at 2"):
        opened(path, 3)


def test_empty_lines_are_records_so_that_numbers_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\none\n\r\n\n")
    source = opened(path)
    assert values(source) == [(0, b""), (1, b"one"), (2, b""), (3, b"")]
    source.close()


@pytest.mark.parametrize("at", [0, 1])
def test_a_line_that_is_too_long_is_cut_and_its_neighbours_are_whole(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\n" + b"x" * 3_000_000 + b"\nthree\n" + b"y" * 10)
    source = opened(path, at, max_line_bytes=10)
    assert [line for _ in range(5) for line in values(source, 1)] == [
        (0, b"one"),
        (1, b"x" * 10),
        (2, b"three"),
        (3, b"y" * 10),
    ][at:]
    assert source.ends() == {"a[0]": 4}
    source.close()


def test_lines_are_found_across_the_blocks_that_are_read(tmp_path: Path) -> None:
    """Lines of 0 to 4,999 bytes over some twelve blocks of a mebibyte; every hundredth is sought."""
    rng = np.random.default_rng(3)
    lines = [b"%d " % i + b"z" * int(n) for i, n in enumerate(rng.integers(0, 5000, 5000))]
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n".join(lines) + b"\n")
    reader = Lines(path, skip=0, max_bytes=1 << 20, open_end=False)
    assert reader.count() == 5000
    for i in range(0, 5000, 100):
        assert reader.seek(i)
        assert reader.read(1) == [lines[i]]
    assert reader.seek(5000)
    assert not reader.seek(5001)
    reader.close()


def test_a_poll_holds_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((b"x" * (1 << 20) + b"\n") * 20)
    source = opened(path)
    assert [len(source.poll(100, 0.0)) for _ in range(4)] == [8, 8, 4, 0]
    source.close()


def test_a_file_that_is_cut_while_it_is_followed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n")
    source = opened(path, follow=True)
    assert len(values(source)) == 2
    path.write_bytes(b"new\n")
    with pytest.raises(PositionLostError, match="became shorter"):
        source.poll(1, 0.0)
    source.close()


@pytest.mark.parametrize("header", [b"", b"a,b\n"])
def test_a_header_may_come_later_and_is_no_record(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(header)
    source = opened(path, header=True, follow=True)
    assert (values(source), source.ends()) == ([], {"a[0]": 0})
    with path.open("ab") as file:
        file.write((b"" if header else b"a,b\n") + b"1,2\n")
    assert (values(source), source.ends()) == ([(0, b"1,2")], {"a[0]": 1})
    source.close()


def test_npz_rows_carry_their_type_and_label(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x = np.arange(8, dtype=">u2").reshape(4, 2)
    np.savez(path, images=x, names=np.array(["cat", "dog", "eel", "fox"]))
    source = opened(path, 2, inputs="images", labels="names")
    head = (("content-type", b"application/x-tensor"), ("shape", b"2"), ("dtype", b"<u2"))
    assert source.poll(10, 0.0) == [
        Record("a[0]", 2, b"\x04\x00\x05\x00", None, (*head, ("label", b'"eel"'))),
        Record("a[0]", 3, b"\x06\x00\x07\x00", None, (*head, ("label", b'"fox"'))),
    ]
    source.close()


def test_npz_rows_without_labels_have_none_and_truth_values_are_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([[True, False]]))
    source = opened(path)
    (record,) = source.poll(10, 0.0)
    assert (record.value, dict(record.headers).get("dtype"), dict(record.headers).get("label")) == (b"\x01\x00", b"|u1", None)
    source.close()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "has arrays z, expected 'x' among them"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, r"has 3 inputs, but labels of shape \[2\]"),
        ({"x": np.zeros(())}, "has one number as 'x', expected rows"),
        ({"x": np.array([{}], object)}, "is no npz file of numbers and strings"),
    ],
)
def test_npz_files_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(SourceError, match=message):
        opened(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no zip at all"])
def test_what_is_no_npz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="is no npz file"):
        opened(path)


def test_a_torn_last_line_is_removed_before_a_sink_appends(tmp_path: Path) -> None:
    path = tmp_path / "a.messages"
    for message in (b"one", b"two"):
        sink = open_sink("file", {"path": str(path)})
        sink.write([Message(message)])
        sink.close()
        with path.open("ab") as file:
            file.write(b'{"value": "torn')
    source = opened(path, follow=True)
    assert values(source) == [(0, b"one"), (1, b"two")]
    source.close()


def test_a_line_that_is_no_message_becomes_a_record_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.messages"
    lines = [b'{"value": "fine"}', b"not json", b'{"value": {"base64": "!"}}', b'{"key": "no value"}', b"[" * 5000]
    path.write_bytes(b"\n".join(lines) + b"\n")
    source = opened(path)
    assert values(source) == [(0, b"fine"), *((i, lines[i]) for i in range(1, 5))]
    source.close()


def test_a_message_line_is_readable_text(tmp_path: Path) -> None:
    path = tmp_path / "a.messages"
    sink = open_sink("file", {"path": str(path)})
    sink.write([Message(b'{"a": 1}', b"key", (("h", b"\xff"),), 12)])
    sink.close()
    wanted = {"value": '{"a": 1}', "key": "key", "headers": [["h", {"base64": "/w=="}]], "time_ms": 12}
    assert json.loads(path.read_text()) == wanted


def test_flushing_a_file_syncs_it_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "a.messages").read_text()))
    sink = open_sink("file", {"path": str(tmp_path / "a.messages")})
    sink.write([Message(b"one")])
    sink.flush(1.0)
    assert synced == ['{"value":"one"}\n']
    sink.close()


def test_a_full_disk_is_a_sink_error_and_writing_again_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.messages"
    sink = open_sink("file", {"path": str(path)})
    sink.write([Message(b"one")])

    def full(file: Any, data: bytes) -> None:
        file.write(data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("connectors.file._write_all", full)
        with pytest.raises(SinkError, match="cannot be written: No space left on device"):
            sink.write([Message(b"two")])
    sink.write([Message(b"two")])
    sink.close()
    source = opened(path)
    assert values(source) == [(0, b"one"), (1, b"two")]
    source.close()


@pytest.fixture
def pipe() -> Any:
    out, into = os.pipe()
    yield out, into
    for descriptor in (out, into):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_standard_input_ends_with_its_last_line_even_without_a_line_break(pipe: tuple[int, int]) -> None:
    out, into = pipe
    source = StdinSource(StdinSource.Settings(), descriptor=out)
    source.seek({"stdin[0]": 7})
    os.write(into, b"one\r\ntw")
    assert source.poll(10, 0.0) == [Record("stdin[0]", 7, b"one")]
    assert source.poll(10, 0.0) == []
    os.write(into, b"o\nthree")
    os.close(into)
    assert [record.value for record in source.poll(10, 0.0)] == [b"two"]
    assert [record.value for record in source.poll(10, 0.0)] == [b"three"]
    assert source.poll(10, 0.0) == []
    assert source.exhausted()
    assert source.positions() == {"stdin[0]": 10}


def test_a_line_of_standard_input_that_is_too_long_is_cut(pipe: tuple[int, int]) -> None:
    out, into = pipe
    source = StdinSource(StdinSource.Settings(max_line_bytes=5), descriptor=out)
    source.seek({})
    for piece in (b"1234", b"5678", b"9\nnext\nlonger than five\n"):
        os.write(into, piece)
        found = source.poll(10, 0.0)
    assert [record.value for record in found] == [b"12345", b"next", b"longe"]


def test_a_paused_standard_input_is_left_in_the_pipe(pipe: tuple[int, int]) -> None:
    out, into = pipe
    source = StdinSource(StdinSource.Settings(), descriptor=out)
    source.seek({})
    os.write(into, b"one\n")
    assert source.poll(10, 0.01, ["stdin[0]"]) == []
    assert source.ends() == {"stdin[0]": 0}
    assert len(source.poll(10, 0.0)) == 1


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1


def synthetic(clock: Clock | None = None, at: int = 0, **values: Any) -> SyntheticSource:
    clock = clock or Clock()
    source = SyntheticSource(SyntheticSource.Settings(**values), clock=clock, sleep=clock.sleep)
    source.seek({"synthetic[0]": at})
    return source


def test_the_pace_is_kept_without_drift_and_begins_at_the_position_sought() -> None:
    clock = Clock()
    source = synthetic(clock, at=1000, rate_per_s=50)
    assert source.ends() == {"synthetic[0]": 1000}
    taken = 0
    while clock.now < 110.0:
        taken += len(source.poll(500, 0.1))
        assert taken == int((clock.now - 100.0) * 50)
    assert 495 <= taken <= 510
    assert source.positions() == {"synthetic[0]": 1000 + taken}
    clock.now += 10
    assert source.ends()["synthetic[0]"] - source.positions()["synthetic[0]"] == 500
    assert len(source.poll(300, 0.0)) == 300


def test_an_empty_poll_of_a_paced_stream_takes_its_time_out_and_no_longer() -> None:
    clock = Clock()
    source = synthetic(clock, rate_per_s=0.5)
    assert source.poll(10, 0.25) == []
    assert clock.now == pytest.approx(100.25)
    assert clock.slept < 5


def features(records: Any) -> tuple[Any, Any]:
    documents = [json.loads(record.value) for record in records]
    return np.array([d["features"] for d in documents]), np.array([d["label"] for d in documents])


def test_the_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    first = synthetic(seed=5).poll(1000, 0.0)
    assert synthetic(seed=5, at=300).poll(700, 0.0) == first[300:]
    assert len({record.value for record in synthetic(drift="none").poll(1000, 0.0)}) == 1000
    assert [r.value for r in synthetic(seed=6).poll(1000, 0.0)] != [r.value for r in first]


@pytest.mark.parametrize(("drift", "turned"), [("none", 0.0), ("gradual", 0.3), ("abrupt", 0.25)])
def test_classes_stand_where_the_drift_says(drift: str, turned: float) -> None:
    """Without noise: the mean of the class stands at angle 2π(c/C + turn) in the plane that the first records span."""
    s: dict[str, Any] = {"drift": drift, "noise": 0.0, "turn_every": 100_000, "classes": 4, "features": 6}
    x, labels = features(synthetic(**{**s, "drift": "none"}).poll(200, 0.0))
    east, north = x[labels == 0][0], x[labels == 1][0]
    late, late_labels = features(synthetic(at=30_000, **s).poll(50, 0.0))
    for point, label in zip(late, late_labels, strict=True):
        angle = 2 * math.pi * (label / 4 + turned)
        np.testing.assert_allclose(point, math.cos(angle) * east + math.sin(angle) * north, atol=5e-3)


def test_tensor_records_hold_the_same_numbers_as_json() -> None:
    as_json, as_tensor = synthetic().poll(20, 0.0), synthetic(format="tensor").poll(20, 0.0)
    x, labels = features(as_json)
    assert np.array_equal(x.astype("<f4"), [np.frombuffer(record.value or b"", "<f4") for record in as_tensor])
    assert [dict(record.headers)["label"] for record in as_tensor] == [b"%d" % label for label in labels]
    assert dict(as_tensor[0].headers)["shape"] == b"16"
