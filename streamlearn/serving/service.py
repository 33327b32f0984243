"""One server, host apart: the application on a listening socket until it is told to stop."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from pydantic import SecretStr

from streamlearn.errors import ConfigError
from streamlearn.protocols import Sink, Source
from streamlearn.records import Json
from streamlearn.serving.accepting import Acceptor
from streamlearn.serving.connections import Connection, Limits
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.feedback import AnswerRecords
from streamlearn.serving.forms import Form, form_named
from streamlearn.serving.http import Application
from streamlearn.serving.repository import Repository
from streamlearn.serving.samples import SampleSink
from streamlearn.serving.settings import Settings
from streamlearn.serving.spans import spans_of
from streamlearn.settings import Section
from streamlearn.snapshot import Current

BACKLOG = 1024
REQUESTS = "serve.kafka"
GRPC = "streamlearn.serving.grpc"
"""Loaded where gRPC is wanted, and its library there."""

log = structlog.get_logger()


class SamplesTo(msgspec.Struct, frozen=True):
    """The sink for samples: `opener`, "module:function", is called as `opener(name, settings, path="samples")`."""

    name: str
    settings: dict[str, Any]
    opener: str = "connectors:open_sink"
    timeout_s: float = 10.0

    def sink(self) -> SampleSink:
        """Errors: ConfigError when it cannot be made; that is tried now, though it connects at the first write."""
        module, _, function = self.opener.partition(":")
        opener = partial(getattr(import_module(module), function), self.name, self.settings, path="samples")
        opener().close()
        return SampleSink(opener, timeout_s=self.timeout_s)


class RequestsFrom(msgspec.Struct, frozen=True):
    """Where questions come from as records, and where their replies go: settings of a source and a sink of one connector."""

    asked: dict[str, Any]
    replies: dict[str, Any]
    positions: str
    """Path of the file that holds where the next question is read."""
    most: int = 100
    """Questions that are answered between two savings of the positions."""
    connector: str = "kafka"

    def source(self) -> Source:
        """It connects at `seek`. Errors: ConfigError."""
        made: Source = import_module("connectors").open_source(self.connector, self.asked, path=REQUESTS)
        return made

    def sink(self) -> Sink:
        """It connects at the first write. Errors: ConfigError."""
        made: Sink = import_module("connectors").open_sink(self.connector, self.replies, path=REQUESTS)
        return made


class Service(msgspec.Struct, frozen=True):
    """All that a server is told, whichever process it runs in."""

    model_name: str
    settings: Settings = Settings()
    module: str = ""
    """The factory of the user's own model, "package.module:factory"; a snapshot's word is never enough to import code."""
    status: str | None = None
    """Path of `status.json`."""
    samples: SamplesTo | None = None
    control: str | None = None
    """Folder where the learner looks for what administrators ask."""
    answers: SamplesTo | None = None
    """Where answers to questions with an id are recorded, so that a late label can score them."""
    requests: RequestsFrom | None = None
    """Where questions come from beside HTTP and gRPC."""

    def application(self, current: Current) -> Application:
        """The ASGI application. Errors: ConfigError for tokens or a certificate that cannot be read, or a sink of samples."""
        _check_certificate(self.settings)
        if self.samples is not None and not self.settings.access().has_writer:
            log.warning("server.takes_no_samples", host=self.settings.host, reason="beyond loopback, and no token of a writer")
        return Application(
            self.endpoint(current),
            samples=None if self.samples is None else self.samples.sink(),
            repository=None if self.control is None else Repository(Path(self.control)),
            status=lambda: _content(self.status),
        )

    def endpoint(self, current: Current) -> Endpoint:
        """What answers, whatever protocol asks. Errors: ConfigError for tokens that cannot be read, or a sink of answers."""
        return Endpoint(
            current,
            model_name=self.model_name,
            settings=self.settings,
            forms=partial(_form, module=self.module),
            answers=None if self.answers is None else AnswerRecords(self.answers.sink()),
            spans=spans_of(self.model_name) if self.settings.otel else None,
            beside_learner=self.control is not None,
        )


def _check_certificate(settings: Settings) -> None:
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:  # ssl's own errors are OSErrors; its words name no content
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"serve.tls_cert {settings.tls_cert} with its key cannot be used: {reason}") from error


def encode(service: Service) -> bytes:
    """One line of JSON, secrets included: for a pipe to a server's process, not for logs or arguments."""
    return msgspec.json.encode(service, enc_hook=_plain)


def decode(line: bytes) -> Service:
    """Errors: ConfigError."""
    try:
        return msgspec.json.decode(line, type=Service, dec_hook=_section)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"a server was started with settings it cannot read: {type(error).__name__}") from error


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; with `shared`, others of this user may listen at the same port and share its connections.

    Errors  ConfigError that names host and port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        reason = "it is in use; stop the other program or choose another port" if error.errno == errno.EADDRINUSE else error
        raise ConfigError(f"cannot listen at {host} port {port}: {reason}") from error
    sock.setblocking(False)
    return sock


def grpc_port(settings: Settings) -> int | None:
    """Where gRPC is to listen, or None. Errors: ConfigError when it was asked for, and its library is missing."""
    wanted = settings.wanted_grpc_port
    if wanted is None or find_spec("grpc") is not None:
        return wanted
    if "grpc_port" in settings.model_fields_set:
        raise ConfigError(f"serve.grpc_port is {wanted}, but grpcio is not installed: pip install 'streamlearn[grpc]'")
    log.info("grpc.off", reason="grpcio is not installed", next_step="pip install 'streamlearn[grpc]' to have it")
    return None


def ports(settings: Settings) -> tuple[socket.socket, Any]:
    """A socket that listens for HTTP, and the port of gRPC, held for servers that share it, or None. Errors: ConfigError."""
    sock = listen(settings.host, settings.port)
    try:
        port = grpc_port(settings)
        return sock, None if port is None else import_module(GRPC).Reserved(settings.host, port)
    except ConfigError:
        sock.close()
        raise


def grpc_address(settings: Settings) -> str | None:
    """Where one of several servers that share a port is to answer gRPC, or None. Errors: ConfigError."""
    port = grpc_port(settings)
    return None if port is None else str(import_module(GRPC).written(settings.host, port))


async def serve(
    application: Application,
    sock: socket.socket,
    *,
    grpc: str | None,
    stop: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """Answer until `stop` is set, HTTP at `sock` and gRPC at an address where there is one; then be not ready for
    `drain_s`, finish what is in progress, and close. Errors: ConfigError when gRPC cannot listen."""
    settings = application.settings
    calls = None if grpc is None else import_module(GRPC).GrpcServer(application.endpoint, grpc)
    if calls is not None:
        await calls.start()
    config = uvicorn.Config(
        application, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, backlog=BACKLOG, timeout_graceful_shutdown=int(settings.body_timeout_s) + 1,
        ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
    )  # fmt: skip
    server = _Server(config, settings, started)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    application.endpoint.draining = True
    if not running.done():
        await asyncio.sleep(settings.drain_s)
        server.should_exit = True
    if calls is not None:
        await calls.stop(settings.body_timeout_s)
    await running
    await asyncio.to_thread(application.close)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, limits: Limits, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._limits, self._has_started = limits, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        limits = self._limits
        bounds = {"greet_timeout_s": limits.head_timeout_s, "max_greeting": limits.max_connections}
        self.servers = [Acceptor(sock, self._connection, tls=self.config.ssl, **bounds) for sock in sockets or []]  # type: ignore[arg-type, misc]
        self.started = True
        self._has_started()

    def _connection(self) -> asyncio.Protocol:
        return Connection(
            limits=self._limits, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the host."""
        yield


def _form(name: str, *, module: str) -> Form:
    form: Callable[..., Any] = form_named(name)
    return partial(form, module=module) if module and name == "torch" else form


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _section(kind: type[Section], value: Any) -> Section:
    return kind.model_validate(value)


def _plain(value: Any) -> Json:
    if isinstance(value, Section):
        return dict(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
