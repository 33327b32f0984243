"""Decisions are taken again, in their order, after a crash."""

import contextlib

import pytest

from streamlearn.errors import CheckpointError
from streamlearn.journal import Journal


@pytest.fixture
def started():
    """Opens journals the way a start does; a kill is simulated by not closing them until the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(folder, segment="0001-00000000", taken=0):
            journal = stack.enter_context(contextlib.closing(Journal(folder)))
            journal.resume(segment, taken)
            return journal

        yield start


def test_entries_written_after_a_checkpoint_are_the_script_of_the_next_start(started, tmp_path):
    journal = started(tmp_path)
    journal.write("order", partition="a[0]", until=5)
    journal.begin("0001-00000001")
    place = journal.place()
    journal.write("order", partition="b[0]", until=3)
    journal.write("order", partition="a[0]", until=9)  # no close: the process was killed
    again = started(tmp_path, **place)
    assert [(e["partition"], e["until"]) for e in again.script] == [("b[0]", 3), ("a[0]", 9)]


def test_a_checkpoint_taken_while_the_script_runs_skips_what_was_taken(started, tmp_path):
    journal = started(tmp_path)
    for until in (3, 6, 9):
        journal.write("order", partition="a[0]", until=until)
    again = started(tmp_path)
    again.took()
    again.begin("0001-00000007")
    assert again.place() == {"segment": "0001-00000000", "taken": 1}
    third = started(tmp_path, **again.place())
    assert [e["until"] for e in third.script] == [6, 9]


def test_new_decisions_follow_the_old_ones_in_the_file(started, tmp_path):
    started(tmp_path).write("order", partition="a[0]", until=1)
    again = started(tmp_path)
    again.took()
    again.write("order", partition="a[0]", until=2)
    assert [e["until"] for e in started(tmp_path).script] == [1, 2]


@pytest.mark.parametrize("lost", range(1, 20))
def test_a_torn_last_line_is_a_decision_that_was_not_taken(started, tmp_path, lost):
    journal = started(tmp_path)
    journal.write("order", partition="a[0]", until=1)
    journal.write("order", partition="a[0]", until=2)
    path = tmp_path / "0001-00000000.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    again = started(tmp_path)
    assert [e["until"] for e in again.script] == [1]
    again.took()
    again.write("order", partition="a[0]", until=3)
    assert [e["until"] for e in started(tmp_path).script] == [1, 3]


@pytest.mark.parametrize("hole", [b"\0" * 12 + b"kept\n", b'{"kind": "or\0\0\0\0\n{"kind": "order"}\n'])
def test_before_a_hole_is_the_end(started, tmp_path, hole):
    """A power cut keeps later writes without earlier ones, where nothing was flushed: none of them had been promised."""
    started(tmp_path).write("order", partition="a[0]", until=1)
    path = tmp_path / "0001-00000000.jsonl"
    path.write_bytes(path.read_bytes() + hole)
    again = started(tmp_path)
    assert [e["until"] for e in again.script] == [1]
    again.took()
    again.write("order", partition="a[0]", until=2)
    assert [e["until"] for e in started(tmp_path).script] == [1, 2]


def test_a_damaged_line_stops_the_start(started, tmp_path):
    (tmp_path / "0001-00000000.jsonl").write_bytes(b'{"kind": "order"\n{"kind": "order"}\n')
    with pytest.raises(CheckpointError, match=r"0001-00000000.jsonl is damaged"):
        started(tmp_path)


def test_a_missing_segment_stops_the_start(started, tmp_path):
    (tmp_path / "0001-00000002.jsonl").write_bytes(b"")
    with pytest.raises(CheckpointError, match="segment 0001-00000001 is missing"):
        started(tmp_path, "0001-00000001")


def test_segments_before_the_oldest_checkpoint_are_removed(started, tmp_path):
    journal = started(tmp_path)
    for name in ("0001-00000001", "0001-00000002", "0001-00000003"):
        journal.begin(name)
    journal.cut("0001-00000002")
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["0001-00000002", "0001-00000003"]
