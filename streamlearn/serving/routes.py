"""Requests, answers and paths of an ASGI application: the little of it that fixed paths need, at little cost for each request.

A path is found by its segments in a tree; `{name}` in a route stands for one segment that is not empty.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from streamlearn.serving.tensors import GONE, RequestError

Event: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]


WHOLE = "streamlearn.whole"
"""Among a scope's `extensions` when all of the request is there already: it needs no clock."""
ALONE = "streamlearn.alone"
"""Among a scope's `extensions` when the server has no other request in progress: nobody has to be let forward."""


class Response(NamedTuple):
    """An answer, whole."""

    content: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = {}

    async def send(self, send: Send, *more: tuple[bytes, bytes]) -> None:
        """With `more` headers."""
        headers = [(b"content-length", b"%d" % len(self.content)), (b"content-type", self.media_type.encode()), *more]
        headers += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.content})


class Headers(Mapping[str, str]):
    """By their names in small letters; of several with one name the first."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.encode("latin-1")
        for each, value in self._raw:
            if each == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self._raw))

    def __len__(self) -> int:
        return len({name for name, _ in self._raw})


class Request:
    """A request as it came; its body comes when it is asked for."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.named: Mapping[str, str] = {}
        """What stands in the path for each name of its route."""
        self.headers = Headers(scope["headers"])
        self._receive, self._extensions = receive, scope.get("extensions", ())

    @property
    def is_alone(self) -> bool:
        """Whether no other request was in progress when this one came; False where the server does not tell."""
        return ALONE in self._extensions

    async def body(self, *, most: int, timeout_s: float) -> bytes:
        """The whole body. Errors: RequestError when it is larger than `most` bytes, or does not come."""
        if WHOLE in self._extensions:
            return await self._body(most)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._body(most)
        except TimeoutError as error:
            raise RequestError(f"the body did not come within {timeout_s} s", status=408) from error

    async def _body(self, most: int) -> bytes:
        pieces, size, more = [], 0, True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise RequestError("the client went away before its body came", status=GONE)
            pieces.append(event.get("body", b""))
            size += len(pieces[-1])
            if size > most:
                raise RequestError(f"the body is larger than {most} bytes: send fewer rows at once", status=413)
            more = event.get("more_body", False)
        return b"".join(pieces)


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class NotRoutedError(RequestError):
    """Handled as every RequestError; with 405 it bears the methods that are there."""

    def __init__(self, message: str, *, status: int, allowed: Iterable[str] = ()) -> None:
        super().__init__(message, status=status)
        self.allowed = ", ".join(sorted(allowed))


class Routes:
    """Handlers by method and path. What answers GET answers HEAD."""

    def __init__(self, table: Iterable[tuple[str, str, Handler]]) -> None:
        self.paths: list[tuple[str, str]] = []
        """Each path with its method."""
        self._root = _Place()
        for method, path, handler in table:
            self.paths.append((path, method))
            place = self._root
            for segment in path.split("/"):
                place = place.beneath(segment)
            place.handlers |= {method: handler, "HEAD": handler} if method == "GET" else {method: handler}

    def find(self, request: Request) -> Handler:
        """What answers it; `request.named` is set. Errors: NotRoutedError, 404 or 405."""
        place: _Place | None = self._root
        named: dict[str, str] = {}
        for segment in request.path.split("/"):
            if place is None:
                break
            if (fixed := place.fixed.get(segment)) is not None:
                place = fixed
            elif segment and place.other is not None:
                named[place.name] = segment
                place = place.other
            else:
                place = None
        if place is None or not place.handlers:
            raise NotRoutedError(_told(request, "no such path; GET /v2 says what there is"), status=404)
        handler = place.handlers.get(request.method)
        if handler is None:
            raise NotRoutedError(_told(request, "the path is there, the method is not"), status=405, allowed=place.handlers)
        request.named = named
        return handler


@dataclass
class _Place:
    """What a path may go on with, and what answers where it ends."""

    fixed: dict[str, "_Place"] = field(default_factory=dict)
    name: str = ""
    other: "_Place | None" = None
    handlers: dict[str, Handler] = field(default_factory=dict)

    def beneath(self, segment: str) -> "_Place":
        if not segment.startswith("{"):
            return self.fixed.setdefault(segment, _Place())
        self.name = segment.strip("{}")
        self.other = self.other or _Place()
        return self.other


def _told(request: Request, reason: str) -> str:
    return f"{request.method} {request.path[:200]}: {reason}"
