"""One run of the rotations through the whole program: records to Kafka, the daemon as a process, answers over HTTP."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.asker import Asking, Target
from benchmarks.images import Images, Task, angles, asked, stream, turned
from benchmarks.plan import CHUNK, Plan, Run
from benchmarks.process import Daemon, cpu_s, memory
from benchmarks.questions import Questions, json_body
from benchmarks.topic import Topic
from connectors import open_sink
from streamlearn.decode import tensors
from streamlearn.records import Array, Json, Message

MODEL = "rotations"
BATCH = 1000  # rows of one request of a test
JSON_ROWS = 100  # of each task are asked a second time as JSON


class Bench:
    """Runs of one plan on one broker."""

    def __init__(self, plan: Plan, source: Images, address: str, folder: Path) -> None:
        self._plan, self._source, self._address, self._folder = plan, source, address, folder
        self._rows = asked(source, plan.tests)
        self._turned = [turned(source.x_test, degrees) for degrees in angles(plan.tasks)]

    def warm(self) -> float:
        """Seconds of a short replay before anything is measured: where a kernel has to be compiled, that is done here, once."""
        topic = "warm"
        daemon = Daemon(self._config(topic, 0), self._folder / topic)
        task = stream(self._source, tasks=1, samples=5 * CHUNK, seed=0)[0]
        began = time.perf_counter()
        self._replayed(daemon, topic, [encoded(task, first=0)])
        return time.perf_counter() - began

    def run(self, seed: int, *, kill: bool = False, replay: bool = False) -> Run:
        """The whole stream. With `kill`, the daemon is killed in the middle, and only the last tests are made."""
        plan, name = self._plan, f"seed-{seed}" + ("-killed" if kill else "")
        run = Run(seed=seed, matrix=np.full((plan.tasks, plan.tasks), np.nan))
        tasks = stream(self._source, tasks=plan.tasks, samples=plan.samples, seed=seed)
        messages = [encoded(task, first=t * plan.samples) for t, task in enumerate(tasks)]
        with closing(Topic(self._address, f"{MODEL}-{name}-{os.getpid()}")) as topic:
            with Daemon(self._config(topic.name, seed), self._folder / name) as daemon:
                for t, of_task in enumerate(messages):
                    if kill and t == plan.tasks // 2:
                        self._learn_killed(t, of_task, topic, daemon, run)
                    else:
                        self._learn(t, of_task, topic, daemon, run)
                    if not kill:
                        self._test(t, daemon, run)
                    run.memory.append((memory(daemon.pid), memory(daemon.followers()[0])))
                    say(f"{name}: task {t + 1} of {plan.tasks}{_told(run, t)}")
                self._end(daemon, run)
            if replay:
                run.replayed = self._replayed(daemon, topic.name, messages)
        return run

    def _config(self, topic: str, seed: int) -> dict[str, Json]:
        return {
            "name": MODEL,
            "seed": seed,
            "source": {"type": "kafka", "bootstrap_servers": self._address, "topics": [topic]},
            "input": {"shape": list(self._source.x_test.shape[1:]), "transform": {"kind": "scale", "factor": 1 / 255}},
            "decode": {"format": "tensor"},
            "label": {"type": "integer", "max_labels": 10, "known": list(range(10))},
            "model": {"name": "mlp", "hidden": [100, 100]},
            "learner": dict(self._plan.learner),
            "checkpoint": {"every_records": self._plan.samples},
        }

    def _learn(self, t: int, messages: Sequence[Message], topic: Topic, daemon: Daemon, run: Run) -> None:
        """Until the task's last record is in the served snapshot, with questions all the while."""
        with (
            Questions(daemon.port, MODEL) as questions,
            Asking(_target(daemon.port, self._plan.per_s, self._tests(0))) as asking,
        ):
            asking.start()
            began, spent_s = time.perf_counter(), cpu_s(daemon.pid)
            topic.produce(messages)
            questions.wait_for(self._number(t + 1), within_s=self._plan.within_s)
            run.task_s.append(time.perf_counter() - began)
            run.cpu_s.append(cpu_s(daemon.pid) - spent_s)
            told = asking.stop()
            run.latencies_s += told.latencies_s.tolist()
            run.failed_requests += told.failed

    def _learn_killed(self, t: int, messages: Sequence[Message], topic: Topic, daemon: Daemon, run: Run) -> None:
        """The same, but with half of it served and not yet saved the daemon is killed, and started again."""
        half = len(messages) // 2
        with Questions(daemon.port, MODEL) as questions:
            topic.produce(messages[:half])
            number = questions.wait_for(self._number(t) + half // CHUNK, within_s=self._plan.within_s)
            topic.produce(messages[half:])
        daemon.kill()
        run.killed = {"served": number, "restored": daemon.inspected()["number"]}
        daemon.start()
        with Questions(daemon.port, MODEL) as questions:
            questions.wait_for(self._number(t + 1), within_s=self._plan.within_s)

    def _number(self, tasks: int) -> int:
        """Of the snapshot that has learned so many tasks."""
        return tasks * self._plan.samples // CHUNK

    def _tests(self, task: int) -> Array:
        chosen: Array = self._turned[task][self._rows]
        return chosen

    def _test(self, t: int, daemon: Daemon, run: Run) -> None:
        with Questions(daemon.port, MODEL) as questions:
            for u in range(self._plan.tasks):
                hits = answered(questions, self._tests(u), number=self._number(t + 1)) == self._source.y_test[self._rows]
                run.matrix[t, u] = 100 * hits.mean()

    def _end(self, daemon: Daemon, run: Run) -> None:
        """The last tests, an idle spell, what the daemon counted, and a drain."""
        number = self._number(self._plan.tasks)
        with Questions(daemon.port, MODEL) as questions:
            for x in self._turned:
                labels = answered(questions, x, number=number)
                run.final.append(float(100 * (labels == self._source.y_test).mean()))
                if (labels[:JSON_ROWS] != questions.ask(x[:JSON_ROWS], binary=False).labels).any():
                    raise AssertionError("the same rows were answered differently as JSON and as bytes")
        run.idle_cpu = _idle([daemon.pid, daemon.followers()[0]], self._plan.idle_s)
        run.metrics = daemon.metrics()
        run.accuracy = json.loads((daemon.state_dir / "status.json").read_text())["accuracy"]
        run.exit_code = daemon.stop()
        run.checkpoint = daemon.inspected()
        run.kernel = daemon.manifest(run.checkpoint["checkpoint"])["values"]["learner"]["kernel"]["name"]

    def _replayed(self, daemon: Daemon, name: str, messages: Sequence[Sequence[Message]]) -> dict[str, Json]:
        path = self._folder / f"{name}.messages"  # so named, its partition is called as the topic's
        with closing(open_sink("file", {"path": str(path)})) as sink:
            for of_task in messages:
                sink.write(of_task)
        return daemon.replayed(path)


def _target(port: int, per_s: float, x: Array) -> Target:
    bodies = [json_body(x[i : i + 1]).decode() for i in range(min(64, len(x)))]
    return Target(port, f"/v2/models/{MODEL}/infer", per_s, bodies)


def encoded(task: Task, *, first: int) -> list[Message]:
    """Tensor records; a record's time is its number in the stream, so that nothing learned depends on a clock."""
    made = [tensors.encode(x, int(y), time_ms=first + i) for i, (x, y) in enumerate(zip(task.x, task.y, strict=True))]
    return [message._replace(time_ms=None) for message in made]  # the topic's own time is now: retention goes by it


def answered(questions: Questions, x: Array, *, number: int) -> Array:
    """Labels of all rows, in batches, every one of them given by snapshot `number`. Errors: AssertionError by another one."""
    labels = []
    for start in range(0, len(x), BATCH):
        answers = questions.ask(x[start : start + BATCH])
        if answers.number != number:
            raise AssertionError(f"snapshot {answers.number} answered: expected {number}")
        labels.append(answers.labels)
    return np.concatenate(labels)


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


def _told(run: Run, t: int) -> str:
    seconds = f", {run.task_s[-1]:.2f} s" if run.killed is None else ""
    return seconds + (f", {run.matrix[t, : t + 1].mean():.1f} % on tasks so far" if np.isfinite(run.matrix[t, 0]) else "")


def _idle(pids: Sequence[int], seconds: float) -> tuple[float, float]:
    """Share of one core that each process takes while nothing comes."""
    before = [cpu_s(pid) for pid in pids]
    time.sleep(seconds)
    learner, follower = ((cpu_s(pid) - spent) / seconds for pid, spent in zip(pids, before, strict=True))
    return learner, follower
