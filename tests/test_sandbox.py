"""The daemon as an unprivileged user on a read-only root, in bubblewrap: what the Dockerfile asks of a container engine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.small import append, keys, samples

USER = 10001
ROOT = Path(__file__).parent.parent


def sandbox(state):
    """The root read-only, /tmp and shared memory its own and empty, no capability, a user without a name."""
    home = ["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--dev", "/dev", "--tmpfs", "/dev/shm", "--proc", "/proc"]  # noqa: S108
    code = ["--ro-bind", str(ROOT), str(ROOT), "--bind", str(state), str(state), "--chdir", str(state)]
    user = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--uid", str(USER), "--gid", str(USER), "--cap-drop", "ALL"]
    variables = ["--setenv", "NUMBA_CACHE_DIR", "/tmp/numba", "--setenv", "HOME", str(state)]  # noqa: S108
    return ["bwrap", *home, *code, *user, *variables, "--die-with-parent", "--new-session"]


@pytest.fixture
def state(tmp_path):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap (bwrap) is not here")
    (tmp_path / "state").mkdir()
    tried = subprocess.run([*sandbox(tmp_path / "state"), "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"bubblewrap may not make a sandbox here: {tried.stderr.strip()}")
    return tmp_path / "state"


PROBE = """
import os, pathlib, sys
print(os.getuid(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0])
for place in sys.argv[1:]:
    try:
        (pathlib.Path(place) / "planted").write_text("x")
        print("written", place)
    except OSError as error:
        print(type(error).__name__, place)
"""


def test_the_sandbox_is_one(state):
    """Else the next test would show nothing."""
    places = ["/etc", "/usr", str(ROOT), str(ROOT / "streamlearn"), os.path.dirname(sys.executable), str(state)]  # noqa: PTH120
    done = subprocess.run([*sandbox(state), sys.executable, "-c", PROBE, *places], capture_output=True, text=True, check=True)
    first, *rest = done.stdout.splitlines()
    assert first == f"{USER} 0000000000000000"
    assert [line.split()[0] for line in rest] == ["OSError"] * 5 + ["written"]


def test_it_learns_answers_and_resumes_there(state):
    port, metrics = free_ports(2)
    values = keys(state / "state", {"type": "log", "path": str(state / "samples.sqlite")})
    values["learner"] = {"name": "sgd"}  # nothing to compile, for nothing that was compiled before is there
    values |= {"serve": {"port": port, "grpc_port": None}, "telemetry": {"port": metrics}}
    del values["publish"]["folder"]  # in shared memory, as by default
    append(state / "samples.sqlite", samples(300))
    (state / "config.yaml").write_text(yaml.safe_dump(values))
    command = [*sandbox(state), sys.executable, "-m", "streamlearn", "run", str(state / "config.yaml")]
    for count, first in ((300, True), (400, False)):
        if not first:
            append(state / "samples.sqlite", samples(100, seed=1))
        with (state / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(lambda count=count: status(port)["outcomes"]["learned"] == count, process, state)
            assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=30).status_code == 200
            features = {"name": "features", "shape": [1, 6], "datatype": "FP32", "data": [0.0] * 6}
            answer = httpx.post(f"http://127.0.0.1:{port}/v2/models/model/infer", json={"inputs": [features]}, timeout=30)
            assert answer.status_code == 200
            assert "streamlearn_records_total" in httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).text
            (inner,) = [pid for pid in children(process.pid) for pid in children(pid)] or children(process.pid)
            os.kill(inner, signal.SIGTERM)
            assert process.wait(60) == 0, (state / "log").read_text()
        finally:
            process.kill()
            process.wait()
        said = (state / "log").read_text()
        assert ("daemon.restored" in said) is not first
        assert "snapshot.on_disk" not in said


def status(port):
    with suppress(httpx.TransportError):
        answer = httpx.get(f"http://127.0.0.1:{port}/status.json", timeout=30)
        if answer.status_code == 200:
            return answer.json()
    return {"outcomes": {"learned": None}}


def until(claim, process, state):
    """It happens in another process, so it can only be asked for again and again."""
    deadline = time.monotonic() + 120
    while not claim():
        assert process.poll() is None, (state / "log").read_text()
        assert time.monotonic() < deadline, (state / "log").read_text()
        time.sleep(0.05)


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
