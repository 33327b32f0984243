"""Asks at a steady pace from a small process of its own, and says how long each answer took.

Open loop: a question is due at its time whether or not the ones before were answered, and its latency counts from then, so
that a pause of the server is seen in full. On standard input: one line of JSON (`port`, `path`, `per_s`, `bodies`), then a
line `start`, a line `stop`, and so on; each `stop` is answered with one line of JSON, `latencies_s` and `failed`.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import IO, Any, NamedTuple

CONNECTIONS = 8


class Target(NamedTuple):
    """What is asked where, and how often."""

    port: int
    path: str
    per_s: float
    bodies: Sequence[str]


class Asking:
    """The process that asks, for who measures."""

    def __init__(self, target: Target) -> None:
        command = [sys.executable, "-m", "benchmarks.asker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(target._asdict()))

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def start(self) -> None:
        """Begin to ask."""
        self._say("start")

    def stop(self) -> dict[str, Any]:
        """Stop asking: `latencies_s` and `failed` since the start."""
        self._say("stop")
        told: dict[str, Any] = json.loads(_pipe(self._process.stdout).readline())
        return told

    def _say(self, line: str) -> None:
        _pipe(self._process.stdin).write(line + "\n")
        _pipe(self._process.stdin).flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the process was started without its pipes")
    return pipe


class Round:
    """Questions between a start and a stop."""

    def __init__(self, target: Target) -> None:
        self._target, self._numbers = target, count()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._latencies_s: list[float] = []
        self._failed = 0
        self._began = time.perf_counter()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> dict[str, object]:
        """Let what was sent be answered, and tell."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return {"latencies_s": self._latencies_s, "failed": self._failed}

    def _ask_on(self) -> None:
        connection = Connection(self._target)
        while True:
            with self._lock:
                number = next(self._numbers)
            due = self._began + number / self._target.per_s
            if self._stop.wait(max(0.0, due - time.perf_counter())):
                connection.close()
                return
            good = connection.ask(number)
            with self._lock:
                self._latencies_s.append(time.perf_counter() - due)
                self._failed += not good


class Connection:
    """Asks by the least that HTTP takes, so that the one who measures needs little of the machine that is measured."""

    def __init__(self, target: Target) -> None:
        self._address = ("127.0.0.1", target.port)
        self._socket: socket.socket | None = None
        self._questions = [
            f"POST {target.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()
            for body in target.bodies
        ]

    def ask(self, number: int) -> bool:
        """Whether it was answered 200, in full."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=30)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(self._questions[number % len(self._questions)])
            return self._answered(self._socket)
        except (OSError, ValueError):
            self.close()
            return False

    def _answered(self, sock: socket.socket) -> bool:
        """Errors: ValueError for what is no answer of a known length."""
        read = b""
        while (ends := read.find(b"\r\n\r\n")) < 0:
            read += _more(sock)
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", read[: ends + 2])
        if length is None:
            raise ValueError("an answer without its length")
        while len(read) < ends + 4 + int(length[1]):
            read += _more(sock)
        return read.startswith(b"HTTP/1.1 200 ")

    def close(self) -> None:
        """The next question takes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _more(sock: socket.socket) -> bytes:
    if not (read := sock.recv(1 << 16)):
        raise ConnectionError("the server closed the connection")
    return read


def main() -> None:
    """Until standard input ends."""
    target = Target(**json.loads(sys.stdin.readline()))
    asking: Round | None = None
    for line in sys.stdin:
        if line.strip() == "start":
            asking = Round(target)
        elif asking is not None:
            print(json.dumps(asking.end()), flush=True)
            asking = None


if __name__ == "__main__":
    main()
