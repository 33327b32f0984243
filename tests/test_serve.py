"""`streamlearn serve --follow DIR`: a server of its own, from snapshots that somebody else publishes."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from benchmarks.testbed.ports import free_ports
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.records import Answering, Snapshot
from streamlearn.snapshot import FilePublisher
from streamlearn.snapshot_file import FILE
from streamlearn.telemetry import ROWS, SERVERS
from tests.test_deploy import passes, tool
from tests.test_telemetry import by_label, samples


def always(row, number, published_ms=0):
    """A snapshot of a network without hidden layers whose answer is always the same row."""
    bias = np.full(2, -5.0, np.float32)
    bias[row] = 5.0
    arrays = {"head.weight": np.zeros((2, 3), np.float32), "head.bias": bias, "active": np.ones(2, np.uint8)}
    real = LaMAML(LaMAML.Settings(), Task(shape=(3,), known=2, model=ModelSettings(hidden=()))).answering()
    return Snapshot(number, Answering(real.form, {**real.arrays, **arrays}, real.settings), ("no", "yes"), (3,), published_ms)


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


@contextlib.contextmanager
def serving(folder, port, metrics_port):
    places = ["--follow", str(folder), "--name", "m", "--port", str(port), "--metrics-port", str(metrics_port)]
    process = subprocess.Popen([sys.executable, "-m", "streamlearn", "serve", *places])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def scrape_until(port, holds):
    """The first page of which `holds(samples)` is true: counts are shown once a second."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = scrape(port)
        if holds(samples(text)):
            return text
        time.sleep(0.05)
    raise AssertionError(text)


def test_it_tells_prometheus_what_it_did_and_that_what_it_serves_lags_behind_a_damaged_file(tmp_path):
    port, metrics_port = free_ports(2)
    made_ms = int(time.time() * 1000) - 500_000
    FilePublisher(tmp_path).publish(always(0, 7, made_ms))
    with serving(tmp_path, port, metrics_port):
        wait_for(port, 7)
        damaged = tmp_path / "damaged"
        damaged.write_bytes((tmp_path / FILE).read_bytes()[:-40])
        damaged.replace(tmp_path / FILE)
        asked = 1 + sum(ask(port)["model_version"] == "7" for _ in range(4))
        text = scrape_until(
            metrics_port,
            lambda page: page["failed_loads_total", ()] == 1 and page["requests_total", (("code", "200"),)] == asked == 5,
        )
        page = samples(text)
        served_s = page["served_snapshot_timestamp_seconds", ()]
        assert (page["served_snapshot_number", ()], served_s) == (7, pytest.approx(made_ms / 1000, abs=1e-3))
        assert page["snapshot_timestamp_seconds", ()] == pytest.approx((tmp_path / FILE).stat().st_mtime)
        assert page["snapshot_timestamp_seconds", ()] - served_s > 400, "what the alert goes by"
        assert page["answered_rows_total", ()] == page["request_seconds_count", ()] == 5
        assert page["process_resident_memory_bytes", ()] > 0
        FilePublisher(tmp_path).publish(always(1, 8, made_ms + 400_000))
        scrape_until(metrics_port, lambda page: page["served_snapshot_timestamp_seconds", ()] > served_s + 399)
    theirs = {row.name for row in SERVERS}
    of_the_learner = {row.name for row in ROWS} - theirs
    found = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name, _ in page}
    assert theirs <= found
    assert not of_the_learner & found, "an alert on a loop that stands still would fire"
    assert by_label(text, "requests_total")["503"] == 0, "there before the first of them"


def test_promtool_has_nothing_to_say_about_its_page(tmp_path):
    promtool = tool("promtool", "Debian's package prometheus")
    port, metrics_port = free_ports(2)
    FilePublisher(tmp_path).publish(always(0, 7))
    with serving(tmp_path, port, metrics_port):
        wait_for(port, 7)
        (tmp_path / "page").write_text(scrape(metrics_port))
    assert passes("sh", "-c", f"{promtool} check metrics < {tmp_path}/page") == ""


def test_a_port_of_metrics_that_is_taken_ends_it_with_2_and_is_named(tmp_path):
    (port,) = free_ports(1)
    FilePublisher(tmp_path).publish(always(0, 7))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        places = ["--port", str(port), "--metrics-port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "streamlearn", "serve", "--follow", str(tmp_path), *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "serve.metrics_port" in done.stderr
    assert "Address already in use" in done.stderr
