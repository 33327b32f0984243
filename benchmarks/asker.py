"""Asks at a steady pace from a small process of its own, and says how long each answer took.

Open loop: a question is due at its time whether or not the ones before were answered, and its latency counts from then, so
that a pause of the server is seen in full. On standard input: one line of JSON (`port`, `path`, `per_s`, `bodies`), then a
line `start`, a line `stop`, and so on; each `stop` is answered with one line of JSON, `latencies_s` and `failed`.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

CONNECTIONS = 8


class Target(NamedTuple):
    """What is asked where, and how often."""

    port: int
    path: str
    per_s: float
    bodies: Sequence[str]


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
        connection = http.client.HTTPConnection("127.0.0.1", self._target.port, timeout=30)
        while True:
            with self._lock:
                number = next(self._numbers)
            due = self._began + number / self._target.per_s
            if self._stop.wait(max(0.0, due - time.perf_counter())):
                connection.close()
                return
            self._ask(connection, self._target.bodies[number % len(self._target.bodies)], due)

    def _ask(self, connection: http.client.HTTPConnection, body: str, due: float) -> None:
        try:
            connection.request("POST", self._target.path, body)
            response = connection.getresponse()
            response.read()
            good = response.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
            good = False
        with self._lock:
            self._latencies_s.append(time.perf_counter() - due)
            self._failed += not good


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
