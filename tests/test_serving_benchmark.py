"""The benchmark of answers while it learns: one small run, who asks, and the page."""

import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest

from benchmarks import serving
from benchmarks.asker import Asking, Target
from benchmarks.rival import fixed_program
from benchmarks.serving_report import DESIGNS, page

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 4\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nnope"
asks = pytest.mark.skipif(shutil.which("cc") is None, reason="who asks is compiled, and there is no cc here")


class Server:
    """Answers each request by what `answer` says to its number, piece by piece; None ends the connection."""

    def __init__(self, answer):
        self.asked, self.connections = [], 0
        self._answer, self._lock = answer, threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def asking(self, per_s, *, bodies=("one", "twö"), connections=8):
        target = Target(self._listening.getsockname()[1], "/v2/models/m/infer", per_s, bodies)
        return Asking(target, connections=connections)

    def _serve(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve_one, args=(client,)))
            self._threads[-1].start()

    def _serve_one(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            while request := client.recv(1 << 20):
                with self._lock:
                    self.asked.append(request)
                    pieces = self._answer(len(self.asked) - 1)
                if pieces is None:
                    return
                for piece in pieces:
                    client.sendall(piece)


def asked_until(server, asking, number, within_s=30.0):
    until = time.monotonic() + within_s
    while len(server.asked) < number:
        assert time.monotonic() < until
        time.sleep(0.001)
    return asking.stop()


@asks
def test_an_answer_counts_when_it_is_200_and_whole_and_a_lost_connection_is_replaced():
    answers = [
        [OK + b"true"],
        [OK[:20], OK[20:], b"tr", b"ue"],
        [REFUSED],
        None,
        [OK + b"true"],
        [b"HTTP/1.1 200 OK\r\n\r\n"],
        [OK + b"true, and more"],
        [OK + b"true"],
    ]
    with Server(lambda number: answers[number % len(answers)]) as server, server.asking(200.0, connections=1) as asking:
        asking.start()
        told = asked_until(server, asking, 8)
        assert len(told.latencies_s) == len(server.asked)
        assert told.failed == sum(number % 8 in (2, 3, 5, 6) for number in range(len(server.asked)))
        assert server.connections >= 5
        assert server.asked[0].startswith(b"POST /v2/models/m/infer HTTP/1.1\r\n")
        assert server.asked[1].endswith(b"Content-Length: 4\r\n\r\ntw\xc3\xb6")
        assert server.asked[2].endswith(b"Content-Length: 3\r\n\r\none")


@asks
def test_questions_keep_their_pace_and_each_start_begins_anew():
    with Server(lambda _: [OK + b"true"]) as server, server.asking(500.0) as asking:
        for all_before in (0, 250):
            began = time.monotonic()
            asking.start()
            time.sleep(0.5)
            told = asking.stop()
            took = time.monotonic() - began
            assert 250 <= len(told.latencies_s) <= 500 * took + 1
            assert len(server.asked) >= all_before + len(told.latencies_s)
            assert told.failed == 0
            assert (told.latencies_s > 0).all()
            assert (told.late_s >= 0).all()


@asks
def test_while_the_server_pauses_questions_stay_due_and_their_latency_counts_from_then():
    """Of the questions due while it pauses for P, the one due t after its beginning waits P − t."""
    pause_s, per_s = 0.5, 200.0

    def answer(number):
        if number == 40:
            time.sleep(pause_s)
        return [OK + b"true"]

    with Server(answer) as server, server.asking(per_s, connections=4) as asking:
        asking.start()
        told = asked_until(server, asking, 40 + int(per_s * pause_s) + 20)
    waited = told.latencies_s[40 : 40 + int(0.9 * pause_s * per_s)]
    expected = pause_s - np.arange(len(waited)) / per_s
    assert (waited >= expected - 0.01).all()
    assert told.failed == 0


@asks
def test_what_is_due_at_the_end_is_still_answered():
    slow_s = 0.02
    with (
        Server(lambda _: time.sleep(slow_s) or [OK + b"true"]) as server,
        server.asking(200.0, connections=1) as asking,
    ):
        asking.start()
        time.sleep(0.5)
        told = asking.stop()
        assert len(told.latencies_s) >= 100
        assert told.failed == 0
        assert len(server.asked) == len(told.latencies_s)
        assert told.latencies_s[-1] > 0.5, "the last of 100 waits for those before it, 20 ms each"


@asks
def test_where_nobody_listens_every_question_fails():
    with Server(lambda _: None) as server:
        asking = server.asking(100.0)
    with asking:
        asking.start()
        time.sleep(0.3)
        told = asking.stop()
    assert told.failed == len(told.latencies_s) >= 30


def test_without_a_compiler_it_says_what_is_missing(monkeypatch, tmp_path):
    from benchmarks import asker  # noqa: PLC0415  its cache is set aside here

    asker._compiled.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no C compiler"):
        Asking(Target(1, "/", 1.0, ["{}"]))


@asks
def test_a_small_run_measures_the_answers_and_the_learner_and_writes_the_page(tmp_path, capsys):
    results = tmp_path / "serving.json"
    told = ["--rounds", "1", "--seconds", "1.5", "--rates", "20", "--designs", "followed", "--results", str(results)]
    assert serving.main(told) == 0
    cell = json.loads(results.read_text())["runs"]["followed/20/0"]
    assert cell["asked"] >= 20
    assert cell["failed"] == 0
    assert 0 < cell["p50_ms"] <= cell["p99_ms"] <= cell["p99.9_ms"]
    assert cell["learner_ratio"] > 0
    assert cell["server_cores"] > 0
    assert cell["asker_cores"] < 0.1
    assert f"| {DESIGNS['followed'].text} | 20 | 1 | " in results.with_suffix(".md").read_text()


def test_the_page_tells_medians_and_spread():
    cells = [
        {"p50_ms": p, "p99_ms": 2 * p, "p99.9_ms": 3 * p, "asked": 100, "failed": 1, "learner_ratio": None, "server_cores": 0.2}
        | {"other_cores": 0.1, "stolen_cores": 0.03, "asker_cores": p / 100, "late_p99_ms": p / 10}
        for p in (1.0, 4.0, 2.0)
    ]
    told = page({f"mlserver/500/{i}": cell for i, cell in enumerate(cells)}, {"python": "3"})
    row = "| 500 | 3 | 2.00 (1.00 – 4.00) | 4.00 (2.00 – 8.00) | 6.00 (3.00 – 12.00) | 3 of 300 | – | 0.20 (0.20 – 0.20) |"
    row += " 0.10 (0.10 – 0.10) | 0.03 (0.03 – 0.03) |"
    assert DESIGNS["mlserver"].text in told
    assert row in told
    assert "took 0.02 (0.01 – 0.04) cores, and its p99 of being late itself was 0.20 (0.10 – 0.40) ms" in told


def test_the_page_says_whether_the_goal_is_reached_and_what_of_it_is_out_of_reach():
    cell = {
        "p50_ms": 0.3,
        "p99.9_ms": 3.0,
        "asked": 9,
        "failed": 0,
        "server_cores": 0.2,
        "asker_cores": 0.1,
        "late_p99_ms": 0.1,
    }
    cell |= {"stolen_cores": 0.02, "other_cores": 0.25}
    runs = {
        "idle/1000/0": cell | {"p99_ms": 0.5, "learner_ratio": None},
        "followed/1000/0": cell | {"p99_ms": 0.9, "learner_ratio": 0.94},
        "followed/1000/1": cell | {"p99_ms": 1.1, "learner_ratio": 0.92},
    }
    told = page(runs, {})
    assert "of which 0.25 were taken by others here and 0.020 by the machine's host: p99 at most 1 ms: 1.00, met" in told
    assert "idle learner: 2.0 times, met; learner ratio at least 0.95: 0.93, not met.\n" in told
    fixed = {
        "fixed/1000/0": cell | {"p99_ms": 0.4, "learner_ratio": None},
        "fixed-beside/1000/0": cell | {"p99_ms": 0.8, "learner_ratio": 0.97},
    }
    told = page(runs | fixed, {})
    assert "p99 of 0.40 ms with nothing beside it (the server beside an idle learner: 0.50)" in told
    assert "of 0.80 ms beside the learner at full speed (the server: 1.00); the learner then has a ratio of 0.97" in told
    assert "**Goal**" not in page({name: each for name, each in runs.items() if "idle" in name}, {})


@asks
@pytest.mark.skipif(fixed_program() is None, reason="the fixed answer is nginx's (apt-get install nginx-light)")
def test_nginx_with_a_fixed_answer_is_asked_alone_and_beside_the_learner(tmp_path):
    results = tmp_path / "serving.json"
    told = [
        "--rounds",
        "1",
        "--seconds",
        "2.5",
        "--rates",
        "50",
        "--designs",
        "fixed",
        "fixed-beside",
        "--results",
        str(results),
    ]
    assert serving.main(told) == 0
    alone, beside = (json.loads(results.read_text())["runs"][f"{name}/50/0"] for name in ("fixed", "fixed-beside"))
    assert alone["failed"] == beside["failed"] == 0
    assert alone["asked"] >= 100
    assert alone["learner_ratio"] is None
    assert beside["learner_ratio"] > 0
    assert alone["server_cores"] < 0.1
