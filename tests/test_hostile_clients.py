"""Clients that send nonsense, too much, too slowly or only half, by raw sockets against both hosts: each has its bound."""

import json
import select
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.testbed.numbered import numbered
from benchmarks.testbed.raw_http import BODY, NONSENSE, PATIENCE_S, connected, ends, receive, request, split, status
from streamlearn.serving.connections import LINGER_S
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.service import SamplesTo, Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher, Reference

WAIT_S = 0.6
LIMITS = Settings(
    port=0, head_timeout_s=WAIT_S, body_timeout_s=WAIT_S, send_timeout_s=WAIT_S, keep_alive_s=2 * WAIT_S,
    max_body_bytes=100_000, max_head_bytes=8192, max_connections=20,
)  # fmt: skip


@pytest.fixture(scope="module", params=["follower", "in_process"])
def port(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    service = Service("digits", LIMITS, samples=SamplesTo("log", {"path": str(folder / "log.sqlite")}))
    if request.param == "follower":
        FilePublisher(folder).publish(numbered(1))
        host = Followers(service, folder=folder)
    else:
        reference = Reference()
        reference.publish(numbered(1))
        host = InProcess(service, reference)
    host.start()
    yield host.port
    host.stop(PATIENCE_S)


@pytest.fixture(autouse=True)
def _still_answers(port):
    yield
    with connected(port) as client:
        client.sendall(request())
        assert status(receive(client)) == 200, "the server does not answer after this any more"


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
def test_what_is_not_http_is_400_in_json_and_the_connection_ends(port, sent):
    with connected(port) as client:
        client.sendall(sent)
        assert status(ends(client)[1]) in {400, 404}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([b"\r\n", b":", b" ", b"GET", b"HTTP/1.1", b"\x00", b"0", b"chunked", BODY, request()[:60]]) | st.binary(max_size=9), max_size=9))  # fmt: skip  # noqa: E501
def test_no_bytes_whatever_make_the_server_fail(port, parts):
    with connected(port) as client:
        client.sendall(b"".join(parts))
        client.shutdown(socket.SHUT_WR)
        assert all(code < 500 for code, _, _ in split(ends(client)[1]))


OVERSIZED_HEADS = {
    "path": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    "a header that never ends": b"GET / HTTP/1.1\r\nx: " + b"a" * 9000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(2000)) + b"\r\n",
    "trailers": b"POST /v2/models/digits/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 2000,
    "the extension of a chunk": b"POST /v2/models/digits/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 9000,
}


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
@pytest.mark.parametrize("sent", OVERSIZED_HEADS.values(), ids=OVERSIZED_HEADS)
def test_what_is_not_body_has_a_bound(port, sent, whole):
    with connected(port) as client:
        for start in range(0, len(sent), len(sent) if whole else 1000):
            client.sendall(sent[start : start + (len(sent) if whole else 1000)])
        codes = [code for code, _, _ in split(ends(client)[1])]
    assert codes == [431]


@pytest.mark.parametrize("way", ["length", "chunks"])
def test_an_oversized_body_is_413_and_the_client_that_sends_it_all_can_read_that(port, way):
    size = LIMITS.max_body_bytes + 1
    sent = b" " * size
    if way == "chunks":
        head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        sent = head + b"%x\r\n" % size + sent + b"\r\n0\r\n\r\n"
    else:
        sent = request(sent)
    with connected(port) as client:
        client.sendall(sent)
        assert status(receive(client)) == 413
        client.sendall(request())
        assert status(receive(client)) == 200, "the connection goes on"


def test_a_body_of_single_byte_chunks_is_read_like_any_other(port):
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    body = BODY.ljust(30_000)
    with connected(port) as client:
        client.sendall(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert status(receive(client)) == 200


AROUND = {
    "whole": b"%b",
    "inputs": b'{"inputs":%b',
    "data": b'{"inputs":[{"name":"features","shape":[1,2],"datatype":"FP32","data":%b',
    "parameters": b'{"parameters":%b',
    "features": b'[{"features":%b',
}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["lists", "objects"])
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_deep_nesting_is_400(port, opening, around):
    deep = opening * (90_000 // len(opening))
    for path in ("infer", "samples"):
        with connected(port) as client:
            client.sendall(request(around.replace(b"%b", deep), f"/v2/models/digits/{path}"))
            assert status(receive(client)) == 400


def trickle(client, byte, *, every_s=WAIT_S / 10):
    """Send one byte after another until the server ends it; the seconds that took, and what it said."""
    began, said = time.monotonic(), b""
    client.settimeout(every_s)
    while time.monotonic() - began < PATIENCE_S:
        try:
            client.sendall(byte)
            chunk = client.recv(1 << 16)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
        if not chunk:
            break
        said += chunk
    return time.monotonic() - began, said


def announcing(path):
    """The head of a request whose body is still to come."""
    return request(b"", path).replace(b"content-length: 0", b"content-length: 99999")


SLOW = {
    "nothing at all": (b"", b"", 408, WAIT_S),
    "a head": (b"GET / HTTP/1.1\r\nx: ", b"a", 408, WAIT_S),
    "empty lines": (b"", b"\r\n", 408, WAIT_S),
    "a body": (announcing("/v2/models/digits/infer"), b" ", 408, WAIT_S),
    "a body that nobody reads": (announcing("/nowhere"), b" ", 404, LINGER_S),
    "empty lines after an answer": (request(), b"\r\n", 200, WAIT_S),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "then", "code", "deadline_s"), SLOW.values(), ids=SLOW)
def test_a_client_that_is_slow_is_waited_for_so_long_and_no_longer(port, sent, then, code, deadline_s):
    with connected(port) as client:
        client.sendall(sent)
        took_s, said = trickle(client, then)
    assert split(said)[0][0] == code
    assert took_s < deadline_s + LINGER_S + 2.5, "a linger, the second by which the application answers before, and the machine"


def test_a_connection_that_is_not_used_any_more_ends(port):
    with connected(port) as client:
        client.sendall(request())
        took_s, said = ends(client)
    assert status(said) == 200
    assert LIMITS.keep_alive_s - 0.1 < took_s < LIMITS.keep_alive_s + 2.0


def test_a_client_that_does_not_read_its_answers_is_let_go(port):
    """Its window stays shut; the server holds what the kernel does not take, for a while, and then resets the connection."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with client:
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", port))
        client.sendall(request(b"", "/page.js", "GET") * 1000)
        events = select.poll()
        events.register(client, 0)
        began = time.monotonic()
        assert events.poll(PATIENCE_S * 1000), "it was let go"
    assert time.monotonic() - began > WAIT_S / 2


def test_a_client_that_sends_no_more_still_gets_its_answer(port):
    with connected(port) as client:
        client.sendall(request())
        client.shutdown(socket.SHUT_WR)
        took_s, said = ends(client)
    assert status(said) == 200
    assert took_s < LIMITS.keep_alive_s


@pytest.mark.parametrize("path", ["infer", "samples"])
def test_half_a_request_is_no_request(port, path):
    with connected(port) as client:
        client.sendall(request(path=f"/v2/models/digits/{path}")[:-5])
        client.shutdown(socket.SHUT_WR)
        _, said = ends(client)
    assert split(said) == []


def test_requests_that_come_together_are_answered_in_their_order(port):
    with connected(port) as client:
        client.sendall(request(b"", "/v2/health/live", "GET") + request() + request(b"", "/nowhere", "GET") + request())
        assert [code for code, _, _ in split(receive(client, 4))] == [200, 200, 404, 200]


def test_a_client_that_would_rather_speak_http_2_is_answered(port):
    """As Java's own client asks, by default."""
    with connected(port) as client:
        client.sendall(request(connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAEAAEAAAAIAAAABAAMAAABk"))
        assert status(receive(client)) == 200


def test_connections_have_a_bound_and_the_next_ones_are_told_so(port):
    idle = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(LIMITS.max_connections)]
    try:
        with connected(port) as client:
            client.sendall(request())
            ((code, headers, body),) = split(ends(client)[1])
        assert (code, headers["retry-after"]) == (503, "1")
        assert "connections are open" in json.loads(body)["error"]
        for each in idle:
            ends(each)
    finally:
        for each in idle:
            each.close()
