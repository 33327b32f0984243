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
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
import uvloop

from streamlearn.errors import StreamlearnError
from streamlearn.serving.http import Application
from streamlearn.serving.service import Service, decode, listen, serve
from streamlearn.snapshot import FollowedFile

LOOK_EVERY_S = 0.02
TELL_EVERY_S = 1.0
FORCED = {signal.SIGTERM: 143, signal.SIGINT: 130}

log = structlog.get_logger()


def run(service: Service, folder: Path, *, sock: socket.socket | None = None, index: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT; a second signal leaves at once. Returns the exit code.

    With `index` its counts go to `folder/follower-<index>.json`. Without `sock` it listens itself, and shares its port with
    others of its kind.
    Errors  ConfigError when the port is in use, or the sink of samples cannot be made.
    """
    settings = service.settings
    sock = listen(settings.host, settings.port, shared=True) if sock is None else sock
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(service, FollowedFile(folder), sock, None if index is None else counts_file(folder, index)))
    return 0


def counts_file(folder: Path, index: int) -> Path:
    """Where the follower of that index tells what it did; `counts` says what it holds."""
    return folder / f"follower-{index}.json"


def main() -> int:
    """The daemon's way in."""
    parser = argparse.ArgumentParser(prog="python -m streamlearn.serving.follower", description="Started by streamlearn run.")
    parser.add_argument("--follow", type=Path, required=True, help="folder of the snapshots")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--index", type=int, required=True, help="number of this follower")
    arguments = parser.parse_args()
    structlog.configure(processors=_PROCESSORS, logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it reaches all; the parent says when to stop
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - held until the process ends
    try:
        service = decode(told.readline())
        _end_with_parent(told)
        return run(service, arguments.follow, sock=socket.socket(fileno=arguments.fd), index=arguments.index)
    except StreamlearnError as error:
        log.error("follower.ended", error=str(error))
        return error.exit_code


_PROCESSORS = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
)


async def _run(service: Service, followed: FollowedFile, sock: socket.socket, tell: Path | None) -> None:
    application = service.application(followed)
    followed.poll()  # what is there already answers the first question
    application.served()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in FORCED if tell is None else [signal.SIGTERM]:
        loop.add_signal_handler(number, _leave, number, stop)
    following = [asyncio.create_task(_follow(followed, application))]
    if tell is not None:
        following.append(asyncio.create_task(_tell(followed, application, tell)))
    try:
        # start-up's objects stay: a full collection over them would be a pause in somebody's answer
        await serve(application, sock, stop=stop, started=gc.freeze)
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


async def _tell(followed: FollowedFile, application: Application, path: Path) -> None:
    beside = path.with_suffix(".tmp")
    while True:
        counts = application.counts.values(age_s=followed.age_s())
        counts["failed_loads"] += followed.failed_loads
        try:
            beside.write_bytes(msgspec.json.encode(counts))
            beside.replace(path)
        except OSError as error:
            log.warning("follower.counts_not_written", path=str(path), error=str(error), next_step="trying again in a second")
        await asyncio.sleep(TELL_EVERY_S)


def _end_with_parent(told: BinaryIO) -> None:
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
