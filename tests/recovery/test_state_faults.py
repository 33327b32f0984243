"""A disk that is full and a directory that cannot be written: nothing is torn, and nothing goes on half decided.

`python -m benchmarks.reliability state` is the whole, and these are some of its scenarios in small.
"""

import errno
import os

import pytest

from benchmarks.reliability import state
from benchmarks.reliability.bench import Bench, NotHereError
from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.errors import CheckpointError, DiskError
from streamlearn.journal import Journal
from streamlearn.ownership import Ownership
from tests.test_prequential import stream


@pytest.fixture(scope="module")
def bench(_forks, tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("state"), quick=True, forks=_forks)
    yield made
    made.close()


@pytest.mark.parametrize(
    "play", [state.disk_full, state.read_only, state.flipped, state.other_schema, state.zombie, state.short_of_memory]
)
def test_it_is_survived(bench, play):
    bench.room(play.__name__)
    try:
        assert play(bench).survived
    except NotHereError as error:
        pytest.skip(str(error))


class Full:
    """A file on a disk that takes so many bytes and no more: the last write is torn."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def write(self, content):
        taken = min(self.room, len(content))
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= taken
        return self._file.write(content[:taken])

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", range(0, 100, 7))
def test_an_entry_that_the_disk_does_not_take_whole_leaves_no_trace(tmp_path, room):
    journal = Journal(tmp_path)
    journal.resume("0001-00000000")
    journal._file = Full(journal._file, room)
    written = []
    for until in (1, 2, 3):
        try:
            journal.write("order", partition="a[0]", until=until)
            written.append(until)
        except DiskError as error:
            assert "No space left on device" in str(error)
    journal._file.room = 1000
    journal.write("order", partition="a[0]", until=9)
    journal.close()
    again = Journal(tmp_path)
    again.resume("0001-00000000")
    assert [entry["until"] for entry in again.script] == [*written, 9]
    again.close()


def test_what_cannot_be_decided_is_not_taken_and_comes_when_there_is_room(tmp_path):
    values = stream(30)
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 4), every_records=1000) as loop:
        loop.turn(1.0)
        loop.turn(1.0)
        before, whole = loop.checkpoint().state_digest, loop.journal._file
        loop.journal._file = Full(whole, 5)
        for _ in range(3):
            with pytest.raises(DiskError):
                loop.turn(1.0)
            assert loop.checkpoint().state_digest == before
        loop.journal._file = whole
        drain(loop)
        ended = loop.checkpoint().state_digest
    with started(tmp_path / "straight", MemorySource({"a[0]": values})) as loop:
        drain(loop)
        assert ended == loop.checkpoint().state_digest


def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/state cannot be made: .* expected one that can be written to"):
        Ownership(tmp_path / "file" / "state")
