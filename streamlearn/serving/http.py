"""The HTTP face: Open Inference Protocol v2, samples, health, the page. One ASGI application for every host.

Runs in one thread's event loop. Each answer takes the current snapshot once, and computes without giving the loop away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec
import structlog

from streamlearn import __version__, logs
from streamlearn.errors import SinkError
from streamlearn.records import Json, Message, traceparent
from streamlearn.serving import page
from streamlearn.serving.access import Role
from streamlearn.serving.description import openapi
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.feedback import read_feedback
from streamlearn.serving.open_inference import JSON_LENGTH, json_length, read_question, write_answer
from streamlearn.serving.repository import Repository, index_of, read_index, read_load
from streamlearn.serving.routes import Handler, NotRoutedError, Receive, Request, Response, Routes, Scope, Send
from streamlearn.serving.samples import WriteSamples, read_samples
from streamlearn.serving.served import Served
from streamlearn.serving.tensors import RequestError

DESCRIPTION = "/openapi.json"
RETRY_AFTER = {"retry-after": "1"}

log = structlog.get_logger()


class Application:
    """The ASGI application on one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        samples: WriteSamples | None = None,
        repository: Repository | None = None,
        status: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """`samples` writes durably; without it those endpoints answer 501. `status` gives the newest `status.json`."""
        self.endpoint, self.settings = endpoint, endpoint.settings
        self._samples, self._status = samples, status
        self._repository = repository
        self._writer = ThreadPoolExecutor(1, "samples")  # a sink belongs to one thread
        self._routes = Routes(self._table())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace, request = _trace(scope), Request(scope, receive)
        if trace is None:
            await (await self._answered(request)).send(send)
        else:
            with logs.carrying(trace):
                await (await self._answered(request)).send(send, (logs.TRACE.encode(), trace.encode()))

    async def _answered(self, request: Request) -> Response:
        try:
            return await self._routes.find(request)(request)
        except RequestError as error:
            return _json({"error": str(error)}, error.status, _more(error))
        except Exception as error:
            log.error("request.failed", method=request.method, path=request.path[:200], exc_info=error)
            return _json({"error": "internal error: see the server's log"}, 500)

    def served(self) -> Served | None:
        """What answers now."""
        return self.endpoint.served()

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()
        self.endpoint.close()

    def _table(self) -> list[tuple[str, str, Handler]]:
        table: list[tuple[str, str, Handler, Role | None]] = [
            ("GET", "/v2", self._server, "read"),
            ("GET", "/v2/", self._server, "read"),
            ("GET", "/v2/health/live", self._live, None),
            ("GET", "/v2/health/ready", self._ready, None),
            ("POST", "/v2/models/{model}/samples", self._take_samples, "write"),
            ("POST", "/v2/models/{model}/feedback", self._take_feedback, "write"),
            ("POST", "/v2/repository/index", self._index, "read"),
            ("POST", "/v2/repository/models/{model}/load", self._load, "admin"),
            ("GET", "/status.json", self._status_json, "read"),
            ("GET", DESCRIPTION, self._description, "read"),
            *(("GET", path, _fixed(*file), None) for path, file in page.files().items()),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            table.append(("GET", prefix, self._metadata, "read"))
            table.append(("GET", prefix + "/ready", self._model_ready, "read"))
            table.append(("POST", prefix + "/infer", self._infer, "read"))
        return [(method, path, self._guarded(role, handler)) for method, path, handler, role in table]

    def _guarded(self, role: Role | None, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if role is not None:
                self.endpoint.access.check(request.headers, role)
            return await handler(request)

        return answer

    async def _server(self, _: Request) -> Response:
        extensions = ["binary_tensor_data"] + (["samples", "feedback"] if self._samples is not None else [])
        extensions += ["model_repository"] if self._repository is not None else []
        return _json({"name": "streamlearn", "version": __version__, "extensions": extensions})

    async def _live(self, _: Request) -> Response:
        return self._health(self.endpoint.stall())

    async def _ready(self, _: Request) -> Response:
        return self._health(self.endpoint.obstacle())

    def _health(self, trouble: str | None) -> Response:
        values = {"live": self.endpoint.stall() is None, "ready": self.endpoint.obstacle() is None}
        return _json(values) if trouble is None else _json(values | {"error": trouble}, 503)

    async def _model_ready(self, request: Request) -> Response:
        is_ready = self.endpoint.is_ready(*_named(request))
        return _json({"name": self.endpoint.model_name, "ready": is_ready}, 200 if is_ready else 503)

    async def _metadata(self, request: Request) -> Response:
        return _json(self.endpoint.metadata(*_named(request)))

    async def _infer(self, request: Request) -> Response:
        with self.endpoint.counted("http"), self.endpoint.bounded():
            self.endpoint.check_model(request.named["model"])
            body = await self._body(request)
            async with self.endpoint.one_a_turn:
                return self._computed(request, body)

    def _computed(self, request: Request, body: bytes) -> Response:
        served = self._find(request)  # after the body came: the newest snapshot answers, and from here on only this one
        json_bytes = json_length(request.headers.get(JSON_LENGTH))
        shape, schema, max_rows = served.snapshot.shape, served.snapshot.schema, self.settings.max_rows
        question = read_question(body, json_bytes=json_bytes, shape=shape, max_rows=max_rows, schema=schema)
        answer = self.endpoint.answer(served, question)
        content, length = write_answer(answer, question, model_name=self.endpoint.model_name)
        if length is None:
            return Response(content)
        return Response(content, media_type="application/octet-stream", headers={JSON_LENGTH: str(length)})

    async def _take_samples(self, request: Request) -> Response:
        def read(body: bytes) -> list[Message]:
            snapshot = self._find(request).snapshot
            return read_samples(body, shape=snapshot.shape, max_rows=self.settings.max_rows, schema=snapshot.schema)

        return await self._taken(request, read, what="samples")

    async def _take_feedback(self, request: Request) -> Response:
        """Late labels, which need no model to be served: the learner joins them."""
        return await self._taken(request, lambda body: read_feedback(body, max_rows=self.settings.max_rows), what="labels")

    async def _taken(self, request: Request, read: Callable[[bytes], list[Message]], *, what: str) -> Response:
        """Records written durably before they are acknowledged."""
        self.endpoint.check_model(request.named["model"])
        if self._samples is None:
            raise RequestError(
                f"this server has nowhere to write {what}: the source it learns from cannot be written", status=501
            )
        with self.endpoint.bounded():
            messages = _traced(read(await self._body(request)))
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._samples, messages)
            except SinkError as error:
                log.warning("samples.not_written", error=str(error), next_step="answering 503")
                raise RequestError(f"the {what} could not be made durable: send them again", status=503) from error
        if what == "samples":
            self.endpoint.counts.samples += len(messages)
        else:
            self.endpoint.counts.feedback += len(messages)
        return _json({"accepted": len(messages)})

    async def _index(self, request: Request) -> Response:
        """What is served, and the checkpoints that could be."""
        wanted = read_index(await self._body(request))
        served = self.served()
        number = None if served is None else served.snapshot.number
        with self.endpoint.bounded():
            numbers = (await self._asked({"kind": "index"}))["numbers"]
        return _json(index_of(self.endpoint.model_name, number, numbers, ready_only=wanted.ready))

    async def _load(self, request: Request) -> Response:
        """Answered once this server serves it."""
        self.endpoint.check_model(request.named["model"])
        load = read_load(await self._body(request))
        with self.endpoint.bounded():
            went = await self._asked({"kind": "load", "number": load.number, "resume": load.resume})
            await self._served_from(went["number"])
        return _json({"name": self.endpoint.model_name, "version": str(went["number"]), "loaded": str(load.number)})

    async def _asked(self, question: dict[str, Json]) -> dict[str, Json]:
        if self._repository is None:
            raise RequestError("this server cannot reach the learner: ask one that runs beside it", status=501)
        return await self._repository.ask(question)

    async def _served_from(self, number: int) -> None:
        """Return once this server has a snapshot of that number or a later one."""
        async with asyncio.timeout(self.settings.silent_s):
            while (served := self.served()) is None or served.snapshot.number < number:
                await asyncio.sleep(0.02)  # a snapshot that another process publishes tells nobody

    async def _description(self, _: Request) -> Response:
        served = self.endpoint.served()
        shape, schema = ((), None) if served is None else (served.snapshot.shape, served.snapshot.schema)
        return _json(openapi(model_name=self.endpoint.model_name, shape=shape, max_rows=self.settings.max_rows, schema=schema))

    async def _status_json(self, _: Request) -> Response:
        status = self._status()
        if status is None:
            raise RequestError("there is no status here: the learner has not written one", status=503)
        return Response(status, headers={"cache-control": "no-store"})

    async def _body(self, request: Request) -> bytes:
        """The whole body. First gives the loop one turn: what came together is counted before any of it is answered."""
        if not request.is_alone:
            await asyncio.sleep(0)
        return await request.body(most=self.settings.max_body_bytes, timeout_s=self.settings.body_timeout_s)

    def _find(self, request: Request) -> Served:
        return self.endpoint.find(*_named(request))


def _trace(scope: Scope) -> str | None:
    """The trace that a request belongs to; of two it is neither."""
    found = [value for name, value in scope.get("headers", ()) if name == b"traceparent"]
    return traceparent(found[0]) if len(found) == 1 else None


def _traced(messages: list[Message]) -> list[Message]:
    """Records bear the trace of the request that they came with."""
    trace = logs.carried()
    if trace is None:
        return messages
    return [each._replace(headers=(*each.headers, (logs.TRACE, trace.encode()))) for each in messages]


def _named(request: Request) -> tuple[str, str | None]:
    """Model and version that the path names."""
    return request.named["model"], request.named.get("version")


def _json(values: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(values), status, headers=headers or {})


def _fixed(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=page.HEADERS)

    return answer


_MORE = {503: RETRY_AFTER, 401: {"www-authenticate": "Bearer"}}


def _more(error: RequestError) -> Mapping[str, str]:
    """Headers that belong to a refusal."""
    return {"allow": error.allowed} if isinstance(error, NotRoutedError) and error.allowed else _MORE.get(error.status, {})
