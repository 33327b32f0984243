"""A client of raw sockets, for what no library would send, and what such a client may send."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from benchmarks.testbed.numbered import ALL

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""
PATIENCE_S = 20.0  # far beyond every deadline of the server
BODY = json.dumps(ALL).encode()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection to a server on this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        yield client


def request(body: bytes = BODY, path: str = "/v2/models/digits/infer", method: str = "POST", **headers: str) -> bytes:
    """One request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def receive(client: socket.socket, answers: int = 1) -> bytes:
    """Everything up to the end of that many answers, or of the connection."""
    data = b""
    while len(split(data)) < answers:
        try:
            chunk = client.recv(1 << 20)
        except ConnectionResetError:
            break
        if not chunk:
            break
        data += chunk
    return data


def split(data: bytes) -> list[Answer]:
    """Whole answers in what came."""
    found: list[Answer] = []
    while b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers["content-length"])
        if len(data) < size:
            break
        found.append((int(first.split()[1]), headers, data[:size]))
        data = data[size:]
    return found


def status(data: bytes) -> int:
    """Of the one answer in it, which says what is wrong where it is not 200. Errors: AssertionError."""
    ((code, _, body),) = split(data)
    if code != 200:
        assert set(json.loads(body)) == {"error"}
    return code


def ends(client: socket.socket) -> tuple[float, bytes]:
    """Seconds until the server ends the connection, and what it said before."""
    began, said = time.monotonic(), b""
    while True:
        try:
            chunk = client.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return time.monotonic() - began, said
        said += chunk


NONSENSE = {
    "noise": b"\x00\xff\xfe\x01" * 10 + b"\r\n\r\n",
    "a TLS greeting": bytes.fromhex("1603010200010001fc0303") + b"\x11" * 64,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "no such version": b"GET / HTTP/9.9\r\n\r\n",
    "no such method": b"EVIL / HTTP/1.1\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
    "two lengths": b"POST /v2/models/digits/infer HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n{}",
    "a negative length": b"POST /v2/models/digits/infer HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    "a length beyond numbers": b"POST /v2/models/digits/infer HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    "length and chunks": request(transfer_encoding="chunked"),
    "a chunk of no size": b"POST /v2/models/digits/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk beyond numbers": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"F" * 17 + b"\r\n",
    "a proxy's request": b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n",
    "a path that is no URL": b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
}  # fmt: skip
