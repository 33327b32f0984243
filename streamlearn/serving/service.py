"""One server, host apart: the application on a listening socket until it is told to stop."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from pydantic import SecretStr

from streamlearn.errors import ConfigError
from streamlearn.records import Json
from streamlearn.serving.forms import Form, form_named
from streamlearn.serving.http import Application, Settings
from streamlearn.serving.samples import SampleSink
from streamlearn.settings import Section
from streamlearn.snapshot import Current

BACKLOG = 1024


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


class Service(msgspec.Struct, frozen=True):
    """All that a server is told, whichever process it runs in."""

    model_name: str
    settings: Settings = Settings()
    module: str = ""
    """The factory of the user's own model, "package.module:factory"; a snapshot's word is never enough to import code."""
    status: str | None = None
    """Path of `status.json`."""
    samples: SamplesTo | None = None

    def application(self, current: Current) -> Application:
        """The ASGI application. Errors: ConfigError when the sink of samples cannot be made."""
        return Application(
            current,
            model_name=self.model_name,
            settings=self.settings,
            forms=partial(_form, module=self.module),
            samples=None if self.samples is None else self.samples.sink(),
            status=lambda: _content(self.status),
        )


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


async def serve(application: Application, sock: socket.socket, *, stop: asyncio.Event, started: Callable[[], None]) -> None:
    """Answer until `stop` is set; then be not ready for `drain_s`, finish what is in progress, and close."""
    settings = application.settings
    config = uvicorn.Config(
        application, http="httptools", lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        backlog=BACKLOG, timeout_graceful_shutdown=int(settings.body_timeout_s) + 1,
    )  # fmt: skip
    server = _Server(config, started)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    application.draining = True
    if not running.done():
        await asyncio.sleep(settings.drain_s)
        server.should_exit = True
    await running
    await asyncio.to_thread(application.close)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._has_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._has_started()

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
    if isinstance(value, Settings):
        return {name: _plain(each) for name, each in value}
    return value.get_secret_value() if isinstance(value, SecretStr) else value
