"""The process ends at each line of start, turn and checkpoint: what follows ends in the bytes of a run that never ended early.

A line is made to raise what nobody catches. Unlike a real kill, `finally` still runs; that is what `test_kill` is for.
"""

import contextlib
import gc
import itertools
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import streamlearn
from benchmarks.testbed.fakes import MemorySink, MemorySource
from benchmarks.testbed.loops import loop_on
from streamlearn.daemon import recover
from streamlearn.due import Due
from streamlearn.pending import Pending, Settings
from streamlearn.prefetch import Prefetch
from tests import late
from tests.late import LateDecoder

FILES = {
    str(Path(streamlearn.__file__).parent / name)
    for name in (
        "prequential.py",
        "admit.py",
        "chunks.py",
        "journal.py",
        "checkpoint.py",
        "prefetch.py",
        "daemon.py",
        "labels.py",
        "pending.py",
        "rows.py",
        "confidence.py",
    )
}
RECORDS, BAD = 16, 5


class Killed(BaseException):
    """The end of a process."""


class Letters(MemorySink):
    """Dead letters that are durable outlive the process; each place is kept once, as the log does."""

    def __init__(self, durable: dict[bytes, bytes]) -> None:
        super().__init__()
        self.kept = durable

    def flush(self, timeout_s: float) -> None:
        super().flush(timeout_s)
        self.kept |= {message.key: message.value for message in self.messages}


class Lines:
    """Counts the lines that the learner's and the checkpoint's thread run, and ends both at one of them."""

    def __init__(self, target: tuple[str, int] | None = None, time: int = 1) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.killed = threading.Event()
        self._target, self._time = target, time

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename not in FILES or threading.current_thread().name == "prefetch":
            return None
        return self._line

    def _line(self, frame, event, arg):
        if event == "line":
            at = (frame.f_code.co_filename, frame.f_lineno)
            self.counts[at] += 1
            if self.killed.is_set() or (at == self._target and self.counts[at] == self._time):
                self.killed.set()
                raise Killed
        return self._line


@contextlib.contextmanager
def traced(lines):
    before = sys.gettrace()
    threading.settrace(lines)
    sys.settrace(lines)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before)


def live(folder, source, letters, lines=None, *, tick_ms=400):
    """From start to end, or to where it is killed; the last state and the number of turns that were made."""
    due = Due(every_s=1e9, every_count=4, clock=lambda: 0.0)
    clock = itertools.count(0, tick_ms)  # milliseconds: samples whose labels are long in coming expire
    pending = Pending(Settings(expire_s=6.0), clock_ms=lambda: next(clock))
    loop, reading = loop_on(folder, checkpoint_due=due, max_records=5, letters=Letters(letters), pending=pending), None
    try:
        with traced(lines) if lines else contextlib.nullcontext():
            recover(loop)
            positions = dict(loop.admission.positions)
            reading = Prefetch(lambda: source, LateDecoder(), loop.intake, shape=(1,), positions=positions)
            reading.start()
            while not loop.intake.drained and not (lines and lines.killed.is_set()):
                loop.turn(1.0)
            while loop.journal.script and not (lines and lines.killed.is_set()):
                loop.turn(0.0)
            loop.begin_checkpoint()
            loop.writer.wait()
            return loop.checkpoint()
    except Killed:
        return None
    finally:
        if reading is not None:
            reading.stop(5.0)
        with contextlib.suppress(Killed):
            loop.writer.wait()
        loop.writer.close()
        if loop.journal._file is not None:
            loop.journal._file.close()


def sources(partitions, draw):
    values = {f"a[{p}]": late.stream(RECORDS, seed=p, ids=8) for p in range(partitions)}
    for each in values.values():
        each[BAD] = b"not json"
    return lambda: MemorySource(values, poll_size=lambda: draw.randint(1, 5), order=draw.choice)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("partitions", [1, 2])
def test_wherever_it_ends_it_goes_on_as_if_it_had_not(tmp_path, partitions):
    draw = random.Random(partitions)
    source = sources(partitions, draw)
    counted = Lines()
    live(tmp_path / "counted", source(), {}, counted)
    half = Lines(max(counted.counts, key=lambda at: at[0].endswith("chunks.py")), 3)
    live(tmp_path / "restarted", source(), {}, half)
    again = Lines()
    live(tmp_path / "restarted", source(), {}, again)
    targets = sorted(set(counted.counts) | set(again.counts))
    assert len(targets) > 200, "the lines of the turn were traced"
    killed = 0
    for i, target in enumerate(targets):
        for time in {1, draw.randint(1, max(1, counted.counts[target]))}:
            folder, letters = tmp_path / f"{i}-{time}", {}
            lines = Lines(target, time)
            live(folder, source(), letters, lines)
            if target not in counted.counts:  # a line of recovery alone
                live(folder, source(), letters, Lines(target, time))
            killed += lines.killed.is_set()
            ended = live(folder, source(), letters)
            assert ended is not None
            straight = tmp_path / f"{i}-{time}-straight"
            straight.mkdir()
            (folder / "journal").rename(straight / "journal")
            assert ended.state_digest == live(straight, source(), {}, tick_ms=0).state_digest, (target, time)
            assert sum(ended.positions.values()) == partitions * RECORDS
            assert set(letters) == {f"a[{p}]@{BAD}".encode() for p in range(partitions)}, (target, time)
    assert killed > 300
    gc.collect()  # files that a process left open when it ended
