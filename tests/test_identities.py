"""A stream that was deleted and made anew under its name is another one, and its records are not read at old positions."""

import json
from pathlib import Path

import pytest

from benchmarks.testbed.fakes import MemorySource, PairDecoder
from benchmarks.testbed.loops import loop_on
from benchmarks.testbed.small import append, on_log, samples
from connectors import open_sink, open_source
from streamlearn.due import Due
from streamlearn.errors import PositionLostError
from streamlearn.identities import Identities
from streamlearn.prefetch import Prefetch
from streamlearn.records import Message


def test_what_was_read_is_known_again_and_another_of_the_same_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source.json"
    Identities(path).recognise({"orders": "a"})
    Identities(path).recognise({"orders": "a", "returns": "b"})
    Identities(path).recognise({})
    assert json.loads(path.read_text()) == {"identities": {"orders": "a", "returns": "b"}}
    with pytest.raises(PositionLostError, match=r"orders was deleted and made anew .* \(it was a, is c\): .* empty state dir"):
        Identities(path).recognise({"returns": "b", "orders": "c"})
    assert json.loads(path.read_text()) == {"identities": {"orders": "a", "returns": "b"}}


def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "source.json"
    path.write_text("{")
    Identities(path).recognise({"orders": "a"})
    with pytest.raises(PositionLostError):
        Identities(path).recognise({"orders": "b"})


def test_no_record_of_another_stream_reaches_the_loop(tmp_path: Path) -> None:
    known = Identities(tmp_path / "source.json")
    known.recognise({"a": "old"})
    source = MemorySource({"a[0]": [b"[1, 0]"]})
    source.made = {"a": "new"}
    loop = loop_on(tmp_path, checkpoint_due=Due(every_s=1e9))
    reading = Prefetch(lambda: source, PairDecoder(), loop.intake, shape=(1,), positions={}, recognise=known.recognise)
    reading.start()
    with pytest.raises(PositionLostError, match="a was deleted and made anew"):
        for _ in range(100):
            loop.turn(0.1)
    reading.stop(5.0)
    assert loop.read == 0
    loop.close()
    loop.writer.close()


def test_a_log_that_was_made_anew_ends_the_daemon_with_3_and_one_that_was_moved_does_not(forks, tmp_path: Path) -> None:
    config, state = on_log(tmp_path, 30)
    log = tmp_path / "samples.sqlite"
    life = forks.start("run", config)
    life.event("daemon.started")
    life.until((state / "source.json").exists, "its stream is known")
    life.stop()
    log.rename(tmp_path / "kept.sqlite")
    append(log, samples(50, seed=1))
    again = forks.run("run", config)
    assert again.code == 3
    assert "samples was deleted and made anew" in again.stderr.splitlines()[-1]
    for suffix in ("", "-wal", "-shm"):
        Path(f"{log}{suffix}").unlink(missing_ok=True)
    (tmp_path / "kept.sqlite").rename(log)
    life = forks.start("run", config)
    life.event("daemon.restored")
    life.stop()


def test_a_log_from_before_has_no_identity_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    sink = open_sink("log", {"path": str(path)})
    sink.write([Message(b"x")])
    sink.close()
    source = open_source("log", {"path": str(path)})
    source.seek({})
    assert set(source.identities()) == {"old"}
    source._database.execute("PRAGMA application_id = 0")
    assert source.identities() == {}
    source.close()
