"""One request of a connection and its answer, between uvicorn and the application.

uvicorn sends an answer's head and its body apart: two calls of the kernel, two packets, and a client that wakes up twice. Here
an answer whose body comes whole goes out in one piece; any other goes as uvicorn sends it.
"""

from collections.abc import Collection
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from streamlearn.serving.routes import ALONE, WHOLE, Event, Receive, Scope, Send


class Exchange:
    """Called once, by uvicorn, as the application."""

    def __init__(self, cycle: RequestResponseCycle, app: Any, in_progress: Collection[object]) -> None:
        """`in_progress` holds all requests of the server, this one among them."""
        self._cycle, self._app, self._in_progress = cycle, app, in_progress
        self._head: Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        extensions: dict[str, object] = {} if self._cycle.more_body else {WHOLE: {}}
        if len(self._in_progress) == 1:  # those that came in the same turn of the loop are among them by now
            extensions[ALONE] = {}
        scope["extensions"] = extensions
        await self._app(scope, receive, self._send)

    async def _send(self, event: Any) -> None:
        cycle, head = self._cycle, self._head
        if event["type"] == "http.response.start":
            self._head = event
            return
        self._head = None
        if head is not None and _is_whole(head, event) and cycle.scope["method"] != "HEAD":
            if cycle.flow.write_paused and not cycle.disconnected:
                await cycle.flow.drain()
            if not cycle.disconnected:
                self._send_whole(head, event["body"])
            return
        if head is not None:
            await cycle.send(head)  # type: ignore[arg-type]  # uvicorn names each event's type
        await cycle.send(event)

    def _send_whole(self, head: Event, body: bytes) -> None:
        cycle = self._cycle
        lines = [b"%b: %b\r\n" % each for each in (*cycle.default_headers, *head["headers"])]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        answer = b"".join((STATUS_LINE[head["status"]], *lines, b"\r\n"))
        if answer.count(b"\n") != len(lines) + 2 or answer.count(b"\r") != len(lines) + 2:
            raise RuntimeError("a header of the answer holds a line break")
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(answer + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _is_whole(head: Event, event: Event) -> bool:
    return not event.get("more_body") and (b"content-length", b"%d" % len(event["body"])) in head["headers"]
