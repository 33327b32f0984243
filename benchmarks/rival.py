"""Who else answers, as a process of its own, to be asked the same.

MLServer with a scikit-learn network as large as ours (`make mlserver` makes its environment); and nginx with one fixed answer,
which computes nothing: what it needs is what this machine needs for any answer (Debian's package `nginx-light`).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from benchmarks.testbed.ports import free_port
from benchmarks.testbed.waiting import until

ENVIRONMENT = Path(__file__).parents[1] / ".venv-mlserver" / "bin"
MODEL = "mlp"
MADE = """
import sys, joblib, numpy, sklearn.neural_network as networks
features, classes, *hidden = map(int, sys.argv[2:])
random = numpy.random.default_rng(0)
network = networks.MLPClassifier(hidden, max_iter=2)
network.fit(random.normal(size=(500, features)).astype("float32"), numpy.arange(500) % classes)
joblib.dump(network, sys.argv[1])
"""

FIXED = """
daemon off;
master_process off;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{{"model_name":"fixed","outputs":[]}}'; }}
  }}
}}
"""


class MLServer:
    """Answers until it is closed. Errors: RuntimeError with the end of its log when it does not get ready."""

    def __init__(self, folder: Path, *, features: int, classes: int, hidden: tuple[int, ...], workers: int) -> None:
        folder.mkdir(parents=True)
        made = [ENVIRONMENT / "python", "-W", "ignore", "-c", MADE, folder / "network.joblib", features, classes, *hidden]
        subprocess.run(list(map(str, made)), check=True)
        self.port = free_port()
        ports = {"http_port": self.port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, **ports}
        model = {"name": MODEL, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./network.joblib"}}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        log = folder / "log"
        with log.open("wb") as told:
            self._process = subprocess.Popen([ENVIRONMENT / "mlserver", "start", "."], cwd=folder, stdout=told, stderr=told)
        _wait_for(self._process, f"http://127.0.0.1:{self.port}/v2/models/{MODEL}/ready", log, deadline_s=120)

    @property
    def pids(self) -> list[int]:
        """Of all its processes."""
        found, waiting = list[int](), [self._process.pid]
        while waiting:
            found.append(pid := waiting.pop())
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        return found

    def close(self) -> None:
        """Ask it to end, then end it."""
        _end(self._process)


class Fixed:
    """nginx in one process, with the same few bytes for every question, until it is closed. Errors: as of `MLServer`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        (folder / "nginx.conf").write_text(FIXED.format(folder=folder, port=self.port))
        program = fixed_program()
        if program is None:
            raise RuntimeError("nginx is not installed: apt-get install nginx-light")
        log = folder / "log"
        self._process = subprocess.Popen([program, "-e", log, "-c", folder / "nginx.conf"])
        _wait_for(self._process, f"http://127.0.0.1:{self.port}/", log, deadline_s=10)

    @property
    def pids(self) -> list[int]:
        """Of its process."""
        return [self._process.pid]

    def close(self) -> None:
        """End it."""
        _end(self._process)


def fixed_program() -> str | None:
    """Where nginx is; None where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


def _wait_for(process: "subprocess.Popen[bytes]", address: str, log: Path, *, deadline_s: float) -> None:
    """Return once it answers. Errors: RuntimeError with the end of its log; it has ended then."""
    try:
        until(lambda: _answers(address) or process.poll() is not None, "an answer", deadline_s=deadline_s, every_s=0.1)
        assert process.poll() is None, "it ended"
    except AssertionError as error:
        _end(process)
        raise RuntimeError(f"{address}: {error}: {log.read_text()[-2000:]}") from error


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def hog() -> "subprocess.Popen[bytes]":
    """A process that takes all of a core that it is given."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])
