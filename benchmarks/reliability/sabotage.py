"""What makes a life of the program go wrong at a named place: called in its process before it begins (`forks.start(first=…)`).

The program itself knows nothing of this: functions of its modules are replaced from outside by ones that call them, and end
the process by SIGKILL before, after, or half-way through one of the calls.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from streamlearn.daemon import Deadlines

When = Literal["before", "after", "half"]


def kill_at(target: str, when: When, call: int) -> None:
    """The process ends at so many calls of `target`, `"module:name"` or `"module:Class.name"`."""
    _replace(target, lambda each: _deadly(each, target, when, call))


def patient(seconds: float) -> None:
    """A drain has so much time for its last word to the source: on a busy machine the usual 5 s may be too few."""
    init: Any = Deadlines.__init__
    init.__defaults__ = (seconds, *init.__defaults__[1:])


def jump_clocks(seed: int) -> None:
    """The wall clock jumps by up to a day, forth and back, whenever it is asked; the monotonic clock is left alone."""
    draw, now, now_ns = random.Random(seed), time.time, time.time_ns

    def jump_s() -> int:
        return draw.randint(-86_400, 86_400)

    time.time = lambda: now() + jump_s()
    time.time_ns = lambda: now_ns() + jump_s() * 1_000_000_000


def short_of_memory(target: str, most: int, poison: float) -> None:
    """`target`, a learner's `learn`, gets no memory for more than `most` rows, nor where a first feature is `poison`.

    It says so when it has learned already: what it has changed by then must not stay.
    """
    _replace(target, lambda learn: _narrow(learn, most, poison))


def _narrow(learn: Callable[..., Any], most: int, poison: float) -> Callable[..., Any]:
    def narrow(learner: Any, batch: Any) -> Any:
        report = learn(learner, batch)
        if len(batch) > most or (batch.x[:, 0] == np.float32(poison)).any():
            raise MemoryError(f"no room for {len(batch)} rows")
        return report

    return narrow


def _deadly(called: Callable[..., Any], target: str, when: When, at: int) -> Callable[..., Any]:
    calls = count(1)

    def deadly(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == at
        if last and when == "half":
            HALVES[target](*arguments, **named)
            _end()
        if last and when == "before":
            _end()
        result = called(*arguments, **named)
        if last:
            _end()
        return result

    return deadly


def _replace(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *holders, name = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder)
    kept = vars(owner)[name]
    wrapped = wrap(kept.__func__ if isinstance(kept, staticmethod) else kept)
    setattr(owner, name, staticmethod(wrapped) if isinstance(kept, staticmethod) else wrapped)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _half_a_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])


def _half_an_entry(journal: Any, kind: str, **values: Any) -> None:
    line = msgspec.json.encode({"kind": kind, **values})
    journal._file.write(line[: len(line) // 2])


def _half_a_snapshot(_: Any, folder: Path) -> None:
    (folder / ".snapshot.safetensors.tmp").write_bytes(b"\x08\0\0")


HALVES: dict[str, Callable[..., None]] = {
    "streamlearn.checkpoint:write_file": _half_a_file,
    "streamlearn.journal:Journal.write": _half_an_entry,
    "streamlearn.snapshot:write": _half_a_snapshot,
}
