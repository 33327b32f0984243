"""Asks at a steady pace from a small program of its own, and says how long each answer took.

Open loop: a question is due at its time whether or not the ones before were answered, and its latency counts from then, so
that a pause of the server is seen in full. The program is `asker.c`, which takes less than a tenth of a core for 1,000
questions a second: who measures must leave the machine to what is measured. It runs with real-time priority where that is
permitted, so as not to be late itself. (h2load's log counts from when a question was sent, and names no connection.)
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import numpy as np

from streamlearn.records import Array

SOURCE = Path(__file__).with_suffix(".c")
CONNECTIONS = 32
_ASKED = np.dtype([("latency_s", "f8"), ("late_s", "f8"), ("good", "i8")])


class Target(NamedTuple):
    """What is asked where, and how often."""

    port: int
    path: str
    per_s: float
    bodies: Sequence[str]

    def requests(self) -> list[bytes]:
        """As they go out, one after another."""
        return [
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()
            for body in self.bodies
        ]


class Asked(NamedTuple):
    """All questions that were due between a start and a stop."""

    latencies_s: Array  # float64 [n], of failed ones too
    late_s: Array  # float64 [n]: how late the asking program itself was, which is part of the latency
    failed: int  # not answered 200 in full, within 30 s


class Asking:
    """The process that asks, for who measures. Errors: RuntimeError where there is no C compiler."""

    def __init__(self, target: Target, *, connections: int = CONNECTIONS) -> None:
        command = [_compiled(), str(target.port), str(target.per_s), str(connections)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        requests = target.requests()
        told = (struct.pack("=I", len(request)) + request for request in requests)
        self._say(struct.pack("=I", len(requests)) + b"".join(told))
        if sys.platform == "linux":
            with suppress(PermissionError):
                os.sched_setscheduler(self._process.pid, os.SCHED_FIFO, os.sched_param(1))

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Of the process that asks."""
        return self._process.pid

    def start(self) -> None:
        """Begin to ask."""
        self._say(b"b")

    def stop(self) -> Asked:
        """Stop asking, and wait for the answers to all that was due."""
        self._say(b"e")
        (number,) = struct.unpack("=q", self._read(8))
        asked = np.frombuffer(self._read(number * _ASKED.itemsize), _ASKED)
        return Asked(asked["latency_s"].copy(), asked["late_s"].copy(), int(number - asked["good"].sum()))

    def _say(self, words: bytes) -> None:
        _pipe(self._process.stdin).write(words)
        _pipe(self._process.stdin).flush()

    def _read(self, size: int) -> bytes:
        found = _pipe(self._process.stdout).read(size)
        if len(found) < size:
            raise RuntimeError(f"the program that asks ended with {self._process.wait()}")
        return found


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the process was started without its pipes")
    return pipe


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="asker-")  # goes with the process


@cache
def _compiled() -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError(f"there is no C compiler (cc), and {SOURCE.name} needs one: apt-get install gcc")
    program = Path(_folder().name) / "asker"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True)
    return str(program)
