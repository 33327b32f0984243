"""Two daemons on one state directory: the second is refused, or takes over, and then the first one's writes are never used."""

import subprocess
import sys

import pytest

from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.checkpoint import Checkpoints
from streamlearn.errors import CheckpointError
from streamlearn.ownership import Ownership
from tests.test_prequential import stream

VALUES = stream(60)


def test_a_second_process_is_refused_by_name(tmp_path):
    owner = Ownership(tmp_path)
    try:
        code = f"from streamlearn.ownership import Ownership; from pathlib import Path; Ownership(Path({str(tmp_path)!r}))"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        owner.release()
    assert "is locked by process" in other.stderr
    assert "--take-over" in other.stderr
    Ownership(tmp_path).release()


def test_after_a_take_over_the_old_owner_finds_out_and_the_epoch_stays(tmp_path):
    old = Ownership(tmp_path)
    new = Ownership(tmp_path, take_over=True)
    assert (old.epoch, new.epoch) == (1, 2)
    assert new.holds()
    with pytest.raises(CheckpointError, match=r"was taken over by a newer daemon \(writer epoch 2, ours is 1\)"):
        old.check()
    new.release()
    again = Ownership(tmp_path)
    assert again.epoch == 2
    again.release()
    old.release()


def test_what_a_zombie_still_writes_is_never_used(tmp_path):
    """The old owner stops, is taken over, and comes back: its journal, its checkpoint and its snapshot come too late."""
    source = MemorySource({"a[0]": VALUES}, poll_size=lambda: 6)
    with started(tmp_path, source, every_records=1000, own=Ownership(tmp_path)) as zombie:
        zombie.turn(1.0)
        zombie.begin_checkpoint()
        zombie.writer.wait()
        for _ in range(3):
            zombie.turn(1.0)
        new = Ownership(tmp_path, take_over=True)
        with started(tmp_path, MemorySource({"a[0]": VALUES}, poll_size=lambda: 5), every_records=1000, own=new) as loop:
            for _ in range(4):
                loop.turn(1.0)
            published = len(zombie.publisher.snapshots)
            zombie.journal.write("order", partition="a[0]", until=59)
            held = zombie.checkpoint()
            with pytest.raises(CheckpointError, match="taken over"):
                zombie.publish()
            with pytest.raises(CheckpointError, match="taken over"):
                zombie.begin_checkpoint()
            with pytest.raises(CheckpointError, match="another daemon has taken over"):
                zombie.writer.store.save("0001-00009999", held, created_ms=0, is_owner=zombie.writer.is_owner)
            assert len(zombie.publisher.snapshots) == published
        # a rename that was already under way when the owner changed
        zombie.writer.store.save("0001-00009999", held, created_ms=0)
        assert Checkpoints(tmp_path / "checkpoints").newest()[1].name.startswith("0002-")
        again = Ownership(tmp_path)
        with started(tmp_path, MemorySource({"a[0]": VALUES}), own=again) as loop:
            drain(loop)
            survived = loop.checkpoint()
    with started(tmp_path / "straight", MemorySource({"a[0]": VALUES})) as loop:
        drain(loop)
        straight = loop.checkpoint()
    assert survived.state_digest == straight.state_digest


def test_a_successor_relives_the_order_that_the_old_owner_had_journaled(tmp_path):
    """Two partitions: what the old owner decided after its last checkpoint was perhaps served, so it stays decided."""
    values = {"a[0]": VALUES[:30], "b[0]": VALUES[30:]}
    first = MemorySource(values, poll_size=lambda: 4, order=lambda names: names[-1])
    with started(tmp_path, first, every_records=1000, own=Ownership(tmp_path)) as old:
        for _ in range(6):
            old.turn(1.0)
        decided = old.learner.w.copy(), dict(old.admission.positions)
    new = Ownership(tmp_path, take_over=True)
    second = MemorySource(values, poll_size=lambda: 3, order=lambda names: names[0])
    with started(tmp_path, second, every_records=1000, own=new) as loop:
        while loop.journal.scripted():
            loop.turn(1.0)
        assert (loop.learner.w, loop.admission.positions) == decided
