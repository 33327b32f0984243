"""A server in a process of its own: follows the snapshots of a folder and answers from them. numpy only.

    python -m streamlearn.serving.follower --follow DIR --fd N --index I

is how the daemon starts one (`hosts.Followers`): what it is told comes as one line of JSON on standard input, so that no secret
is seen in a list of processes; the listening socket is inherited; and it ends when its parent does. `run` is the same program
for whoever has no parent: `streamlearn serve --follow DIR`.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, TypeAlias

import structlog
import uvloop

from streamlearn import logs
from streamlearn.errors import StreamlearnError
from streamlearn.records import Json
from streamlearn.serving.counts import counts_file, write_counts
from streamlearn.serving.http import Application
from streamlearn.serving.service import Service, decode, grpc_address, listen, serve
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FollowedFile

LOOK_EVERY_S = 0.02
TELL_EVERY_S = 1.0
FORCED = {signal.SIGTERM: 143, signal.SIGINT: 130}
METRICS = "streamlearn.serving.metrics"
"""Loaded where a page is wanted, and Prometheus's library there."""

Tell: TypeAlias = Callable[[Mapping[str, Json]], None]

log = structlog.get_logger()


@dataclass(frozen=True)
class Given:
    """What a parent hands to its follower."""

    sock: socket.socket  # listening
    index: int  # its counts go to `folder/follower-<index>.json`
    grpc: str | None  # address of gRPC


def run(service: Service, folder: Path, *, given: Given | None = None) -> int:
    """Serve until SIGTERM or SIGINT; a second signal leaves at once. Returns the exit code.

    Without a parent it listens itself, and shares its ports with others of its kind, but for that of its metrics.
    Errors  ConfigError when a port is in use, or the sink of samples cannot be made.
    """
    settings = service.settings
    if given is None:
        settings.check("serve")
        settings.take()
    sock = listen(settings.host, settings.port, shared=True) if given is None else given.sock
    grpc = grpc_address(settings) if given is None else given.grpc
    file = None if given is None else counts_file(folder, given.index)
    signals = list(FORCED) if given is None else [signal.SIGTERM]
    followed = FollowedFile(folder)
    with (
        _telling(followed, settings, file) as tell,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(service, followed, sock, grpc=grpc, tell=tell, signals=signals))
    return 0


def main() -> int:
    """The daemon's way in."""
    parser = argparse.ArgumentParser(prog="python -m streamlearn.serving.follower", description="Started by streamlearn run.")
    parser.add_argument("--follow", type=Path, required=True, help="folder of the snapshots")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--index", type=int, required=True, help="number of this follower")
    parser.add_argument("--grpc", help="address of gRPC, which several of them share")
    arguments = parser.parse_args()
    logs.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it reaches all; the parent says when to stop
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - held until the process ends
    try:
        service = decode(told.readline())
        end_with_parent(told)
        given = Given(socket.socket(fileno=arguments.fd), arguments.index, arguments.grpc)
        return run(service, arguments.follow, given=given)
    except StreamlearnError as error:
        log.error("follower.ended", error=str(error))
        return error.exit_code


@contextmanager
def _telling(followed: FollowedFile, settings: Settings, file: Path | None) -> Iterator[Tell | None]:
    """Who is told what this server does: its parent, by a file; Prometheus, at a port; nobody. Errors: ConfigError."""
    if file is not None:
        yield partial(write_counts, file)
    elif settings.metrics_port is None:
        yield None
    else:
        page = import_module(METRICS).ServerPage(followed.published_s)
        listening = page.serve(settings.host, settings.metrics_port)
        log.info("metrics.listening", host=settings.host, port=listening.port)
        try:
            yield page.show
        finally:
            listening.stop()


async def _run(
    service: Service,
    followed: FollowedFile,
    sock: socket.socket,
    *,
    grpc: str | None,
    tell: Tell | None,
    signals: Sequence[signal.Signals],
) -> None:
    application = service.application(followed)
    followed.poll()  # what is there already answers the first question
    application.served()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, _leave, number, stop)
    following = [asyncio.create_task(_follow(followed, application))]
    if tell is not None:
        following.append(asyncio.create_task(_tell(followed, application, tell)))
    try:
        # start-up's objects stay: a full collection over them would be a pause in somebody's answer
        await serve(application, sock, grpc=grpc, stop=stop, started=gc.freeze)
    finally:
        for task in following:
            task.cancel()


def _leave(number: signal.Signals, stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(FORCED[number])
    stop.set()


async def _follow(followed: FollowedFile, application: Application) -> None:
    """Read each new snapshot beside the loop, then try it before the next question comes."""
    while True:
        if followed.changed():
            await asyncio.to_thread(followed.poll)
            application.served()
        await asyncio.sleep(LOOK_EVERY_S)


async def _tell(followed: FollowedFile, application: Application, tell: Tell) -> None:
    while True:
        counts = application.endpoint.told()
        counts["failed_loads"] += followed.failed_loads
        tell(counts)
        await asyncio.sleep(TELL_EVERY_S)


def end_with_parent(told: BinaryIO) -> None:
    """At once: whoever starts the daemon again needs the port, and this process holds its socket too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; where a fork of the parent keeps the pipe open
    threading.Thread(target=_wait_for_end, args=(told,), name="parent", daemon=True).start()


def _wait_for_end(told: BinaryIO) -> None:
    while told.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
