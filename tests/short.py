"""A process that gets no more memory: `python -m tests.short LEARNER SETTINGS` prints what happened, as JSON.

Chunks of thousands of rows meet a limit of the address space, so that it is the allocator of numpy or torch that says no.
"""

import hashlib
import importlib
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn.errors import MemoryShortError
from streamlearn.learners import LEARNERS
from streamlearn.learners.exhausted import is_exhausted
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Batch
from streamlearn.shortage import Attempts

FEATURES, CHUNK = 20, 20_000


def made(name: str, settings: dict[str, Any]) -> Learner:
    """A fresh one, of a network whose layers are wide."""
    module, _, attribute = LEARNERS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    task = Task((FEATURES,), model=ModelSettings(hidden=(500,)), seed=1)
    learner: Learner = kind(kind.Settings(**{"chunk": CHUNK, **settings}), task)
    return learner


def rows(count: int, seed: int) -> Batch:
    """Normal inputs, two labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, FEATURES)).astype(np.float32)
    return Batch.of(x, (x[:, 0] > 0).astype(np.int64))


def digest(learner: Learner) -> str:
    """Of all that `restore` would need."""
    state = learner.state()
    whole = hashlib.sha256(json.dumps(state.values, sort_keys=True).encode())
    for name, array in sorted(state.arrays.items()):
        whole.update(name.encode() + array.tobytes())
    return whole.hexdigest()


def limited(room_bytes: int | None) -> None:
    """This process may hold so much more than it does, or as much as it likes."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if room_bytes is None else held + room_bytes, most))


def main(name: str, settings: str, room_bytes: int) -> None:
    """Learns with enough memory, then with too little, then with enough again."""
    short, straight = made(name, json.loads(settings)), made(name, json.loads(settings))
    attempts, chunk = Attempts(short, is_exhausted), short.chunk
    first, second = rows(chunk, 1), rows(chunk, 2)
    attempts.learn(first)
    straight.learn(first)
    before, said = digest(straight), ""
    limited(room_bytes)
    try:
        attempts.learn(second)
    except MemoryShortError as error:
        said = str(error)
    limited(None)
    after = digest(short)
    attempts.learn(second)
    straight.learn(second)
    sys.stdout.write(json.dumps({"said": said, "undone": after == before, "goes_on": digest(short) == digest(straight)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
