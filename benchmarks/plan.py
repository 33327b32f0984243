"""What a run of the rotations is asked to be, and what it showed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.process import Memory
from streamlearn.records import Array, Json

CHUNK = 10
PUBLISHED: Mapping[str, Json] = {
    "name": "la-maml",
    "chunk": CHUNK,
    "inner_chunks": 10,
    "inner_lr": 0.15,
    "meta_lr": 0.3,
    "glances": 5,
    "clip_norm": 2.0,
    "replay_rows": 10,
    "memory": {"rows": 200},
}
"""Settings of the authors' script for MNIST Rotations."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run."""

    tasks: int = 20
    samples: int = 1000  # of each task
    tests: int = 1000  # images of each task that are asked after each task; all of them after the last
    seeds: tuple[int, ...] = (0, 1, 2)
    per_s: float = 100.0  # questions of one row while the model learns
    idle_s: float = 10.0
    within_s: float = 600.0  # for a task to be learned
    small: bool = False
    proofs: bool = True  # also, with the first seed: a replay from a file, and a run with one `kill -9` in its middle
    learner: Mapping[str, Json] = field(default_factory=lambda: PUBLISHED)


QUICK = Plan(tasks=3, samples=100, tests=100, seeds=(0,), idle_s=1.0, within_s=60.0, small=True)


@dataclass(kw_only=True)
class Run:
    """What one run showed."""

    seed: int
    matrix: Array  # [tasks, tasks]: after task t, accuracy on task u, per cent; NaN where it was not asked
    final: list[float] = field(default_factory=list)  # by task, on all test images
    task_s: list[float] = field(default_factory=list)  # by task, first record produced to last one served
    cpu_s: list[float] = field(default_factory=list)  # by task, processor time of the learner's process in that span
    latencies_s: list[float] = field(default_factory=list)
    failed_requests: int = 0
    memory: list[tuple[Memory, Memory]] = field(default_factory=list)  # learner and follower after each task
    idle_cpu: tuple[float, float] | None = None  # learner and follower, share of one core
    metrics: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Json] = field(default_factory=dict)  # prequential, of status.json
    kernel: str = ""  # what the learner computed with
    exit_code: int = -1
    checkpoint: Mapping[str, Any] = field(default_factory=dict)  # `streamlearn inspect` after the drain
    killed: Mapping[str, int] | None = None  # at which number, and from which it went on
    replayed: Mapping[str, Any] | None = None  # what `streamlearn replay` said of the same records
