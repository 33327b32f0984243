"""Where servers run: in processes that the daemon starts and watches, or in a thread of its own process."""

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import uvloop

from streamlearn.errors import StreamlearnError
from streamlearn.records import Json
from streamlearn.serving.counts import Counts
from streamlearn.serving.http import Application
from streamlearn.serving.service import Service, encode, ports, serve
from streamlearn.snapshot import Current, Reference

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
FIRST_DELAY_S, LAST_DELAY_S = 0.1, 10.0  # before a follower that died is started again
SWITCH_INTERVAL_S = 0.0005

log = structlog.get_logger()


class _Listening:
    """What both hosts hold: the ports that are listened at."""

    _socket: socket.socket | None = None
    _grpc: Any = None

    def _listen(self, service: Service) -> socket.socket:
        """Errors: ConfigError when a port is in use."""
        self._socket, self._grpc = ports(service.settings)
        return self._socket

    @property
    def port(self) -> int:
        """The port that is listened at, after `start`."""
        if self._socket is None:
            raise RuntimeError("the server was not started")
        return int(self._socket.getsockname()[1])

    @property
    def grpc_port(self) -> int | None:
        """The port of gRPC, after `start`; None where there is none."""
        return None if self._grpc is None else int(self._grpc.port)

    def _say(self, service: Service, *, processes: int) -> None:
        log.info("server.listening", host=service.settings.host, port=self.port, grpc_port=self.grpc_port, processes=processes)


class Followers(_Listening):
    """Server processes that share one listening socket, each started again when it dies. Publish once before `start`."""

    def __init__(self, service: Service, *, folder: Path, count: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.restarts = 0
        self._service, self._folder, self._count, self._clock = service, folder, count, clock
        self._all = count + (service.requests is not None)  # the last answers questions that come as records
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [process.pid for process in list(self._processes.values()) if process.poll() is None]

    def start(self) -> None:
        """Listen, then start the processes; questions wait in the socket until the first of them answers.

        Errors  ConfigError when the port is in use, or the sink of samples cannot be made.
        """
        self._service.application(Reference()).close()
        self._listen(self._service)
        for old in self._folder.glob("follower-*.json"):
            old.unlink(missing_ok=True)
        for index in range(self._all):
            self._threads.append(threading.Thread(target=self._keep, args=(index,), name=f"follower-{index}", daemon=True))
            self._threads[-1].start()
        self._say(self._service, processes=self._count)

    def is_alive(self) -> bool:
        """Whether all of them run, as far as known now."""
        return len(self.pids) == self._all

    def withdraw(self) -> None:
        """Ask them to drain and end; the port is theirs alone from now on, and closed with the last of them."""
        with self._lock:
            if self._stopping.is_set():  # a second signal would cut off what is in progress
                return
            self._stopping.set()
            for process in self._processes.values():
                process.terminate()
            for held in (self._socket, self._grpc):
                if held is not None:
                    held.close()

    def stop(self, timeout_s: float) -> None:
        """Withdraw, and kill what is left at the deadline. May be called twice."""
        deadline = self._clock() + timeout_s
        self.withdraw()
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        for process in self._processes.values():
            if process.poll() is None:
                log.warning("follower.killed", pid=process.pid, reason=f"it did not end within {timeout_s:g} s")
                process.kill()
        for thread in self._threads:
            thread.join()

    def _keep(self, index: int) -> None:
        """One thread for each process: a process is tied to the life of the thread that started it."""
        self._service.settings.take()  # the processes have the share of the thread that starts them
        delay_s = FIRST_DELAY_S
        while (process := self._spawn(index)) is not None:
            begin = self._clock()
            code = process.wait()
            _close(process)
            if self._stopping.is_set():
                return
            delay_s = FIRST_DELAY_S if self._clock() - begin > LAST_DELAY_S else min(2 * delay_s, LAST_DELAY_S)
            log.warning("follower.died", index=index, exit_code=code, next_step=f"starting it again in {delay_s:g} s")
            self.restarts += 1
            self._stopping.wait(delay_s)

    def _spawn(self, index: int) -> subprocess.Popen[bytes] | None:
        """None once stopping. What it is told stays in the pipe, whose end it waits for as a sign of our death."""
        with self._lock:
            if self._stopping.is_set() or self._socket is None:
                return None
            fds = [self._socket.fileno()] if index < self._count else []
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command(index, fds), stdin=subprocess.PIPE, pass_fds=fds, env=os.environ | ONE_THREAD, bufsize=0
            )
            self._processes[index] = process
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it died at its start, which `_keep` will notice
                process.stdin.write(encode(self._service) + b"\n")
        return process

    def _command(self, index: int, fds: Sequence[int]) -> list[str]:
        arguments = ["--follow", str(self._folder), "--index", str(index)]
        if not fds:
            return [sys.executable, "-m", "streamlearn.serving.requests", *arguments]
        arguments += ["--fd", str(fds[0])] + ([] if self._grpc is None else ["--grpc", self._grpc.address])
        return [sys.executable, "-m", "streamlearn.serving.follower", *arguments]


class InProcess(_Listening):
    """The same application in a thread of this process: for the demo, tests, one core, and programs that embed us."""

    def __init__(self, service: Service, current: Current) -> None:
        self._service, self._current = service, current
        self._application: Application | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._interval = sys.getswitchinterval()
        self._answers = False
        self._ready_or_ended = threading.Event()

    def told(self) -> Mapping[str, Json]:
        """What it did so far, as `counts` describes it."""
        return Counts().values(age_s=math.inf) if self._application is None else self._application.endpoint.told()

    def look(self) -> None:
        """Try the newest snapshot, though nobody asks; its thread does, soon after."""
        if self._loop is not None and self._application is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._application.served)

    def start(self) -> None:
        """Listen and answer. Errors: ConfigError when the port is in use, or the sink of samples cannot be made."""
        application = self._service.application(self._current)
        self._application = application
        sock = self._listen(self._service)
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # else each answer waits 5 ms for a learner that runs pure Python
        self._thread = threading.Thread(target=self._run, args=(application, sock), name="server", daemon=True)
        self._thread.start()
        self._ready_or_ended.wait()
        if not self._answers:
            raise StreamlearnError("the server ended while it started: see the log")
        self._say(self._service, processes=0)

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def withdraw(self) -> None:
        """Be not ready, and begin to drain."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            log.debug("server.ended_before")

    def stop(self, timeout_s: float) -> None:
        """Drain and end; what is not done by the deadline is left behind with its thread. May be called twice."""
        if self._thread is None or self._loop is None:
            return
        self.withdraw()
        self._thread.join(timeout_s)
        sys.setswitchinterval(self._interval)
        if self._thread.is_alive():
            log.warning("server.left_behind", reason=f"it did not end within {timeout_s:g} s")

    def _run(self, application: Application, sock: socket.socket) -> None:
        try:
            self._service.settings.take()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                address = None if self._grpc is None else self._grpc.address
                runner.run(serve(application, sock, grpc=address, stop=self._stop, started=self._has_started))
        except Exception:
            log.exception("server.failed")
        finally:
            if self._grpc is not None:
                self._grpc.close()
            self._ready_or_ended.set()

    def _has_started(self) -> None:
        self._answers = True
        self._ready_or_ended.set()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
