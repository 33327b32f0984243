"""`streamlearn run` as a process of its own, with what the system says of it. Linux: reads /proc."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.testbed.ports import free_ports
from streamlearn.records import Json
from streamlearn.snapshot import live_folder

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROGRAM = [sys.executable, "-m", "streamlearn"]


class Memory(NamedTuple):
    """Resident memory of a process."""

    now_bytes: int
    peak_bytes: int


class Daemon:
    """A daemon on a configuration, in a folder that holds its state, configuration and log."""

    def __init__(self, config: Mapping[str, Json], folder: Path) -> None:
        """`config` without state directory and ports, which are chosen here."""
        self.port, self._metrics_port = free_ports(2)
        self.state_dir, self.config = folder / "state", folder / "config.yaml"
        self._log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        values = dict(config) | {
            "state_dir": str(self.state_dir),
            "serve": {**dict(config.get("serve", {})), "port": self.port, "grpc_port": None},
            "telemetry": {"port": self._metrics_port},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(values, sort_keys=False))

    def __enter__(self) -> "Daemon":
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)  # else a daemon that was too slow would run on
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(live_folder(self.state_dir), ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of the learner's process."""
        if self._process is None:
            raise RuntimeError("the daemon was not started")
        return self._process.pid

    def start(self, *, within_s: float = 180.0) -> float:
        """Seconds until it is ready to answer. Errors: RuntimeError with the end of its log when it is not."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*PROGRAM, "run", str(self.config)], stdout=log, stderr=log)
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() - began > within_s:
                raise RuntimeError(f"the daemon is not ready: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def _is_ready(self) -> bool:
        try:
            return _got(self.port, "/v2/health/ready")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.pid, signal.SIGKILL)
        self._ended(30)

    def stop(self) -> int:
        """SIGTERM, and the exit code after the drain."""
        os.kill(self.pid, signal.SIGTERM)
        return self._ended(60)

    def _ended(self, within_s: float) -> int:
        if self._process is None:
            raise RuntimeError("the daemon was not started")
        return self._process.wait(within_s)

    def inspected(self) -> dict[str, Any]:
        """`streamlearn inspect` of its newest checkpoint."""
        return self._told("inspect", str(self.state_dir), "--json")

    def manifest(self, name: str) -> dict[str, Any]:
        """What the checkpoint called `name` says of itself."""
        found: dict[str, Any] = json.loads((self.state_dir / "checkpoints" / name / "manifest.json").read_bytes())["body"]
        return found

    def replayed(self, recorded: Path) -> dict[str, Any]:
        """`streamlearn replay` of a recorded stream of one partition, whose order needs no journal."""
        return self._told("replay", str(self.config), "--from", str(recorded), "--json")

    def _told(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"streamlearn {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def metrics(self) -> dict[str, float]:
        """/metrics: `name{label="value"}` → number."""
        families = text_string_to_metric_families(_got(self._metrics_port, "/metrics")[1].decode())
        return {_series(s.name, s.labels): s.value for family in families for s in family.samples}

    def followers(self) -> list[int]:
        """Process ids of its servers."""
        tasks = Path(f"/proc/{self.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def memory(pid: int) -> Memory:
    """Resident memory of a process now, and at most so far."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Memory(*(1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM")))


def cpu_s(pid: int) -> float:
    """Seconds of processor time of a process, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def busy_s() -> float:
    """Seconds that all processors together have worked for this machine since it started."""
    user, nice, system, _idle, _wait, *interrupts = _ticks()[:7]
    return (user + nice + system + sum(interrupts)) / TICKS_PER_S


def stolen_s() -> float:
    """Seconds that a virtual machine's host took from all its processors together, when they had something to do."""
    return _ticks()[7] / TICKS_PER_S


def _ticks() -> list[int]:
    return list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]))


def _got(port: int, path: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def _series(name: str, labels: Mapping[str, str]) -> str:
    return name + ("{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}" if labels else "")
