"""`streamlearn serve --follow DIR`: a server of its own, from snapshots that somebody else publishes."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Answering, Snapshot
from streamlearn.snapshot import FilePublisher
from tests.test_readme import free_ports


def always(row, number):
    """A snapshot of a network without hidden layers whose answer is always the same row."""
    bias = np.full(2, -5.0, np.float32)
    bias[row] = 5.0
    arrays = {"head.weight": np.zeros((2, 3), np.float32), "head.bias": bias, "active": np.ones(2, np.uint8)}
    real = LaMAML(LaMAML.Settings(), Task(shape=(3,), known=2, model=ModelSettings(hidden=()))).answering()
    return Snapshot(number, Answering(real.form, {**real.arrays, **arrays}, real.settings), ("no", "yes"), (3,), 0)


@pytest.fixture
def server(tmp_path):
    (port,) = free_ports(1)
    FilePublisher(tmp_path).publish(always(0, 7))
    command = [sys.executable, "-m", "streamlearn", "serve", "--follow", str(tmp_path), "--name", "m", "--port", str(port)]
    process = subprocess.Popen(command)
    yield tmp_path, port, process
    process.kill()
    process.wait()


def ask(port):
    body = {"inputs": [{"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/models/m/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def wait_for(port, number):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            answer = ask(port)
            if answer["model_version"] == str(number):
                return answer
        time.sleep(0.05)
    raise AssertionError(f"no answer of version {number}")


def test_it_follows_what_is_published_and_ends_when_asked(server):
    folder, port, process = server
    assert wait_for(port, 7)["outputs"][0]["data"] == ["no"]
    FilePublisher(folder).publish(always(1, 8))
    assert wait_for(port, 8)["outputs"][0]["data"] == ["yes"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
