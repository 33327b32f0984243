"""The HTTP face: Open Inference Protocol v2, samples, health, the page. One ASGI application for every host.

Runs in one thread's event loop. Each answer takes the current snapshot once, and computes without giving the loop away.
"""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from streamlearn import __version__
from streamlearn.errors import SinkError, SnapshotError
from streamlearn.records import Json, Snapshot
from streamlearn.serving import page
from streamlearn.serving.counts import Counts
from streamlearn.serving.forms import form_named
from streamlearn.serving.open_inference import RequestError, model_metadata, read_question, write_answer
from streamlearn.serving.samples import WriteSamples, read_samples
from streamlearn.serving.served import Forms, Served
from streamlearn.settings import Section, key
from streamlearn.snapshot import Current

JSON_LENGTH = "inference-header-content-length"
RETRY_AFTER = {"retry-after": "1"}

log = structlog.get_logger()


class Settings(Section):
    """How questions are answered over HTTP."""

    host: str = key("127.0.0.1", "address to listen at; beyond loopback, writing needs `token`")
    port: int = key(8080, "port to listen at; 0 takes a free one", ge=0, le=65535)
    token: SecretStr | None = key(None, "what `Authorization: Bearer` must hold to write samples")
    max_body_bytes: int = key(16 << 20, "largest request body", unit="bytes", ge=1)
    max_rows: int = key(1024, "most rows of one request", unit="rows", ge=1)
    max_in_progress: int = key(128, "requests in progress in one server, above which it answers 503 at once", ge=1)
    body_timeout_s: float = key(10.0, "longest wait for the rest of a request's body", unit="seconds", gt=0)
    silent_s: float = key(30.0, "silence of the learner after which a server is not ready", unit="seconds", gt=0)
    drain_s: float = key(0.0, "time between not being ready and closing, for load balancers to notice", unit="seconds", ge=0)


class Application:
    """The ASGI application over whatever `current` says is to be served."""

    def __init__(
        self,
        current: Current,
        *,
        model_name: str,
        settings: Settings,
        forms: Forms = form_named,
        samples: WriteSamples | None = None,
        status: Callable[[], bytes | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`samples` writes durably; without it that endpoint answers 501. `status` gives the newest `status.json`."""
        self.counts = Counts()
        self.draining = False
        self.settings = settings
        self._current, self._name, self._forms = current, model_name, forms
        self._samples, self._status, self._clock = samples, status, clock
        self._seen: Snapshot | None = None
        self._served: Served | None = None
        self._in_progress = 0
        self._writer = ThreadPoolExecutor(1, "samples")  # a sink belongs to one thread
        self._router = Starlette(routes=self._routes(), exception_handlers=_HANDLERS)
        self._router.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)

    def served(self) -> Served | None:
        """What answers now. One that cannot answer is counted and refused; the one before it stays."""
        snapshot = self._current.current()
        if snapshot is not None and snapshot is not self._seen:
            self._seen = snapshot
            try:
                self._served = Served.of(snapshot, self._forms)
                self.counts.served_number = snapshot.number
            except SnapshotError as error:
                self.counts.failed_loads += 1
                log.warning("snapshot.refused", error=str(error), next_step="the one before it stays")
        return self._served

    def close(self) -> None:
        """Wait for samples that are being written."""
        self._writer.shutdown()

    def _routes(self) -> list[Route]:
        table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/v2", self._server),
            ("GET", "/v2/", self._server),
            ("GET", "/v2/health/live", self._live),
            ("GET", "/v2/health/ready", self._ready),
            ("POST", "/v2/models/{model}/samples", self._take_samples),
            ("GET", "/status.json", self._status_json),
            *(("GET", path, _fixed(*file)) for path, file in page.files().items()),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            table.append(("GET", prefix, self._metadata))
            table.append(("GET", prefix + "/ready", self._model_ready))
            table.append(("POST", prefix + "/infer", self._infer))
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]

    async def _server(self, _: Request) -> Response:
        extensions = ["binary_tensor_data"] + (["samples"] if self._samples is not None else [])
        return _json({"name": "streamlearn", "version": __version__, "extensions": extensions})

    async def _live(self, _: Request) -> Response:
        return _json({"live": True, "ready": self._obstacle() is None})

    async def _ready(self, _: Request) -> Response:
        obstacle = self._obstacle()
        values = {"live": True, "ready": obstacle is None}
        return _json(values) if obstacle is None else _json(values | {"error": obstacle}, 503)

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        served = self.served()
        self._check_version(request, served)
        is_ready = self._obstacle() is None and served is not None and served.learned
        return _json({"name": self._name, "ready": is_ready}, 200 if is_ready else 503)

    def _obstacle(self) -> str | None:
        """Why this server should not be asked, or None."""
        if self.draining:
            return "the server is closing"
        if self.served() is None:
            return "no snapshot is published yet"
        silent_s = self._current.age_s()
        return f"the learner has been silent for {silent_s:.0f} s" if silent_s > self.settings.silent_s else None

    async def _metadata(self, request: Request) -> Response:
        served = self._find(request)
        snapshot = served.snapshot
        form, shape = snapshot.answering.form, snapshot.shape
        return _json(model_metadata(model_name=self._name, number=snapshot.number, form=form, shape=shape))

    async def _infer(self, request: Request) -> Response:
        begin = self._clock()
        status = 500
        try:
            with self._bounded():
                response = await self._answer(request)
            status = response.status_code
        except RequestError as error:
            status = error.status
            raise
        finally:
            self.counts.request(status, self._clock() - begin)
        return response

    async def _answer(self, request: Request) -> Response:
        self._check_model(request)
        body = await self._body(request)
        served = self._find(request)  # after the body came: the newest snapshot answers, and from here on only this one
        json_bytes = _json_length(request)
        settings, shape = self.settings, served.snapshot.shape
        question = read_question(body, json_bytes=json_bytes, shape=shape, max_rows=settings.max_rows)
        content, length = write_answer(served.answer(question), question, model_name=self._name)
        self.counts.rows += len(question.x)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={JSON_LENGTH: str(length)})

    async def _take_samples(self, request: Request) -> Response:
        self._check_model(request)
        self._check_writer(request)
        if self._samples is None:
            raise RequestError(
                "this server has nowhere to write samples: the source it learns from cannot be written", status=501
            )
        with self._bounded():
            body = await self._body(request)
            served = self._find(request)
            messages = read_samples(body, shape=served.snapshot.shape, max_rows=self.settings.max_rows)
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._samples, messages)
            except SinkError as error:
                log.warning("samples.not_written", error=str(error), next_step="answering 503")
                raise RequestError("the samples could not be made durable: send them again", status=503) from error
        self.counts.samples += len(messages)
        return _json({"accepted": len(messages)})

    async def _status_json(self, _: Request) -> Response:
        status = self._status()
        if status is None:
            raise RequestError("there is no status here: the learner has not written one", status=503)
        return Response(status, media_type="application/json", headers={"cache-control": "no-store"})

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        if self._in_progress >= self.settings.max_in_progress:
            raise RequestError(f"overloaded: {self._in_progress} requests are in progress", status=503)
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1

    async def _body(self, request: Request) -> bytes:
        """The whole body. First gives the loop one turn: what came together is counted before any of it is answered."""
        await asyncio.sleep(0)
        limit = self.settings.max_body_bytes
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise RequestError(f"the body is larger than {limit} bytes: send fewer rows at once", status=413)
                    chunks.append(chunk)
        except TimeoutError as error:
            raise RequestError(f"the body did not come within {self.settings.body_timeout_s} s", status=408) from error
        except ClientDisconnect as error:
            raise RequestError("the client went away before its body came") from error
        return b"".join(chunks)

    def _find(self, request: Request) -> Served:
        self._check_model(request)
        served = self.served()
        self._check_version(request, served)
        if served is None:
            raise RequestError("no snapshot is published yet", status=503)
        return served

    def _check_model(self, request: Request) -> None:
        model = request.path_params["model"]
        if model != self._name:
            raise RequestError(f"model {model[:80]!r} is not known: this server has {self._name!r}", status=404)

    def _check_version(self, request: Request, served: Served | None) -> None:
        version = request.path_params.get("version")
        number = None if served is None else str(served.snapshot.number)
        if version is not None and version != number:
            raise RequestError(f"version {version[:40]!r} is not served: the current one is {number}", status=404)

    def _check_writer(self, request: Request) -> None:
        """A page in somebody's browser can post to loopback; it cannot hide its origin, and does not know the token."""
        token = self.settings.token
        if token is None:
            if not is_loopback(self.settings.host):
                raise RequestError("samples are not taken: the server listens beyond loopback and has no token", status=403)
            if "origin" in request.headers:
                raise RequestError("samples are not taken from web pages without a token", status=403)
        else:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, b"Bearer " + token.get_secret_value().encode()):
                raise RequestError("samples need the header 'Authorization: Bearer TOKEN'", status=401)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _json_length(request: Request) -> int | None:
    text = request.headers.get(JSON_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError(f"Inference-Header-Content-Length is {text[:20]!r}, expected a number of bytes")
    return int(text)


def _json(values: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(values), status, dict(headers or {}), "application/json")


def _fixed(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=page.HEADERS)

    return answer


_MORE = {503: RETRY_AFTER, 413: {"connection": "close"}, 401: {"www-authenticate": "Bearer"}}


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RequestError) else 500
    return _json({"error": str(error)}, status, _MORE.get(status))


async def _not_routed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    return _json({"error": f"{request.method} {request.url.path[:200]}: {_REASONS.get(status, 'refused')}"}, status, headers)


async def _failed(_: Request, __: Exception) -> Response:
    return _json({"error": "internal error: see the server's log"}, 500)


_REASONS = {404: "no such path; GET /v2 says what there is", 405: "the path is there, the method is not"}
_HANDLERS: Any = {RequestError: _refused, HTTPException: _not_routed, Exception: _failed}
