"""Late labels: what waits, what joins, what is scored, and that none of it depends on polls, crashes or clocks."""

import random

import msgspec
import numpy as np
import pytest

from benchmarks.testbed.fakes import MemorySink, MemorySource
from benchmarks.testbed.loops import drain, started
from streamlearn.pending import ROW_BYTES, Pending, Settings, Waiting
from streamlearn.records import Given, State
from tests.late import Account, LateDecoder, fading, stream


def table(*, clock=lambda: 0, **settings):
    return Pending(Settings(**settings), clock_ms=clock)


def run(folder, values, *, poll=lambda: 7, pending=None, seed=0, answers=None):
    source = MemorySource({"a[0]": values}, poll_size=poll)
    return started(folder, source, decoder=LateDecoder(), pending=pending, seed=seed, answers=answers)


@pytest.mark.parametrize("room", [10**6, 5])
@pytest.mark.parametrize("seed", range(8))
def test_every_record_ends_as_a_slow_obvious_account_says(tmp_path, seed, room):
    values, account, sink = stream(400, seed), Account(room=room), MemorySink()
    for value in values:
        account.take(value)
    with run(tmp_path, values, pending=table(max_rows=room), answers=sink) as loop:
        drain(loop)
        assert loop.outcomes() == account.counts | {"skipped": 0, "probe": 0}
        assert loop.waiting() == {
            "chunk": len(account.chunk),
            "label": len(account.waiting),
            "sample": len(account.early),
        }
        assert sum(loop.outcomes().values()) + sum(loop.waiting().values()) == len(values)  # P1
        assert loop.learner.w[0] == account.w
        assert loop.tally.number == account.number
        assert loop.metrics.values()["accuracy"] == pytest.approx(fading(account.scored), abs=1e-12)
        assert loop.pending.served.value == pytest.approx(fading(account.served), abs=1e-12)
        assert [msgspec.json.decode(m.value)["model_version"] for m in sink.messages] == account.versions
        assert loop.learner.told == account.told
    assert len(account.told) > 5 or room == 5
    assert min(account.counts["joined"], account.counts["duplicate"], account.counts["learned"]) > 5
    assert room > 5 or min(account.counts["expired"], account.counts["unmatched"]) > 5


def test_the_digest_does_not_depend_on_how_records_were_polled(tmp_path):
    values, digests = stream(300, 3), set()
    for seed in range(6):
        draw = random.Random(seed)
        with run(tmp_path / str(seed), values, poll=lambda draw=draw: draw.randint(1, 40), seed=seed) as loop:
            drain(loop)
            digests.add(loop.checkpoint().state_digest)
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random_turns_it_ends_as_a_run_that_follows_its_journal(tmp_path, seed):
    """The clock runs on between turns and between lives: what expires when is a decision, and decided once."""
    draw = random.Random(seed)
    now = [0]

    def clock():
        now[0] += draw.randint(0, 900)
        return now[0]

    def source():
        values = {name: stream(120, seed=100 * seed + i, ids=400) for i, name in enumerate(("a[0]", "b[0]"))}
        return MemorySource(values, poll_size=lambda: draw.randint(1, 9), order=draw.choice)

    def life(folder, clock=clock):
        pending = table(clock=clock, expire_s=8.0)
        return started(tmp_path / folder, source(), decoder=LateDecoder(), pending=pending, seed=draw.random())

    kills = 0
    while True:
        with life("killed") as loop:
            for _ in range(draw.randint(5, 25)):
                if not loop.intake.drained:
                    loop.turn(1.0)
            if loop.intake.drained:
                drain(loop)
                killed, outcomes, waiting = loop.checkpoint(), loop.outcomes(), loop.waiting()
                reasons = dict(loop.pending.expiries)
                break
            kills += 1
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed" / "journal").rename(tmp_path / "straight" / "journal")
    with life("straight", clock=lambda: 0) as loop:  # with a clock that stands still it decides nothing itself
        drain(loop)
        assert loop.checkpoint().state_digest == killed.state_digest
    assert sum(outcomes.values()) + sum(waiting.values()) == 240
    assert kills > 0
    assert reasons.get("time", 0) > 5


def waiting(id_, x=0.0, **changes):
    return Waiting(id_, np.full(1, x, np.float32), 0, id_, -1, -1, **changes)


def test_nothing_expires_before_its_time_and_everything_of_that_age_does():
    now = [10_000]
    pending = table(clock=lambda: now[0], expire_s=60)
    pending.wait(waiting(1))
    now[0] += 5000
    pending.wait(waiting(2))
    pending.wait_for_sample(9, 0, -1)
    now[0] = 69_999
    assert pending.due() is None
    now[0] = 71_000
    assert pending.due() == 1
    assert list(pending.samples) == [1, 2], "due decides nothing"
    pending.expire(1)
    assert list(pending.samples) == [2]
    now[0] = 75_000
    pending.expire(pending.due())
    assert pending.waiting() == {"label": 0, "sample": 0}
    assert dict(pending.counts) == {"expired": 2, "unmatched": 1}
    assert dict(pending.expiries) == {"time": 3}


@pytest.mark.parametrize("through_a_checkpoint", [False, True])
def test_an_answer_is_held_against_what_it_was_worth_when_it_was_given(through_a_checkpoint):
    """Given while such confidence was always right; before the labels come it turns out to be always wrong."""
    pending, sure = table(), Given(0, np.array([3.0, 0.0], np.float32))
    for i in range(1, 201):
        pending.calibration.update(sure.confidence, is_right=True)
        if i % 2 == 0:
            pending.wait(waiting(i))
            pending.give(pending.samples[i], sure)
    first = [pending.samples[i].expected for i in (2, 200)]
    assert first == sorted(first), "what is known grows"
    for _ in range(2000):
        pending.calibration.update(sure.confidence, is_right=False)
    if through_a_checkpoint:
        kept, pending = pending.state(), table()
        pending.restore(kept)
    assert [pending.samples[i].expected for i in (2, 200)] == first
    before = pending.calibration.bias
    assert pending.join(200, 1, -1)
    missed = pending.calibration.bias - before
    assert first[1] > 0.9
    assert pending.calibration.chance(sure.confidence) < 0.2
    fade = Settings().fade
    weight = (1 - fade**2201) / (1 - fade)  # of all labels so far
    assert missed == pytest.approx((first[1] - before) / weight, rel=1e-6)


def test_memory_is_bounded_in_rows_in_bytes_and_in_remembered_ids():
    pending = table(max_rows=50, max_bytes=20 * (ROW_BYTES + 4 + 8), remember_ids=7)
    for i in range(1, 500):
        pending.wait(waiting(i))
        pending.give(pending.samples[i], Given(0, np.zeros(2, np.float32)))
        pending.wait_for_sample(1000 + i, 0, -1)
        if i % 3 == 0:
            assert pending.join(i, 0, -1)
        assert len(pending.samples) <= 20
        assert len(pending.early) <= 50
        assert pending.size_bytes == sum(each.size_bytes for each in pending.samples.values()) <= 20 * (ROW_BYTES + 12)
    assert [pending.came(i) for i in (498, 480, 477)] == [True, True, False]


def test_evidence_takes_at_most_half_and_samples_beyond_wait_without():
    pending = table(max_bytes=20 * (ROW_BYTES + 4 + 400))
    for i in range(1, 500):
        pending.wait(waiting(i))
        pending.give(pending.samples[i], Given(0, np.zeros(0, np.float32), evidence=np.zeros(100, np.float32)))
        held = sum(each.given.evidence.nbytes for each in pending.samples.values())
        assert held <= 10 * (ROW_BYTES + 404)
        if i == 20:
            assert (len(pending.samples), held) == (20, 15 * 400)
        if i > 60:
            assert pending.join(i - 5, 0, -1)
    assert pending.samples[499].given.evidence.nbytes == 400, "what joins makes room again"


def test_a_table_from_before_there_was_evidence_is_restored():
    pending = table()
    pending.wait(waiting(1))
    pending.give(pending.samples[1], Given(3, np.ones(2, np.float32), evidence=np.ones(4, np.float32)))
    state = pending.state()
    again = table()
    again.restore(State({name: a for name, a in state.arrays.items() if "evidence" not in name}, state.values))
    given = again.join(1, 0, -1).given
    assert (given.number, given.logits.tolist(), len(given.evidence)) == (3, [1, 1], 0)


def test_a_sample_larger_than_all_the_room_expires_at_once():
    pending = table(max_bytes=10)
    sample = waiting(1)
    pending.wait(sample)
    pending.give(sample, Given(0, np.zeros(2, np.float32)))
    assert (pending.size_bytes, pending.counts["expired"]) == (0, 1)


def test_delays_are_those_of_the_events_where_both_are_told_and_else_those_of_the_arrivals():
    now = [1000]
    pending = table(clock=lambda: now[0])
    pending.wait(Waiting(1, np.zeros(1, np.float32), 0, 0, 5000, -1))
    pending.wait(waiting(2))
    now[0] = 8500
    pending.join(1, 0, 9000)
    pending.join(2, 0, 9000)
    assert pending.take_delays_s() == [4.0, 7.5]
    assert pending.take_delays_s() == []


def test_a_state_goes_round_and_one_from_before_there_was_the_table_leaves_it_empty():
    pending = table()
    for i in range(1, 9):
        pending.wait(waiting(i, i / 8))
        evidence = np.arange(i % 4, dtype=np.float32)
        pending.give(pending.samples[i], Given(i, np.arange(i % 3, dtype=np.float32), i % 2 == 0, evidence=evidence))
    pending.wait_for_sample(2**64 - 1, 1, -1)
    pending.join(3, 0, -1)
    pending.join(4, 1, -1)
    pending.join(5, 1, -1)
    again = table()
    again.restore(pending.state())
    first, second = pending.state(), again.state()
    assert first.values == second.values
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    joined = again.join(7, 0, -1).given
    assert (joined.number, joined.evidence.tolist()) == (7, [0, 1, 2])
    assert again.size_bytes == sum(each.size_bytes for each in again.samples.values())
    again.restore(first.under("nothing"))
    fresh = table()
    fresh.restore(first.under("nothing"))
    assert fresh.waiting() == {"label": 0, "sample": 0}


def test_only_without_any_answer_is_a_sample_predicted_at_label_time():
    pending = table()
    pending.wait(waiting(1))
    pending.wait(waiting(2))
    pending.give(pending.samples[1], Given(0, np.zeros(0, np.float32)))
    pending.give(pending.samples[2], Given(0, np.array([1.0, 2.0], np.float32)))
    pending.join(1, 0, -1)
    assert pending.unanswered == 1
    pending.join(2, 0, -1)
    assert pending.unanswered == 1
