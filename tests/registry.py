"""A schema registry on loopback that speaks Confluent's REST API, for tests: real HTTP, settable faults."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeRegistry:
    """Schemas by id and by subject. `fault` is what it does instead of an answer, while it is set."""

    def __init__(self) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        self.by_subject: dict[tuple[str, int], dict[str, Any]] = {}
        self.asked: list[str] = []
        self.signed: list[str | None] = []
        self.wanted: str | None = None  # Authorization header without which it answers 401
        self.fault: Any = None  # (status, body) or a function of the handler
        self.url = ""

    def add(self, number: int, schema: Any, **more: Any) -> int:
        self.by_id[number] = {"schema": json.dumps(schema), **more}
        return number

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = path.strip("/").split("/")
        if parts[:2] == ["schemas", "ids"]:
            found, code = self.by_id.get(int(parts[2])), 40403
        else:
            found, code = self.by_subject.get((parts[1], int(parts[3]))), 40402
        told = {"error_code": code, "message": "not found"} if found is None else found
        return (404 if found is None else 200), json.dumps(told).encode()


@contextlib.contextmanager
def registry() -> Iterator[FakeRegistry]:
    """Listens until the end."""
    fake = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            fake.signed.append(self.headers.get("Authorization"))
            if callable(fake.fault):
                fake.fault(self)
                return
            if fake.wanted is not None and self.headers.get("Authorization") != fake.wanted:
                status, body = 401, b'{"error_code": 401, "message": "Unauthorized"}'
            else:
                status, body = fake.fault or fake.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Never ends its answer, and never stops to send."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.01)


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Takes the question and says nothing."""
    with contextlib.suppress(OSError):
        handler.connection.settimeout(5.0)
        handler.connection.recv(1)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
