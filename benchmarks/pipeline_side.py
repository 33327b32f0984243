"""One side of the pipeline benchmark, in a process of its own: what to run on standard input, figures on standard output."""

import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import connectors
from connectors.kafka import KafkaSource
from streamlearn import assemble, configured_learner, prefetch
from streamlearn.admit import Admission
from streamlearn.config import Config, configure
from streamlearn.drift import Drift
from streamlearn.errors import DecodeError
from streamlearn.labels import LabelMap
from streamlearn.metrics import Metrics
from streamlearn.pending import Pending
from streamlearn.prefetch import Fetched, Intake
from streamlearn.prequential import Prequential
from streamlearn.records import Batch, Json, Record
from streamlearn.snapshot import live_folder
from streamlearn.watch import LoopWatch

PART = "(part of "
"""In the name of a stage that another one contains."""
RUN = 500  # records decoded and learned together by `alone`, as many as the daemon's default poll has


class Cost(NamedTuple):
    """Seconds."""

    cpu_s: float
    wall_s: float


class Stages:
    """Seconds by stage, of the thread that ran it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, Cost] = defaultdict(lambda: Cost(0.0, 0.0))

    def copy(self) -> dict[str, Cost]:
        """What was spent so far."""
        return dict(self.spent)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens in here."""
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            before = self.spent[name]
            self.spent[name] = Cost(before.cpu_s + time.thread_time() - cpu, before.wall_s + time.perf_counter() - wall)

    def time(self, owner: Any, method: str, name: str) -> None:
        """From now on, calls of this method are counted."""
        plain = getattr(owner, method)

        def timed(*given: Any, **named: Any) -> Any:
            with self.stage(name):
                return plain(*given, **named)

        setattr(owner, method, timed)

    def time_steps(self, owner: Any, method: str, name: str) -> None:
        """The same for a generator: each step of it."""
        plain = getattr(owner, method)

        def timed(*given: Any, **named: Any) -> Iterator[Any]:
            steps = plain(*given, **named)
            while True:
                with self.stage(name):
                    step = next(steps, None)
                if step is None:
                    return
                yield step

        setattr(owner, method, timed)


class Counted:
    """Clocks at the first counted record and behind the last one."""

    def __init__(self, first: int, last: int, stages: Stages) -> None:
        self._first, self._last, self._stages = first, last, stages
        self._marks: list[tuple[int, float, float, dict[str, Cost]]] = []

    def at(self, learned: int) -> bool:
        """Note where it is; True when all was learned."""
        if (not self._marks and learned >= self._first) or learned >= self._last:
            self._marks.append((learned, time.perf_counter(), time.process_time(), self._stages.copy()))
        return learned >= self._last

    def figures(self) -> dict[str, float]:
        """Rows a second, CPU microseconds a row of the whole process."""
        (first, began, spent, _), (last, ended, spent_now, _) = self._marks[0], self._marks[1]
        rows = last - first
        return {"rows_per_s": rows / (ended - began), "cpu_us": 1e6 * (spent_now - spent) / rows}

    def stages(self) -> dict[str, list[float]]:
        """Stage → microseconds a row: of CPU, and of time that passed."""
        (first, *_, before), (last, *_, after) = self._marks[0], self._marks[1]
        zero = Cost(0.0, 0.0)
        gone = {name: (cost, before.get(name, zero)) for name, cost in after.items()}
        per_row = 1e6 / (last - first)
        return {
            name: [round(per_row * (now.cpu_s - then.cpu_s), 2), round(per_row * (now.wall_s - then.wall_s), 2)]
            for name, (now, then) in gone.items()
        }


def main() -> None:
    """Run the side that is asked for."""
    asked = json.loads(sys.stdin.read())
    config, first = configure(asked["config"]), asked["uncounted"]
    stages = Stages()
    counted = Counted(first, first + asked["records"], stages)
    if asked["side"] == "alone":
        alone(config, Path(asked["recorded"]), counted)
    else:
        if asked["side"] == "stages":
            _take_apart(stages)
        daemon(config, counted)
    found: dict[str, Json] = dict(counted.figures())
    print(json.dumps({"whole": found, "stages": counted.stages()} if asked["side"] == "stages" else found))


def alone(config: Config, recorded: Path, counted: Counted) -> None:
    """Decode and learn, on one thread, and nothing else."""
    torch.set_num_threads(1)
    learner, decoder = configured_learner.learner(config), assemble.decoder(config)
    labels, learned = LabelMap(max_labels=config.label.max_labels, known=config.label.known), 0
    with closing(connectors.open_source("file", {"path": str(recorded)})) as source:
        source.seek({})
        records: list[Record] = []
        while not source.exhausted():
            records += source.poll(RUN, 0.0)
    for start in range(0, len(records), RUN):
        run = records[start : start + RUN]
        for fetched in prefetch.decoded(run, decoder, config.input.row):
            learner.learn(_labelled(fetched, labels))
        learned += len(run)
        if counted.at(learned):
            return


def _labelled(fetched: Fetched, labels: LabelMap) -> Batch:
    return Batch.of(fetched.x, np.array([labels.row(_label(sample)) for sample in fetched.samples], np.int64))


def _label(sample: Any) -> Any:
    if isinstance(sample, DecodeError):
        raise sample
    return sample.label


def daemon(config: Config, counted: Counted) -> None:
    """All that `streamlearn run` has, until the last record was learned."""
    made = assemble.daemon(config)
    turn: Callable[[float], Any] = made.loop.turn

    def counting(wait_s: float) -> Any:
        done = turn(wait_s)
        if not made.stopping and counted.at(made.loop.tally.learned):
            made.stop()
        return done

    made.loop.turn = counting  # type: ignore[method-assign]  # the benchmark looks on
    try:
        made.run()
    finally:
        shutil.rmtree(live_folder(config.state_dir), ignore_errors=True)


def _take_apart(stages: Stages) -> None:
    """Time what the prefetch thread and the learner's thread do, in their order."""
    plain = prefetch.decoded

    def decoded(*given: Any) -> Any:
        with stages.stage("prefetch: decode"):
            return list(plain(*given))

    prefetch.decoded = decoded  # type: ignore[assignment]  # the same, timed
    stages.time(KafkaSource, "_confirm", f"prefetch: confirm topic ids {PART}poll)")
    stages.time(KafkaSource, "poll", "prefetch: poll")
    stages.time(Intake, "wait_for_room", "prefetch: wait for room")
    stages.time(Intake, "put", "prefetch: put")
    stages.time(Intake, "take", "learner: take")
    stages.time_steps(Admission, "admit", "learner: admit")
    stages.time(Pending, "answered", "learner: earlier answers")
    stages.time(Metrics, "update", "learner: score")
    stages.time(Drift, "update", "learner: drift")
    stages.time(Prequential, "begin_checkpoint", "learner: checkpoint, copy of the state")
    stages.time(Prequential, "publish", "learner: publish")
    stages.time(LoopWatch, "saw", "learner: count")
    stages.time(LoopWatch, "report", "learner: status and metrics, once a second")
    learner = configured_learner.learner

    def timed_learner(config: Config) -> Any:
        made = learner(config)
        stages.time(made, "learn", "learner: learn")
        return made

    configured_learner.learner = timed_learner


if __name__ == "__main__":
    main()
