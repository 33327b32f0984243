"""Paths, requests and answers of the HTTP face, and how an answer goes out of a connection."""

import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from streamlearn.serving.connections import Connection, Limits
from streamlearn.serving.routes import ALONE, WHOLE, Headers, NotRoutedError, Request, Response, Routes


def request(method, path):
    return Request({"type": "http", "method": method, "path": path, "headers": []}, receive=None)


ROUTES = Routes(
    [
        ("GET", "/v2", "server"),
        ("GET", "/v2/", "server, too"),
        ("GET", "/v2/models/{model}", "metadata"),
        ("POST", "/v2/models/{model}/infer", "infer"),
        ("POST", "/v2/models/{model}/versions/{version}/infer", "infer a version"),
        ("GET", "/v2/models/all", "all of them"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "found", "named"),
    [
        ("GET", "/v2", "server", {}),
        ("HEAD", "/v2", "server", {}),
        ("GET", "/v2/", "server, too", {}),
        ("GET", "/v2/models/a b", "metadata", {"model": "a b"}),
        ("GET", "/v2/models/all", "all of them", {}),
        ("POST", "/v2/models/{model}/infer", "infer", {"model": "{model}"}),
        ("POST", "/v2/models/m/versions/12/infer", "infer a version", {"model": "m", "version": "12"}),
    ],
)
def test_a_path_is_found_by_its_segments(method, path, found, named):
    asked = request(method, path)
    assert ROUTES.find(asked) == found
    assert asked.named == named


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "v2",
        "/v2//",
        "/v3",
        "/v2/models",
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/m/infer/",
        "/v2/models/m/n/infer",
    ],
)
def test_a_path_that_is_none_of_them_is_404(path):
    with pytest.raises(NotRoutedError, match="no such path") as caught:
        ROUTES.find(request("POST", path))
    assert caught.value.status == 404


def test_a_method_that_a_path_has_not_is_405_and_says_which_there_are():
    for method, path, allowed in (("POST", "/v2", "GET, HEAD"), ("GET", "/v2/models/m/infer", "POST")):
        with pytest.raises(NotRoutedError, match="the method is not") as caught:
            ROUTES.find(request(method, path))
        assert (caught.value.status, caught.value.allowed) == (405, allowed)


def test_of_headers_with_one_name_the_first_counts():
    headers = Headers([(b"a", b"1"), (b"b", b"\xff"), (b"a", b"2")])
    assert (headers["a"], headers["b"], headers.get("c"), len(headers), list(headers)) == ("1", "ÿ", None, 2, ["a", "b"])
    assert "a" in headers
    assert "A" not in headers


class Transport(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self):
        super().__init__()
        self.written, self.closed = [], False

    def write(self, data):
        self.written.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def get_extra_info(self, name, default=None):
        return default

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


def exchanged(app, *reads):
    """What a connection over `app` writes, write by write, to what is read; and whether it is open then."""

    async def run():
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        state = ServerState()
        state.default_headers = [(b"date", b"now")]
        connection = Connection(limits=Limits(), config=config, server_state=state, app_state={})
        transport = Transport()
        connection.connection_made(transport)
        for read in reads:
            connection.data_received(read)
            for _ in range(10):
                await asyncio.sleep(0)
        is_open = not transport.closed
        connection.connection_lost(None)
        return transport.written, is_open

    return asyncio.run(run())


GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


async def hello(scope, receive, send):
    await Response(b"hello", media_type="text/plain", headers={"x": "y"}).send(send, (b"z", b"1"))


HEAD = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nz: 1\r\nx: y\r\n"


def test_a_whole_answer_goes_out_in_one_piece_and_the_connection_stays():
    assert exchanged(hello, GET, GET) == ([HEAD + b"\r\nhello"] * 2, True)


def test_an_answer_to_head_has_no_body_and_one_that_ends_the_connection_says_so():
    assert exchanged(hello, GET.replace(b"GET", b"HEAD")) == ([HEAD + b"\r\n"], True)
    ended = exchanged(hello, GET.replace(b"host: h", b"connection: close"))
    assert ended == ([HEAD + b"connection: close\r\n\r\nhello"], False)


def test_an_answer_in_pieces_or_without_its_length_is_framed():
    async def pieces(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hel", "more_body": True})
        await send({"type": "http.response.body", "body": b"lo"})

    async def no_length(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    for app, body in ((pieces, b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), (no_length, b"5\r\nhello\r\n0\r\n\r\n")):
        written, is_open = exchanged(app, GET)
        assert b"transfer-encoding: chunked\r\n" in written[0]
        assert (b"".join(written).partition(b"\r\n\r\n")[2], is_open) == (body, True)


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb"])
def test_a_header_with_a_line_break_never_goes_out(value):
    async def broken(scope, receive, send):
        await Response(b"hello", headers={"x": value}).send(send)

    written, is_open = exchanged(broken, GET)
    assert written[0].startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in b"".join(written)
    assert not is_open


def test_the_application_is_told_what_it_need_not_wait_for():
    told = []

    async def telling(scope, receive, send):
        told.append(set(scope["extensions"]))
        while (await receive()).get("more_body"):
            pass
        await hello(scope, receive, send)

    post = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n"
    exchanged(telling, post + b"ab", post, b"a", b"b")
    assert told == [{WHOLE, ALONE}, {ALONE}]


def test_requests_that_come_together_are_not_alone():
    told = []

    async def telling(scope, receive, send):
        told.append(ALONE in scope["extensions"])
        await hello(scope, receive, send)

    async def run():
        config = uvicorn.Config(telling, lifespan="off", ws="none", log_config=None, access_log=False)
        state = ServerState()
        connections = [Connection(limits=Limits(), config=config, server_state=state, app_state={}) for _ in range(3)]
        for connection in connections:
            connection.connection_made(Transport())
            connection.data_received(GET)
        for _ in range(10):
            await asyncio.sleep(0)
        connections[0].data_received(GET)
        await asyncio.sleep(0.01)
        for connection in connections:
            connection.connection_lost(None)

    asyncio.run(run())
    assert told == [False, False, False, True]


def test_a_connection_ends_when_it_was_idle_for_so_long_after_its_last_answer():
    async def run():
        config = uvicorn.Config(hello, lifespan="off", ws="none", log_config=None, access_log=False)
        limits = Limits(keep_alive_s=0.2)
        connection, transport = Connection(limits=limits, config=config, server_state=ServerState(), app_state={}), Transport()
        transport.abort = transport.close
        connection.connection_made(transport)
        loop, closed_s = asyncio.get_running_loop(), []
        for _ in range(4):  # each answer puts the end off
            connection.data_received(GET)
            await asyncio.sleep(0.1)
            assert not transport.closed
        last_s = loop.time() - 0.1
        while not transport.closed and loop.time() < last_s + 5:
            await asyncio.sleep(0.005)
        closed_s.append(loop.time() - last_s)
        connection.connection_lost(None)
        return closed_s[0]

    assert 0.19 < asyncio.run(run()) < 2.0
