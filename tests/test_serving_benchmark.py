"""The benchmark of answers while it learns: one small run, who asks, and the page."""

import json
import socket
import threading

import pytest

from benchmarks import serving
from benchmarks.asker import Connection, Target
from benchmarks.serving_report import DESIGNS, page

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 4\r\n\r\n"


@pytest.fixture
def server():
    """Answers each request with the next of `answers`, piece by piece; None ends the connection."""
    listening, answers = socket.create_server(("127.0.0.1", 0)), list[list[bytes] | None]()
    asked = []

    def serve():
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                while answers and (request := client.recv(1 << 16)):
                    asked.append(request)
                    if (pieces := answers.pop(0)) is None:
                        break
                    for piece in pieces:
                        client.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1], answers, asked
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_an_answer_counts_when_it_is_200_and_whole_and_a_lost_connection_is_replaced(server):
    port, answers, asked = server
    refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nnope"
    answers += [[OK + b"true"], [OK[:20], OK[20:], b"tr", b"ue"], [refused], None, [OK + b"true"], [b"HTTP/1.1 200 OK\r\n\r\n"]]
    connection = Connection(Target(port, "/v2/models/m/infer", 1.0, ["one", "twö"]))
    assert [connection.ask(number) for number in range(6)] == [True, True, False, False, True, False]
    connection.close()
    assert asked[1].startswith(b"POST /v2/models/m/infer HTTP/1.1\r\n")
    assert asked[1].endswith(b"Content-Length: 4\r\n\r\ntw\xc3\xb6")


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
    assert f"| {DESIGNS['followed'].text} | 20 | 1 | " in results.with_suffix(".md").read_text()


def test_the_page_tells_medians_and_spread():
    cells = [
        {"p50_ms": p, "p99_ms": 2 * p, "p99.9_ms": 3 * p, "asked": 100, "failed": 1, "learner_ratio": None, "server_cores": 0.2}
        for p in (1.0, 4.0, 2.0)
    ]
    told = page({f"mlserver/500/{i}": cell for i, cell in enumerate(cells)}, {"python": "3"})
    row = "| 500 | 3 | 2.00 (1.00 – 4.00) | 4.00 (2.00 – 8.00) | 6.00 (3.00 – 12.00) | 3 of 300 | – | 0.20 (0.20 – 0.20) |"
    assert DESIGNS["mlserver"].text in told
    assert row in told
