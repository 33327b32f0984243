"""One connection: uvicorn's HTTP/1.1, with a bound on everything that a client can send or hold back.

uvicorn itself waits for ever for the rest of a head, for a body that nobody reads any more, and for a client that does
not read its answer. Here each of these waits has a deadline, the head has a size, and the connections have a number. What is
refused is refused in the protocol's words, `{"error": …}`, as long as no other answer has begun.
"""

import asyncio
import logging
import socket
import struct
from typing import Any

import httptools
import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from streamlearn.serving.exchange import Exchange
from streamlearn.settings import Section, key

LINGER_S = 2.0  # for a client that still sends while it is refused: a reset would take the refusal away unread
RESET = struct.pack("ii", 1, 0)
FRAMING = 8  # most bytes that come for each byte of a body, as when every byte is a chunk of its own

logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else each malformed request of a stranger writes a line


class Limits(Section):
    """What one client may take."""

    max_connections: int = key(1024, "open connections of one server, above which it answers 503 and closes", ge=1)
    max_head_bytes: int = key(64 << 10, "largest request line and headers together", unit="bytes", ge=1024)
    head_timeout_s: float = key(10.0, "longest wait for the whole of a request's line and headers", unit="seconds", gt=0)
    body_timeout_s: float = key(10.0, "longest wait for the whole of a request's body", unit="seconds", gt=0)
    send_timeout_s: float = key(30.0, "longest that a client may leave an answer unread", unit="seconds", gt=0)
    keep_alive_s: float = key(75.0, "longest that a connection stays open between two requests", unit="seconds", gt=0)


class Connection(HttpToolsProtocol):
    """Made by uvicorn for each client; all is called in the server's loop."""

    def __init__(self, *, limits: Limits, **told: Any) -> None:
        super().__init__(**told)
        self._limits = limits
        self._coming: asyncio.TimerHandle | None = None  # what the client owes us
        self._unread: asyncio.TimerHandle | None = None  # what it leaves lying
        self._idle_since_s = 0.0
        self._owed: tuple[float, str] | None = None  # how long for what, until this read is gone through
        self._running: RequestResponseCycle | None = None
        self._in_read = False
        self._in_message = self._in_body = self._refused = False
        self._read = self._received = self._body = self._head = 0  # bytes: of this read, of this message, of its two parts

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(503, f"overloaded: {self._limits.max_connections} connections are open")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._received_all()
        self._cancel_unread()
        self._unset_keepalive_if_required()
        if self._running is not None:  # uvicorn tells the last one that came in alone
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._in_read = True  # what comes in it whole needs no clock
        if not self._in_message and self._coming is None:
            self._await_head()
        self._read = 0 if self._in_message else len(data)
        self._received += len(data)
        self._feed(data)
        self._in_read = False
        if self._owed is not None:
            self._expect(*self._owed)
        if self._in_message and self._received > self._limits.max_head_bytes + FRAMING * self._body:
            self._refuse_head()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "this is not an HTTP/1.1 request")

    def _stay(self, rest: bytes) -> None:
        """A request that would rather change to another protocol is answered in this one; its body was not parsed yet."""
        if self._refused or self.parser.get_method() == b"CONNECT":
            self._refuse(400, "this is no proxy")
            return
        head = self.parser.get_method() + b" " + self.url + b" HTTP/1.1\r\n"
        kept = (b"%b: %b\r\n" % each for each in self.headers if each[0] not in {b"upgrade", b"http2-settings", b"connection"})
        self.parser = httptools.HttpRequestParser(self)
        received = self._received
        self._feed(head + b"".join(kept) + b"\r\n")
        self._received = received
        self._feed(rest)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn always closes
        """A client that sends no more may still read: what it has asked whole is answered, then the connection ends."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self.scheme == "https":
            return None
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        self._in_message, self._in_body = True, False
        self._received, self._read, self._body, self._head = self._read, 0, 0, 0  # further messages of one read begin at 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also of the trailers after a body in chunks."""
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        if self._refused or self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._in_body = True
        self._expect(self._limits.body_timeout_s + 1.0, "the body did not come")  # the application answers a second before

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused or self.parser.should_upgrade():
            return
        self._in_message = self._in_body = False
        self._received_all()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, Exchange(cycle, app, self.tasks))  # type: ignore[arg-type]  # uvicorn names each event's type

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.pause_writing()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._await_next()
        if self._in_body:
            self._expect(LINGER_S, "")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._cancel_unread()
        self._unread = self.loop.call_later(self._limits.send_timeout_s, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_unread()

    def _await_next(self) -> None:
        """One clock runs for many requests: when it is over, it looks for how long the connection has been idle."""
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_keep_alive(self._limits.keep_alive_s)

    def _await_keep_alive(self, wait_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._in_message or self._coming is not None or not self.cycle.response_complete:
            return  # what is going on has a clock of its own, or ends in another wait
        left_s = self._idle_since_s + self._limits.keep_alive_s - self.loop.time()
        if left_s > 0:
            self._await_keep_alive(left_s)
        else:
            self._abort()  # nothing is owed to it but what it did not read for all this time

    def _await_head(self) -> None:
        self._expect(self._limits.head_timeout_s, "the request line and headers did not come")

    def _count_head(self, size_bytes: int) -> None:
        self._head += size_bytes
        if self._head > self._limits.max_head_bytes:
            self._refuse_head()

    def _refuse_head(self) -> None:
        self._refuse(431, f"what comes beside the body is larger than {self._limits.max_head_bytes} bytes")

    def _expect(self, timeout_s: float, what: str) -> None:
        self._received_all()
        if self._in_read:
            self._owed = timeout_s, what
            return
        self._coming = self.loop.call_later(timeout_s, self._refuse, 408, f"{what} within {timeout_s:g} s")

    def _received_all(self) -> None:
        self._owed = None
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self, status: int, error: str) -> None:
        """Say why and close; only close where that could be taken for the answer to something else."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._received_all()
        if not self._may_answer():
            self._abort()
            return
        if self._in_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_refusal(status, error))
        self._linger()

    def _may_answer(self) -> bool:
        """Whether what goes out next would be the answer to the message that is coming in."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if not self._in_body:
            return is_answered
        return not (is_answered or self.cycle.response_started or self.pipeline)

    def _linger(self) -> None:
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._coming = self.loop.call_later(LINGER_S, self._abort)

    def _abort(self) -> None:
        """With a reset: else the kernel goes on holding what a client does not read."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


def _refusal(status: int, error: str) -> bytes:
    body = msgspec.json.encode({"error": error})
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    return STATUS_LINE[status] + head + retry + b"\r\n" + body
