"""What clients can do to a server: a follower process of its own, attacked over sockets on loopback.

The snapshots say their number in every part of an answer (`benchmarks/testbed/numbered.py`), so that a mixed one would be seen.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import httpx

from benchmarks.reliability.bench import Bench
from benchmarks.reliability.table import Outcome, scenario
from benchmarks.testbed.numbered import ALL, INFER, assert_of_one_snapshot, numbered
from benchmarks.testbed.overload import BOUND, ROWS, alone, offered, offered_s
from benchmarks.testbed.raw_http import NONSENSE, connected, ends, receive, request, split, status
from streamlearn.serving.hosts import Followers
from streamlearn.serving.service import Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher

TIMEOUT_S = 60.0


@contextlib.contextmanager
def _follower(bench: Bench, *, count: int = 1, **limits: float) -> Iterator[Followers]:
    FilePublisher(bench.folder).publish(numbered(1))
    running = Followers(Service("digits", Settings.model_validate({"port": 0, **limits})), folder=bench.folder, count=count)
    running.start()
    try:
        httpx.get(f"http://127.0.0.1:{running.port}/v2/health/live", timeout=TIMEOUT_S)
        yield running
    finally:
        running.stop(TIMEOUT_S)


@scenario(
    "serving", "requests that are not HTTP", produced="hand-made nonsense, then random bytes, each on a connection of its own"
)
def nonsense(bench: Bench) -> Outcome:
    """Refused or ended, never 500, and the next request is answered."""
    draw = random.Random(0)
    noise = [draw.randbytes(draw.randint(1, 400)) for _ in range(20 if bench.quick else 2000)]
    with _follower(bench) as running:
        for sent in [*NONSENSE.values(), *noise]:
            with connected(running.port) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                codes = [code for code, _, _ in split(ends(client)[1])]
            assert all(code < 500 for code in codes), f"{sent[:60]!r} was answered {codes}"
        _answers(running.port)
        assert running.restarts == 0
    return Outcome("each refused or ended; the same process answered afterwards", runs=len(NONSENSE) + len(noise))


@scenario("serving", "slow clients", produced="connections that send a byte of a head every 0.2 s, while another client asks")
def slow(bench: Bench) -> Outcome:
    """They are let go at the deadline; in the meantime nobody else notices."""
    count, asked, limit_s = (10, 20, 1.0) if bench.quick else (300, 300, 3.0)
    with _follower(bench, head_timeout_s=limit_s) as running, contextlib.ExitStack() as held:
        clients = [held.enter_context(connected(running.port)) for _ in range(count)]
        for each in clients:
            each.sendall(b"GET / HTTP/1.1\r\nx: ")
        held_s: list[float] = []
        trickling = threading.Thread(target=_trickle, args=(clients, held_s))
        trickling.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=TIMEOUT_S) as client:
            for _ in range(asked):
                assert_of_one_snapshot(client.post(INFER, json=ALL))
        trickling.join()
    assert len(held_s) == count, f"{count - len(held_s)} were held beyond {TIMEOUT_S:g} s"
    text = f"each let go, the last after {max(held_s):.1f} s (its bound {limit_s:g} s)"
    return Outcome(f"{text}; {asked:,} of {asked:,} other questions answered", runs=count)


def _trickle(clients: list[socket.socket], held_s: list[float]) -> None:
    """Another byte from each that is still held, again and again; notes how long each was."""
    began, left = time.monotonic(), list(clients)
    while left and time.monotonic() - began < TIMEOUT_S:
        time.sleep(0.2)  # the pace is what this is about
        gone = [client for client in left if _is_let_go(client)]
        held_s += [time.monotonic() - began] * len(gone)
        left = [client for client in left if client not in gone]


def _is_let_go(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        client.send(b"a")
        while client.recv(1 << 16):  # why it is refused stands before the end
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@scenario("serving", "a new snapshot ten times a second", produced="8 clients in a closed loop, 2 follower processes")
def changing(bench: Bench) -> Outcome:
    """No request fails, no answer mixes two snapshots, nobody goes back."""
    versions: list[list[int]] = [[] for _ in range(8)]
    with _follower(bench, count=2) as running:
        end = time.monotonic() + (1.0 if bench.quick else 30.0)
        asking = [threading.Thread(target=_asks, args=(running.port, seen, end)) for seen in versions]
        for thread in asking:
            thread.start()
        publisher, number = FilePublisher(bench.folder), 1
        while time.monotonic() < end:
            time.sleep(0.1)  # the pace is what this is about
            number += 1
            publisher.publish(numbered(number))
        for thread in asking:
            thread.join()
    assert all(seen and seen == sorted(seen) and seen[-1] > 0 for seen in versions), "a request failed, or a version went back"
    answers = sum(map(len, versions))
    return Outcome(f"0 of {answers:,} requests failed, each answer of one snapshot", runs=number - 1)


def _asks(port: int, seen: list[int], end: float) -> None:
    """Versions of the answers; one of -1 at the end when a request failed."""
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as client:
            while time.monotonic() < end:
                seen.append(assert_of_one_snapshot(client.post(INFER, json=ALL)))
    except (AssertionError, httpx.HTTPError):
        seen.append(-1)


@scenario("serving", "five times more than it can do", produced="open loop, every request a connection of its own")
def overloaded(bench: Bench) -> Outcome:
    """Refused at once with 503 and Retry-After, and the rest answered in time."""
    with _follower(bench, max_in_progress=BOUND, max_rows=ROWS) as running:
        each_s = asyncio.run(alone(running.port))
        answers = asyncio.run(offered(running.port, each_s))
    codes = [code for code, _, _ in answers]
    late_s = max(seconds for _, _, seconds in answers)
    assert set(codes) <= {200, 503}, f"answered {sorted(set(codes))}"
    assert late_s < offered_s(each_s), f"one waited {late_s:.2f} s, where a request takes {each_s:.2f} s alone"
    text = f"{codes.count(200)} answered, {codes.count(503)} refused, none lost; the longest wait {1000 * late_s:.0f} ms"
    return Outcome(text + f" at {1000 * each_s:.0f} ms a request", runs=len(codes))


@scenario("serving", "server process killed", produced="SIGKILL to the one follower; a new connection asks at once")
def killed(bench: Bench) -> Outcome:
    """The socket is the parent's, so it keeps the question until the next process answers."""
    seconds = []
    with _follower(bench) as running:
        for _ in range(1 if bench.quick else 5):
            (pid,) = running.pids
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            _answers(running.port)
            seconds.append(time.monotonic() - began)
            assert running.pids != [pid], "it was not killed"
    return Outcome("the question waits and is answered by the next process", runs=len(seconds), recover_s=seconds)


def _answers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
        client.sendall(request(json.dumps(ALL).encode()))
        assert status(receive(client)) == 200, "it does not answer"
