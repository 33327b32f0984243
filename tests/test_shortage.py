"""Memory that does not suffice: learning is retried in halves, then without what never fits; every byte is what it would be."""

import json
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.testbed import fakes, loops
from benchmarks.testbed.fakes import MemorySink, MemorySource, OrderLearner
from benchmarks.testbed.loops import drain, outcomes, started
from streamlearn.admit import CONNECT
from streamlearn.journal import Journal
from streamlearn.records import Batch, State
from streamlearn.shortage import Attempts, is_memory_error

POISON = 77.0


class Narrow(OrderLearner):
    """Gets no memory for more than `most` rows at once, nor for a row of POISON, and has half learned when it notices."""

    most = 6
    poisoned = True

    def learn(self, batch):
        poisoned = self.poisoned and (batch.x == POISON).any()
        if poisoned or len(batch) > self.most:
            self.w = self.w + 1000.0
            raise MemoryError(f"no room for {len(batch)}")
        return super().learn(batch)


class Killed(BaseException):
    """The end of a process."""


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(loops, "OrderLearner", Narrow)
    monkeypatch.setattr(Narrow, "most", 6)
    monkeypatch.setattr(Narrow, "poisoned", True)


def stream(n, seed=3, poison=()):
    draw = random.Random(seed)
    return [msgspec.json.encode([POISON if i in poison else draw.random(), draw.choice((0, 1))]) for i in range(n)]


def by_hand(values):
    """The weight after the whole chunks of these records without the poison, and how many were learned."""
    rows = [x for x, _ in map(msgspec.json.decode, values) if x != POISON]
    w, learned = 0.0, len(rows) - len(rows) % 3
    for first in range(0, learned, 3):
        w = 0.9 * w + float(np.float32(rows[first : first + 3]).mean(dtype=np.float64))
    return w, learned


def entries(folder):
    return [msgspec.json.decode(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_a_batch_is_halved_until_it_fits_and_a_row_that_never_fits_goes_to_the_dead_letters(tmp_path, narrow):
    values, letters = stream(100, poison=(31, 32, 70)), MemorySink()
    with started(tmp_path, MemorySource({"a[0]": values}, poll_size=lambda: 20), letters=letters, seed=8) as loop:
        drain(loop)
        w, learned = by_hand(values)
        assert loop.learner.w[0] == w
        assert loop.outcomes() == outcomes(learned=learned, rejected=3)
        assert len(loop.chunks) == 97 - learned
    kinds = [entry for entry in entries(tmp_path / "journal") if entry["kind"] in ("split", "aside")]
    assert [entry["position"] for entry in kinds if entry["kind"] == "aside"] == [31, 32, 70]
    assert any(entry["kind"] == "split" for entry in kinds)
    for message, position in zip(letters.messages, (31, 32, 70), strict=True):
        headers = dict(message.headers)
        assert message.value == values[position], "its original bytes"
        assert headers[CONNECT + "stage"] == b"learn"
        assert b"memory does not suffice to learn 3 rows at once: MemoryError" in headers[CONNECT + "exception.message"]


def test_a_chunk_of_which_no_row_fails_alone_is_set_aside_whole(tmp_path, narrow, monkeypatch):
    monkeypatch.setattr(Narrow, "learn", nothing_with_both_labels)
    values = [msgspec.json.encode([0.5, i in (4, 9)]) for i in range(30)]
    with started(tmp_path, MemorySource({"a[0]": values}), letters=(letters := MemorySink())) as loop:
        drain(loop)
        assert loop.outcomes() == outcomes(learned=24, rejected=6)
    assert [message.key for message in letters.messages] == [f"a[0]@{i}".encode() for i in (3, 4, 5, 9, 10, 11)]


def nothing_with_both_labels(self, batch):
    for first in range(0, len(batch), 3):
        if len(set(batch.labels[first : first + 3].tolist())) > 1:
            raise MemoryError("no room")
    return OrderLearner.learn(self, batch)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_turns_with_more_or_less_memory_it_ends_in_the_bytes_of_a_run_that_had_enough(tmp_path, narrow, seed):
    draw, values = random.Random(seed), stream(120, seed, poison=(20, 21, 60, 90, 110))
    while True:
        Narrow.most = draw.choice((3, 6, 1000))
        source = MemorySource({"a[0]": values}, poll_size=lambda: draw.randint(1, 15))
        with started(tmp_path, source, seed=draw.random()) as loop:
            for _ in range(draw.randint(1, 12)):
                if not loop.intake.drained:
                    loop.turn(1.0)
            if loop.intake.drained and not loop.journal.script:
                killed = loop.checkpoint()
                assert loop.outcomes() == outcomes(learned=by_hand(values)[1], rejected=5)
                break
    straight = [value for value in values if msgspec.json.decode(value)[0] != POISON]
    with started(tmp_path / "straight", MemorySource({"a[0]": straight})) as loop:
        Narrow.most = 1000
        drain(loop)
        enough = loop.checkpoint()
    assert killed.state.arrays["learner/w"] == enough.state.arrays["learner/w"]
    assert killed.state.values["metrics"] == enough.state.values["metrics"]
    assert killed.number == enough.number


@pytest.mark.parametrize("deadly", ["write", "set_aside"])
def test_killed_between_the_decision_and_its_effect_the_next_life_does_as_decided_though_it_had_memory(
    tmp_path, narrow, monkeypatch, deadly
):
    values, source = stream(60, poison=(31,)), lambda: MemorySource({"a[0]": stream(60, poison=(31,))}, poll_size=lambda: 20)
    owner = Journal if deadly == "write" else loops.Admission

    def kill(self, kind, *arguments, **named):
        if deadly == "write" and kind != "aside":
            return write(self, kind, *arguments, **named)
        raise Killed

    write = getattr(owner, deadly)
    with monkeypatch.context() as patched:
        patched.setattr(owner, deadly, kill)
        with started(tmp_path, source(), every_records=1000, seed=8) as loop, pytest.raises(Killed):
            drain(loop)
    decided = [entry for entry in entries(tmp_path / "journal") if entry["kind"] == "aside"]
    assert [entry["position"] for entry in decided] == ([] if deadly == "write" else [31])
    Narrow.poisoned, letters = False, MemorySink()
    with started(tmp_path, source(), letters=letters, seed=3) as loop:
        drain(loop)
        if deadly == "write":
            assert loop.outcomes() == outcomes(learned=60)
        else:
            assert loop.learner.w[0] == by_hand(values)[0]
            assert [message.value for message in letters.messages] == [values[31]]


def test_a_row_whose_bytes_are_gone_is_kept_as_the_learner_was_given_it(tmp_path, narrow):
    """It waited for its chunk across a restart."""
    values = stream(12, poison=(4,))
    Narrow.poisoned = False
    with started(tmp_path, MemorySource({"a[0]": values[:5]}), every_records=1) as loop:
        drain(loop)
        assert len(loop.chunks) == 2
        loop.begin_checkpoint()
        loop.writer.wait()
    Narrow.poisoned, letters = True, MemorySink()
    with started(tmp_path, MemorySource({"a[0]": values}), letters=letters) as loop:
        drain(loop)
        assert loop.learner.w[0] == by_hand(values)[0]
    (letter,) = letters.messages
    assert letter.key == b"a[0]@4"
    assert dict(letter.headers)["streamlearn-value"] == b"rebuilt"
    assert msgspec.json.decode(letter.value) == {"features": [POISON], "label": msgspec.json.decode(values[4])[1]}


def test_other_errors_out_of_learn_are_faults(tmp_path, narrow, monkeypatch):
    def broken(self, batch):
        raise ValueError("a fault")

    monkeypatch.setattr(fakes.OrderLearner, "learn", broken)
    Narrow.poisoned, Narrow.most = False, 1000
    with started(tmp_path, MemorySource({"a[0]": stream(9)})) as loop, pytest.raises(ValueError, match="a fault"):
        drain(loop)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit of the address space needs Linux")
@pytest.mark.parametrize("learner", ["sgd", "er", "continual-maml"])
def test_an_allocator_that_really_says_no_leaves_no_trace(learner):
    """Under a limit of the address space, so that the error is torch's or numpy's own (`tests.short`)."""
    call = [sys.executable, "-m", "tests.short", learner, "{}", "8000000"]
    child = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert "memory does not suffice to learn 20000 rows at once: " in found["said"]
    assert (found["undone"], found["goes_on"]) == (True, True)


@pytest.mark.parametrize(("size", "copies"), [(0, 15), (256 << 20, 4)])
def test_the_larger_the_memory_of_a_learner_the_more_seldom_it_is_copied(size, copies):
    """Once for every 16 MiB of rows, or every quarter of its own size."""

    class Large(OrderLearner):
        copied = 0

        def state(self):
            self.copied += 1
            return State({"memory": np.zeros(size, np.uint8), **super().state().arrays})

    learner, rows = Large(chunk=3), np.zeros((3, 700_000), np.float32)  # 8.4 MB
    attempts = Attempts(learner, is_memory_error)
    for _ in range(30):
        attempts.learn(Batch.of(rows, np.zeros(3, np.int64)))
    assert learner.copied == copies
