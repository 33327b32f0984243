"""The gRPC face: GRPCInferenceService of the Open Inference Protocol, in the event loop of the server that answers HTTP.

The same endpoint answers: one snapshot for an answer, the same bounds, tokens and certificates; errors as gRPC's codes.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from streamlearn import __version__
from streamlearn.errors import ConfigError
from streamlearn.logs import TRACE, carrying
from streamlearn.records import traceparent
from streamlearn.serving.access import Role
from streamlearn.serving.endpoint import Endpoint, OverloadedError
from streamlearn.serving.grpc_messages import MESSAGES, METHODS, PACKAGE, SERVICE, DecodeError
from streamlearn.serving.grpc_tensors import metadata_message, read_message, write_message
from streamlearn.serving.settings import Settings
from streamlearn.serving.tensors import RequestError

Method: TypeAlias = Callable[[Any], Awaitable[Any]]

OLDEST_S = 600.0  # a connection is closed then, so that one whose client reads nothing does not stay
STREAMS = 1024  # of one connection: fewer than a client offers at once, and some would be refused without a word
CODES: Mapping[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}
"""By the status of HTTP; too many requests at once are RESOURCE_EXHAUSTED."""

log = structlog.get_logger()


class GrpcServer:
    """Answers at `address` from `start` on, which other servers of this user may share, each with its own connections."""

    def __init__(self, endpoint: Endpoint, address: str) -> None:
        self.port = 0  # that is listened at, after `start`
        self._endpoint, self._address = endpoint, address
        self._server: Any = None

    async def start(self) -> None:
        """Listen and answer. Errors: ConfigError when the port is in use."""
        settings = self._endpoint.settings
        self._server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=4 * settings.max_in_progress)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        try:
            self.port = self._bind(settings)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen for gRPC at {self._address}: {error}") from error
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more, and end when what is in progress is answered, or at the deadline."""
        await self._server.stop(grace_s)

    def _bind(self, settings: Settings) -> int:
        if settings.tls_cert is None:
            return int(self._server.add_insecure_port(self._address))
        chain = settings.tls_cert.read_bytes()
        private = settings.tls_key.read_bytes() if settings.tls_key else chain
        return int(self._server.add_secure_port(self._address, grpc.ssl_server_credentials([(private, chain)])))

    def _handlers(self) -> Any:
        table: dict[str, tuple[Method, Role | None]] = {
            "ServerLive": (self._server_live, None),
            "ServerReady": (self._server_ready, None),
            "ModelReady": (self._model_ready, "read"),
            "ServerMetadata": (self._server_metadata, "read"),
            "ModelMetadata": (self._model_metadata, "read"),
            "ModelInfer": (self._infer, "read"),
        }
        return grpc.method_handlers_generic_handler(
            f"{PACKAGE}.{SERVICE}",
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._guarded(name, *table[name]),
                    response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
                )
                for name in METHODS
            },
        )

    def _guarded(self, name: str, method: Method, role: Role | None) -> Callable[[bytes, Any], Awaitable[Any]]:
        async def answer(content: bytes, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            if trace := traceparent(metadata.get(TRACE)):
                context.set_trailing_metadata(((TRACE, trace),))
            with carrying(trace):
                try:
                    if role is not None:
                        self._endpoint.access.check(metadata, role)
                    return await method(_parsed(name, content))
                except RequestError as error:
                    await context.abort(_code(error), str(error))
                except Exception:
                    log.exception("grpc.failed", method=name)
                    await context.abort(StatusCode.INTERNAL, "internal error: see the server's log")

        return answer

    async def _server_live(self, _: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=self._endpoint.stall() is None)

    async def _server_ready(self, _: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._endpoint.obstacle() is None)

    async def _model_ready(self, message: Any) -> Any:
        return MESSAGES["ModelReadyResponse"](ready=self._endpoint.is_ready(message.name, message.version or None))

    async def _server_metadata(self, _: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](name="streamlearn", version=__version__)

    async def _model_metadata(self, message: Any) -> Any:
        return metadata_message(self._endpoint.metadata(message.name, message.version or None))

    async def _infer(self, message: Any) -> Any:
        endpoint = self._endpoint
        with endpoint.counted("grpc"), endpoint.bounded():
            await asyncio.sleep(0)  # what came together is counted before any of it is answered
            async with endpoint.one_a_turn:
                served = endpoint.find(message.model_name, message.model_version or None)
                shape, schema = served.snapshot.shape, served.snapshot.schema
                question = read_message(message, shape=shape, max_rows=endpoint.settings.max_rows, schema=schema)
                return write_message(endpoint.answer(served, question), question, model_name=endpoint.model_name)


class Reserved:
    """A port that several servers of this program share and nobody else may take, held by a socket that listens to nothing."""

    def __init__(self, host: str, port: int) -> None:
        """Errors: ConfigError when the port is in use."""
        family, address = resolved(host, port)
        try:
            with contextlib.closing(_bound(family, address, shared=False)) as alone:
                address = alone.getsockname()
            self._sock = _bound(family, address, shared=True)
        except OSError as error:
            raise ConfigError(
                f"cannot listen for gRPC at {host} port {port}: {error.strerror}; choose another serve.grpc_port, or none"
            ) from error
        self.port = int(address[1])
        self.address = written(host, self.port)

    def close(self) -> None:
        """Let go of it. May be called twice."""
        self._sock.close()


def resolved(host: str, port: int) -> tuple[int, Any]:
    """Family and address, as servers of HTTP take them. Errors: ConfigError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"cannot listen for gRPC at {host} port {port}: {error}") from error
    return family, address


def written(host: str, port: int) -> str:
    """As gRPC writes an address."""
    family, address = resolved(host, port)
    return f"[{address[0]}]:{address[1]}" if family == socket.AF_INET6 else f"{address[0]}:{address[1]}"


def _bound(family: int, address: Any, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _parsed(name: str, content: bytes) -> Any:
    """Parsed here, where the token was looked at, and what is no message is an error of whoever sent it."""
    try:
        return MESSAGES[f"{name}Request"].FromString(content)
    except DecodeError as error:
        raise RequestError(f"this is no {name}Request") from error


def _code(error: RequestError) -> StatusCode:
    if isinstance(error, OverloadedError):
        return StatusCode.RESOURCE_EXHAUSTED
    return CODES.get(error.status, StatusCode.INTERNAL)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_head_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_head_bytes),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", int(1000 * settings.head_timeout_s)),
        ("grpc.max_connection_idle_ms", int(1000 * settings.keep_alive_s)),
        ("grpc.max_connection_age_ms", int(1000 * OLDEST_S)),
        ("grpc.max_connection_age_grace_ms", int(1000 * settings.send_timeout_s)),
    ]
