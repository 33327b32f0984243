"""MLServer with a scikit-learn network as large as ours, as a process of its own (`make mlserver` makes its environment)."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.process import free_port

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
        until = time.monotonic() + 120
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise RuntimeError(f"MLServer is not ready: {log.read_text()[-2000:]}")
            time.sleep(0.2)

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
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/v2/models/{MODEL}/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def hog() -> "subprocess.Popen[bytes]":
    """A process that takes all of a core that it is given."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])
