"""Going back to an older model: its bytes, its own positions or the current ones, and a number that no other state ever had."""

import pytest

from benchmarks.testbed.fakes import MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.checkpoint import Checkpoints
from streamlearn.errors import CheckpointError, ConfigError
from streamlearn.ownership import Ownership
from streamlearn.rollback import roll_back
from tests.test_prequential import stream

VALUES = stream(60, bad=(7,))


@pytest.fixture
def ran(tmp_path):
    """A directory whose daemon took checkpoints on its way through 60 records, and was killed after the last one."""
    with started(tmp_path, MemorySource({"a[0]": VALUES}, poll_size=lambda: 6), every_records=10) as loop:
        while not loop.intake.drained:
            loop.turn(1.0)
            loop.writer.wait()
        highest = loop.tally.number
    store = Checkpoints(tmp_path / "checkpoints")
    kept = [store.read(name) for name in store.names()]
    assert len(kept) >= 3
    return tmp_path, kept, highest


def test_the_older_model_is_the_newest_checkpoint_under_a_number_never_used(ran):
    folder, kept, highest = ran
    old, written = kept[1]
    went = roll_back(folder, old.number, resume="replay", now_ms=0)
    assert went.number > highest
    assert went.model_digest == written.model_digest
    assert Checkpoints(folder / "checkpoints").newest()[1].name == went.name


def test_replay_learns_again_what_came_since(ran):
    folder, kept, _ = ran
    with started(folder / "straight", MemorySource({"a[0]": VALUES})) as loop:
        drain(loop)
        straight = loop.checkpoint()
    went = roll_back(folder, kept[1][0].number, resume="replay", now_ms=0)
    with started(folder, MemorySource({"a[0]": VALUES}), every_records=10) as loop:
        assert loop.tally.number == went.number
        drain(loop)
        again = loop.checkpoint()
        assert loop.outcomes()["skipped"] == 0
    assert again.model_digest == straight.model_digest
    assert again.number == went.number + straight.number - kept[1][0].number


def test_now_leaves_out_and_counts_what_came_since(ran):
    folder, kept, _ = ran
    old = kept[1][0]
    roll_back(folder, old.number, resume="now", now_ms=0)
    longer = VALUES + stream(12, seed=9)
    with started(folder, MemorySource({"a[0]": longer})) as loop:
        assert loop.admission.positions == {"a[0]": 60}
        drain(loop)
        outcomes = loop.outcomes()
        assert outcomes["skipped"] == 60 - old.positions["a[0]"]
        assert sum(outcomes.values()) + len(loop.chunks) == 72


def test_killed_after_a_rollback_it_goes_on_from_the_rollback(ran):
    folder, kept, _ = ran
    went = roll_back(folder, kept[0][0].number, resume="replay", now_ms=0)
    for _ in range(2):  # killed before its first checkpoint, and started again
        with started(folder, MemorySource({"a[0]": VALUES}, poll_size=lambda: 2), every_records=1000) as loop:
            assert loop.tally.number == went.number
            loop.turn(1.0)


def test_a_number_that_is_not_kept_is_refused_with_those_that_are(ran):
    folder, kept, _ = ran
    with pytest.raises(ConfigError, match=rf"no checkpoint of number 999 .* found numbers {kept[0][0].number}, "):
        roll_back(folder, 999, resume="now", now_ms=0)


def test_a_running_daemon_is_left_alone(ran):
    folder, kept, _ = ran
    lock = Ownership(folder)
    with pytest.raises(CheckpointError, match="is locked"):
        roll_back(folder, kept[0][0].number, resume="now", now_ms=0)
    lock.release()
