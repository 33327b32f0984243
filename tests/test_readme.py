"""The README, word by word: the demo as its own process, and the blocks that a new user pastes."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Demo:
    """`streamlearn demo` on ports of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.port, self.metrics_port = free_ports(2)
        self.errors = (folder / "stderr").open("ab")
        arguments = ["--state-dir", str(folder / "state"), "--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        command = [sys.executable, "-m", "streamlearn", "demo", "--rate", "400", *arguments]
        self.process = subprocess.Popen(command, stderr=self.errors)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def wait_for(self, condition, *, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "stderr").read_text()
            with contextlib.suppress(OSError):
                status = self.get("/status.json")
                if condition(status):
                    return status
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s} s: {(self.folder / 'stderr').read_text()}")

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.errors.close()
        return code


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def learned(n):
    return lambda status: status["outcomes"]["learned"] >= n


def test_the_demo_learns(demo):
    status = demo.wait_for(learned(2000))
    assert status["accuracy"]["accuracy"] > 0.8
    assert status["number"] == status["outcomes"]["learned"] // 10


@pytest.mark.parametrize("block", range(len(BASH)))
def test_what_a_new_user_pastes_works(demo, tmp_path_factory, block):
    demo.wait_for(learned(100))
    here = tmp_path_factory.getbasetemp() / "pasted"
    here.mkdir(exist_ok=True)
    script = BASH[block].replace(":8080", f":{demo.port}").replace(":8082", f":{demo.metrics_port}")
    script = script.replace("python3", sys.executable)
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, cwd=here, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout
    if block == 0:
        answer, _ = json.JSONDecoder().raw_decode(done.stdout)
        assert answer["outputs"][0]["name"] == "label"
        assert re.search(r"streamlearn_accuracy_ratio 0\.\d+", done.stdout)


def test_a_posted_sample_is_learned_like_any_other(demo):
    before = demo.get("/status.json")
    sample = json.dumps({"features": [[0.5] * 8] * 8, "label": "a label of its own"}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{demo.port}/v2/models/digits/samples", sample)
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status in (200, 202)
    demo.wait_for(lambda status: status["labels"] == before["labels"] + 1)


def test_killed_and_started_again_it_goes_on_where_it_was(tmp_path):
    with Demo(tmp_path) as first:
        status = first.wait_for(lambda s: (s["checkpoint"] or {}).get("number", 0) > 0, timeout_s=90)
        first.end(signal.SIGKILL)
    with Demo(tmp_path) as second:
        again = second.wait_for(learned(status["outcomes"]["learned"] + 200))
        assert again["accuracy"]["accuracy"] > 0.8
        assert again["history"]["learned"][0] < status["outcomes"]["learned"]
        assert second.end(signal.SIGTERM) == 0
    assert "daemon.restored" in (tmp_path / "stderr").read_text()
