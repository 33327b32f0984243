"""The loop, over fakes: the expected states are computed by hand, record by record."""

import random

import msgspec
import numpy as np
import pytest

from benchmarks.testbed.fakes import MemorySink, MemorySource
from benchmarks.testbed.loops import drain, outcomes, started


def stream(n, seed=3, bad=()):
    draw = random.Random(seed)
    return [b"not json" if i in bad else msgspec.json.encode([draw.random(), draw.choice((0, 1))]) for i in range(n)]


def by_hand(values):
    """The weight after the whole chunks of these records, and how many were learned."""
    rows = [msgspec.json.decode(v)[0] for v in values if v != b"not json"]
    w = 0.0
    for first in range(0, len(rows) - len(rows) % 3, 3):
        w = 0.9 * w + float(np.float32(rows[first : first + 3]).mean(dtype=np.float64))
    return w, len(rows) - len(rows) % 3


def test_learning_is_the_whole_chunks_in_stream_order_and_every_record_has_one_outcome(tmp_path):
    values = stream(50, bad=(4, 5, 30))
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 7)) as loop:
        drain(loop)
        w, learned = by_hand(values)
        assert loop.learner.w[0] == w
        assert loop.outcomes() == outcomes(learned=learned, rejected=3, skipped=0)
        assert sum(loop.outcomes().values()) + len(loop.chunks) == 50
        assert loop.tally.number == learned // 3
        assert loop.admission.positions == {"a[0]": 50}


def test_killed_after_a_checkpoint_from_before_the_first_record_it_goes_on(tmp_path):
    """As when the upstream was away for the first while: where reading began is then decided behind that checkpoint."""
    values = stream(40)
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 7), every_records=1000) as loop:
        loop.begin_checkpoint()
        loop.writer.wait()
        while loop.read < 20:
            loop.turn(1.0)
        assert loop.writer.store.names() == ["0001-00000001"], "no checkpoint but the first"
    with started(tmp_path, MemorySource({"a[0]": values})) as loop:
        assert loop.admission.positions == {"a[0]": 0}
        drain(loop)
        assert loop.learner.w[0] == by_hand(values)[0]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_turns_it_ends_in_the_same_bytes_as_a_run_that_follows_its_journal(tmp_path, partitions, seed):
    draw = random.Random(seed)
    values = {f"a[{i}]": stream(60, seed=i, bad=(7,)) for i in range(partitions)}

    def source():
        return MemorySource(values, poll_size=lambda: draw.randint(1, 9), order=draw.choice)

    kills = 0
    while True:
        with started(tmp_path / "killed", source(), seed=draw.random()) as loop:
            for _ in range(draw.randint(1, 12)):
                if not loop.intake.drained:
                    loop.turn(1.0)
            if loop.intake.drained and kills:  # the first life is ended in any case: on a slow machine it may have read all
                killed = loop.checkpoint()
                break
            kills += 1  # nothing of this process survives but its files
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed" / "journal").rename(tmp_path / "straight" / "journal")
    with started(tmp_path / "straight", source(), seed=draw.random()) as loop:
        drain(loop)
        straight = loop.checkpoint()
    assert killed.state_digest == straight.state_digest
    assert killed.number == straight.number


def test_the_digest_does_not_depend_on_how_records_were_polled(tmp_path):
    values = stream(100, bad=(9, 10))
    digests = set()
    for seed in range(5):
        draw = random.Random(seed)
        source = MemorySource({"a[0]": values}, poll_size=lambda draw=draw: draw.randint(1, 30))
        with started(tmp_path / str(seed), source, seed=seed) as loop:
            drain(loop)
            digests.add(loop.checkpoint().state_digest)
    assert len(digests) == 1


def test_an_update_that_is_not_finite_is_counted_and_its_neighbours_are_learned(tmp_path):
    values = [b"[1, 0]", b"[2, 0]", b"[3, 0]", b"[4, 0]", b"[1e9, 0]", b"[6, 0]", b"[7, 0]", b"[8, 0]", b"[9, 0]"]
    with started(tmp_path, MemorySource({"a[0]": values})) as loop:
        drain(loop)
        assert loop.learner.seen == [1, 2, 3, 7, 8, 9]
        assert loop.outcomes() == outcomes(learned=6, rejected=3, skipped=0)
        assert loop.tally.number == 2


def test_a_snapshot_has_the_number_of_the_state_it_was_made_from(tmp_path):
    values = stream(60)
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 1)) as loop:
        drain(loop)
        for snapshot in loop.publisher.snapshots:
            assert snapshot.answering.arrays["w"][0] == by_hand(values[: 3 * snapshot.number])[0]
        assert loop.publisher.snapshots[-1].number == 20


def test_answers_bear_the_number_of_the_state_that_gave_them(tmp_path):
    sink = MemorySink()
    values = [b"[0.1, 0]", b"[0.2, 1]", b"[0.3, 0]"] * 2 + [b"[1e9, 0]"] * 3 + [b"[0.5, 0]"] * 3
    with started(tmp_path, MemorySource({"a[0]": values}), answers=sink) as loop:
        drain(loop)
    answers = [msgspec.json.decode(message.value) for message in sink.messages]
    assert [a["model_version"] for a in answers] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert [a["place"] for a in answers] == [f"a[0]@{i}" for i in range(12)]
    assert [a["label"] for a in answers[:3]] == [0, 1, 0]
    assert answers[0]["answer"] == 1
    assert answers[0]["probability"] == pytest.approx(1 / (1 + np.exp(-0.1)))


def test_where_reading_began_is_kept_also_for_partitions_that_stay_silent(tmp_path):
    """A source that starts at the newest records: what is old at the first start is old after every restart too."""

    class Latest(MemorySource):
        def seek(self, positions):
            begins = positions or dict.fromkeys(self.partitions, 5)
            super().seek({name: begins.get(name, 0) for name in self.partitions})

    values = {name: stream(5, seed=seed) for seed, name in enumerate(("a[0]", "a[1]"))}
    values["a[0]"] += stream(3, seed=7)
    with started(tmp_path, Latest(values)) as loop:
        drain(loop)
        assert loop.admission.positions == {"a[0]": 8, "a[1]": 5}
        loop.begin_checkpoint()
    values["a[1]"] += stream(4, seed=8)
    with started(tmp_path, Latest(values)) as loop:
        drain(loop)
        assert loop.read == 4
        assert loop.admission.positions == {"a[0]": 8, "a[1]": 9}


def test_a_start_that_was_killed_before_its_first_checkpoint_begins_again_where_it_began(tmp_path):
    begins = iter([3, 7])

    class Latest(MemorySource):
        def seek(self, positions):
            super().seek(positions or {"a[0]": next(begins)})

    for _ in range(2):
        with started(tmp_path, Latest({"a[0]": stream(9)}), every_records=1000) as loop:
            drain(loop)
            assert (loop.read, loop.admission.positions) == (6, {"a[0]": 9})


def test_answers_are_told_after_a_restart_too(tmp_path):
    sink, values = MemorySink(), stream(20)
    for n in (10, 20):
        with started(tmp_path, MemorySource({"a[0]": values[:n]}), answers=sink) as loop:
            drain(loop)
            loop.begin_checkpoint()
    assert [msgspec.json.decode(message.value)["place"] for message in sink.messages] == [f"a[0]@{i}" for i in range(18)]


def test_dead_letters_and_answers_are_durable_before_the_checkpoint_that_passes_them(tmp_path):
    sink = MemorySink()
    with started(tmp_path, MemorySource({"a[0]": stream(12, bad=(3,))}), answers=sink, every_records=1000) as loop:
        drain(loop)
        assert sink.durable == 0
        loop.begin_checkpoint()
        assert sink.durable == len(sink.messages) == 9
