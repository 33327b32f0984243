"""SIGKILL, at every named point of the turn and of the checkpoint, and at random instants: nothing shows afterwards.

What is read is the embedded log, and a real Kafka with one and with three partitions. Points of late labels and of the probe
are reached on a stream of their own, in the same three.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability import stream
from benchmarks.reliability.bench import UPSTREAMS, Bench
from benchmarks.reliability.sabotage import When
from benchmarks.reliability.stream import (
    PATIENCE_S,
    Checked,
    Journalled,
    Upstream,
    check_surviving,
    is_done,
    reading,
    run_to_the_end,
    with_group,
)
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.testbed.forks import Life, ended


class Point(NamedTuple):
    """A named place in the program, and which of its calls may be the deadly one."""

    name: str
    target: str
    when: When
    calls: range = range(1, 6)
    late: bool = False  # of labels that come late, and of what is kept from the learner


CHECKPOINTS = range(1, 3)
SAVE = "streamlearn.checkpoint:Checkpoints.save"
POINTS = (
    Point("at the start, before anything is recovered", "streamlearn.daemon:recover", "before", range(1, 2)),
    Point("at the start, after recovery", "streamlearn.daemon:recover", "after", range(1, 2)),
    Point("turn: before the order is decided", "streamlearn.prefetch:Intake.take", "before"),
    Point("turn: a journal entry half written", "streamlearn.journal:Journal.write", "half"),
    Point("turn: order decided, nothing admitted", "streamlearn.admit:Admission.admit", "before"),
    Point("turn: a label was given its row", "streamlearn.labels:LabelMap.row", "after", range(1, 40)),
    Point("turn: a dead letter written, not flushed", "streamlearn.admit:DeadLetters.write", "after", range(1, 3)),
    Point("turn: admitted, not cut into chunks", "streamlearn.chunks:Chunks.cut", "before"),
    Point("turn: before learning", "streamlearn.learners.chunkwise:Chunkwise.learn", "before"),
    Point("turn: the head grows", "streamlearn.models.classifier:Classifier.grown", "before", range(1, 3)),
    Point("turn: the head has grown", "streamlearn.models.classifier:Classifier.grown", "after", range(1, 3)),
    Point("turn: in the midst of a chunk", "streamlearn.learners.chunkwise:Chunkwise._remember", "before", range(1, 12)),
    Point("turn: learned, not scored", "streamlearn.metrics:Metrics.update", "before"),
    Point("turn: scored, not counted", "streamlearn.prequential:Tally.count", "before"),
    Point("turn: answers written", "streamlearn.answers:AnswersTo.write", "after"),
    Point("late: a label joined, not learned", "streamlearn.pending:Pending.join", "after", range(1, 30), late=True),
    Point("late: answered, the answer not kept", "streamlearn.pending:Pending.give", "before", range(1, 30), late=True),
    Point(
        "late: what expires is written, nothing expired", "streamlearn.pending:Pending.expire", "before", range(1, 2), late=True
    ),
    Point("late: expired, not counted", "streamlearn.pending:Pending._drop", "before", range(1, 8), late=True),
    Point(
        "late: the answer scored, the row not learned", "streamlearn.pending:Pending._score", "after", range(1, 20), late=True
    ),
    Point("probe: a record is diverted", "streamlearn.probe:Probe._keep", "before", range(1, 8), late=True),
    Point("probe: a record was diverted", "streamlearn.probe:Probe._keep", "after", range(1, 8), late=True),
    Point("probe: the model is tested", "streamlearn.probe:Probe.score", "before", range(1, 3), late=True),
    Point("probe: the model was tested", "streamlearn.probe:Probe.score", "after", range(1, 3), late=True),
    Point("publishing: before", "streamlearn.prequential:Prequential.publish", "before"),
    Point("publishing: half a snapshot", "streamlearn.snapshot:write", "half"),
    Point("publishing: after", "streamlearn.snapshot:write", "after"),
    Point("checkpoint: due, nothing done", "streamlearn.prequential:Prequential.begin_checkpoint", "before", CHECKPOINTS),
    Point("checkpoint: dead letters flushed", "streamlearn.admit:DeadLetters.flush", "after", CHECKPOINTS),
    Point("checkpoint: answers flushed", "streamlearn.answers:AnswersTo.flush", "after", CHECKPOINTS),
    Point("checkpoint: its journal segment begun", "streamlearn.journal:Journal.begin", "after", CHECKPOINTS),
    Point("checkpoint: before the temporary folder", SAVE, "before", CHECKPOINTS),
    Point("checkpoint: arrays half written", "streamlearn.checkpoint:write_file", "half", range(1, 4, 2)),
    Point("checkpoint: arrays written, no manifest", "streamlearn.checkpoint:write_file", "after", range(1, 4, 2)),
    Point("checkpoint: manifest half written", "streamlearn.checkpoint:write_file", "half", range(2, 5, 2)),
    Point("checkpoint: written and synced, not renamed", "streamlearn.checkpoint:sync_folder", "after", range(1, 4, 2)),
    Point("checkpoint: renamed, folder not synced", "streamlearn.checkpoint:sync_folder", "before", range(2, 5, 2)),
    Point("checkpoint: renamed, nothing committed", SAVE, "after", CHECKPOINTS),
    Point("checkpoint: before the journal is cut", "streamlearn.journal:Journal.cut", "before", CHECKPOINTS),
    Point("checkpoint: told to the source, not committed", "streamlearn.prefetch:Prefetch._commit", "before", range(1, 30)),
    Point("checkpoint: committed", "streamlearn.prefetch:Prefetch._commit", "after", range(1, 30)),
)
RECORDS = 360
REPEATS = {"log": 4, "kafka": 3, "kafka-3": 3}
RANDOM = {"log": (3600, 60), "kafka": (3600, 80), "kafka-3": (3600, 80)}  # records and kills
SURVIVED = "the undisturbed run's bytes and answers, each record with one outcome"


def _upstream(bench: Bench, name: str, records: int, *, late: bool = False) -> Upstream:
    """The records, shared by all trials on them, as is the undisturbed run of one partition."""
    folder = bench.shared / f"{name}-{records}{'-late' * late}"
    if folder not in _UPSTREAMS:
        folder.mkdir()
        threefold = 3 if name == "kafka-3" else 1
        make = (lambda *given: stream.in_log(folder, *given[1:])) if name == "log" else stream.in_kafka
        _UPSTREAMS[folder] = make(bench, records, threefold, late)
    return _UPSTREAMS[folder]


_UPSTREAMS: dict[Path, Upstream] = {}


def killed_at(bench: Bench, point: Point) -> Outcome:
    """Killed at one point again and again, then left alone."""
    killed, recover_s, on = Counter[str](), list[float](), UPSTREAMS[:1] if bench.quick else bench.upstreams
    for name in on:
        trial = Trial(bench, _upstream(bench, name, RECORDS, late=point.late), name)
        draw = random.Random(point.name)
        for _ in range(2 if bench.quick else min(REPEATS[name], bench.most)):
            if not trial.killed_at(point, draw.choice(point.calls)):
                break  # there is nothing of it left on this stream
            killed[name] += 1
        trial.finish()
        recover_s += trial.recover_s
    assert killed, f"{point.target} was never reached"
    return Outcome(SURVIVED, killed.total(), recover_s, by=killed)


class Trial:
    """One state directory that is killed again and again."""

    def __init__(self, bench: Bench, upstream: Upstream, name: str) -> None:
        own = f"{bench.folder.name}-{name}"  # what an earlier trial told the broker is none of this one's
        self._forks = bench.forks
        self._upstream = with_group(bench, upstream, own) if "topics" in upstream.source else upstream
        self._state = bench.folder / name / "killed"
        self._state.parent.mkdir()
        self._shared = bench.shared / f"{name}-{upstream.records}" / "killed"
        self._config = reading(self._upstream, self._state)
        self._draw = random.Random(name)
        self.checked, self.decided = Checked(self._state, upstream), Journalled(self._state)
        self.recover_s: list[float] = []

    def start(self, point: Point | None = None, call: int = 0) -> Life:
        """A life, with a poll size of its own; deadly at `point`, else one that takes its time to drain."""
        made = ("patient", [PATIENCE_S]) if point is None else ("kill_at", [point.target, point.when, call])
        first = (f"benchmarks.reliability.sabotage:{made[0]}", made[1])
        return self._forks.start("run", self._config, "--set", f"source.poll_records={self._draw.randint(1, 25)}", first=first)

    def killed_at(self, point: Point, call: int) -> bool:
        """Whether a life ended there before the stream did."""
        life = self.start(point, call)
        life.until(lambda: ended(life.pid) or is_done(self._state, self._upstream), "a kill or the end", PATIENCE_S)
        if not ended(life.pid):  # drains: points of the last checkpoint are still ahead
            life.kill(15)
        code = life.wait(PATIENCE_S)
        assert code in (0, -9), life.stderr
        self.checked.after_kill()
        return code == -9

    def killed_at_random(self, *, most: int) -> None:
        """At an instant of its start in one of four lives, else 1 to `most` records further than ever before."""
        goal = self.decided() + self._draw.randint(1, most)
        began = time.monotonic()
        life = self.start()
        if self._draw.random() < 0.25:
            time.sleep(self._draw.uniform(0, 0.1))  # there is nothing to wait for: any instant will do
        else:
            life.until(lambda: self.decided() >= goal, f"record {goal}", PATIENCE_S)
            self.recover_s.append(time.monotonic() - began)
            time.sleep(self._draw.uniform(0, 0.01))
        life.kill()
        assert life.wait() == -9
        self.checked.after_kill()

    def finish(self) -> None:
        """Left alone to the end, and compared with a run that was never disturbed. Errors: AssertionError."""
        before, began = self.decided(), time.monotonic()
        life = self.start()
        if before < self._upstream.records:
            life.until(lambda: self.decided() > before, "new work", PATIENCE_S)
            self.recover_s.append(time.monotonic() - began)
        run_to_the_end(life, self._state, self._upstream)
        if "group_id" in self._upstream.source:
            assert self._upstream.committed() == self._upstream.positions, "the drain tells the broker where it is"
        assert not list((self._state / "checkpoints").glob(".*")), "nothing half written is left behind"
        check_surviving(self._state, self._straight(), self._upstream)

    def _straight(self) -> Path:
        """A state directory that was never disturbed; where order or a clock decides, one that took the same decisions."""
        alone = len(self._upstream.held) == 1 and not self._upstream.late
        straight = (self._shared if alone else self._state).with_name("straight")
        if not straight.exists():
            if not alone:
                shutil.copytree(self._state / "journal", straight / "journal")
            run_to_the_end(self._forks.start("run", reading(self._upstream, straight)), straight, self._upstream)
        return straight


def killed_at_random(bench: Bench, name: str) -> Outcome:
    """All over the life of a state directory."""
    records, kills = (600, 6) if bench.quick else RANDOM[name]
    records, kills = records * min(kills, bench.most) // kills, min(kills, bench.most)
    trial = Trial(bench, _upstream(bench, name, records), name)
    for _ in range(kills):
        trial.killed_at_random(most=records // (kills + 5))
    trial.finish()
    return Outcome(SURVIVED, kills, trial.recover_s)


def _at(point: Point) -> Callable[[Bench], Outcome]:
    return lambda bench: killed_at(bench, point)


def _random(name: str) -> Callable[[Bench], Outcome]:
    return lambda bench: killed_at_random(bench, name)


def _register() -> None:
    words = {"before": "before", "after": "after", "half": "half-way through"}
    for point in POINTS:
        made = f"SIGKILL {words[point.when]} `{point.target.partition(':')[2]}`"
        scenario("crash", point.name, produced=made)(_at(point))
    for name in UPSTREAMS:
        made = f"SIGKILL at random instants of start and work, reading {name}"
        scenario("crash", f"at random, {name}", produced=made)(_random(name))


_register()
