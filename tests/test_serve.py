"""`streamlearn serve --follow DIR`: a server of its own, from snapshots that somebody else publishes."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
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


def test_it_takes_name_port_and_tokens_from_the_daemons_configuration(tmp_path, monkeypatch):
    (port,) = free_ports(1)
    snapshots = tmp_path / "snapshots"
    FilePublisher(snapshots).publish(always(1, 7))
    config = tmp_path / "config.yaml"
    config.write_text("name: orders\nsource: {type: stdin}\ninput: {shape: [3]}\nserve: {port: 1}\n")
    monkeypatch.setenv("STREAMLEARN__SERVE__TOKENS", '[{"role": "read", "token": "0123456789abcdef"}]')
    places = [
        "--follow",
        str(snapshots),
        "--config",
        str(config),
        "--set",
        f"serve.port={port}",
        "--set",
        "serve.grpc_port=null",
    ]
    process = subprocess.Popen([sys.executable, "-m", "streamlearn", "serve", *places])
    try:
        answers = wait_until_it_answers(port, "/v2/models/orders")
        assert answers == (401, None)
        status, told = get(port, "/v2/models/orders", authorization="Bearer 0123456789abcdef")
        assert (status, told["name"], told["versions"]) == (200, "orders", ["7"])
    finally:
        process.kill()
        process.wait()


def get(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def wait_until_it_answers(port, path):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return get(port, path)
        time.sleep(0.05)
    raise AssertionError("no answer")


def test_keys_without_a_configuration_are_refused(tmp_path):
    command = [sys.executable, "-m", "streamlearn", "serve", "--follow", str(tmp_path), "--set", "serve.port=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected --config FILE" in done.stderr


def test_it_answers_grpc_at_a_port_of_its_own(tmp_path):
    triton = pytest.importorskip("tritonclient.grpc", reason="Triton's client for gRPC is not installed: the extra `dev`")
    http, grpc = free_ports(2)
    FilePublisher(tmp_path).publish(always(1, 7))
    places = ["--follow", str(tmp_path), "--name", "m", "--port", str(http), "--grpc-port", str(grpc)]
    process = subprocess.Popen([sys.executable, "-m", "streamlearn", "serve", *places])
    try:
        wait_for(http, 7)
        features = triton.InferInput("features", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        with triton.InferenceServerClient(f"127.0.0.1:{grpc}") as client:
            assert client.infer("m", [features]).as_numpy("label").tolist() == [b"yes"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
