"""Clients that others wrote, against a server process and a daemon, with tensors as JSON and as bytes: Triton's, KServe's.

KServe's package asks for older releases of pandas, psutil and others than are current, so it is run by an interpreter of its
own, which STREAMLEARN_KSERVE names: `make kserve` makes one. (Triton's for gRPC: `test_grpc.py`.)
"""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from benchmarks.testbed.numbered import LABELS, numbered
from benchmarks.testbed.ports import free_ports
from benchmarks.testbed.waiting import DEADLINE_S
from streamlearn.serving.hosts import Followers
from streamlearn.serving.service import Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher
from tests.kserve_python import kserve_python

NUMBER = 7
X = np.array([[0.5, 1.0], [2.0, -3.0], [0.0, 0.0]], np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    FilePublisher(folder).publish(numbered(NUMBER))
    host = Followers(Service("digits", Settings(port=0, grpc_port=0 if find_spec("grpc") else None)), folder=folder)
    host.start()
    yield host
    host.stop(DEADLINE_S)


@pytest.fixture(scope="module")
def client(server):
    made = triton.InferenceServerClient(f"127.0.0.1:{server.port}", connection_timeout=DEADLINE_S, network_timeout=DEADLINE_S)
    yield made
    made.close()


def features(x, datatype="FP32", *, binary):
    tensor = triton.InferInput("features", list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=binary)
    return [tensor]


def test_it_finds_server_and_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", str(NUMBER))
    assert not client.is_model_ready("digits", "6")
    assert client.get_server_metadata()["name"] == "streamlearn"
    found = client.get_model_metadata("digits")
    assert (found["versions"], found["inputs"]) == ([str(NUMBER)], [{"name": "features", "datatype": "FP32", "shape": [-1, 2]}])


@pytest.mark.parametrize("binary_out", [True, False], ids=["bytes out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["bytes in", "JSON in"])
def test_a_batch_is_answered_with_labels_probabilities_and_the_best(client, binary_in, binary_out):
    names = ("label", "probabilities", "labels", "top_labels", "top_probabilities")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    answer = client.infer("digits", features(X, binary=binary_in), outputs=outputs, request_id="q", parameters={"top_k": 2})
    said = answer.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("digits", str(NUMBER), "q")
    texts = {name: np.array([str(each if isinstance(each, str) else each.decode()) for each in answer.as_numpy(name).ravel()])
             for name in ("label", "labels", "top_labels")}  # fmt: skip
    assert texts["label"].tolist() == [str(NUMBER)] * len(X)
    assert texts["labels"].tolist() == [str(NUMBER + i) for i in range(LABELS)]
    assert texts["top_labels"].tolist() == [str(NUMBER), str(NUMBER + 1)] * len(X)
    likely = np.exp(1.0 + NUMBER)
    expected = np.full((len(X), LABELS), 1 / (likely + LABELS - 1))
    expected[:, 0] = likely / (likely + LABELS - 1)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, rtol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("top_probabilities"), expected[:, :2], rtol=1e-5)


def test_what_it_asks_wrongly_is_an_error_that_says_so(client):
    with pytest.raises(InferenceServerException, match=r"has shape \[3, 1\]") as caught:
        client.infer("digits", features(X[:, :1], binary=True))
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="not known"):
        client.infer("other", features(X, binary=True))


def learned(port):
    """Samples that the daemon has learned; 0 before it answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=5) as answer:
        return json.load(answer)["outcomes"]["learned"]
    return 0


def asked_by_kserve(port, grpc_port, model):
    """All that KServe's clients are answered, over HTTP and gRPC."""
    command = [
        kserve_python(),
        Path(__file__).with_name("kserve_asks.py"),
        f"http://127.0.0.1:{port}",
        f"127.0.0.1:{grpc_port}",
    ]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([*command, model], check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def kserve_says(server):
    assert server.grpc_port is not None
    return asked_by_kserve(server.port, server.grpc_port, "digits")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_kserves_clients_find_server_and_model(kserve_says, protocol):
    said = kserve_says[protocol]
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)


@pytest.mark.parametrize("tensors", ["json", "binary"])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_kserves_clients_are_answered(kserve_says, protocol, tensors):
    said = kserve_says[protocol][tensors]
    assert (said["model"], said["id"]) == ("digits", "q")
    # its client for HTTP reads no version out of an answer
    assert said["version"] == (str(NUMBER) if protocol == "grpc" else None)
    assert said["label"] == [str(NUMBER)] * len(X)
    assert said["labels"] == [str(NUMBER + i) for i in range(LABELS)]
    likely = np.exp(1.0 + NUMBER)
    expected = np.full((len(X), LABELS), 1 / (likely + LABELS - 1))
    expected[:, 0] = likely / (likely + LABELS - 1)
    np.testing.assert_allclose(said["probabilities"], expected, rtol=1e-5)


def test_kserves_clients_see_errors_as_they_expect_them(kserve_says):
    assert kserve_says["rest"]["other_ready"] is False
    assert "inputs: found none, expected exactly one, 'features', '400 Bad Request'" in kserve_says["rest"]["error"]
    assert kserve_says["grpc"]["error"] == "NOT_FOUND"


@pytest.fixture(scope="module")
def daemon(_forks, tmp_path_factory):
    """Not a server alone: `streamlearn run` on a stream whose label is the sign of its first feature. Its ports."""
    folder = tmp_path_factory.mktemp("daemon")
    ports = dict(zip(("port", "grpc_port"), free_ports(2), strict=True))
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(3000, 2)).round(3).tolist()
    stream = folder / "stream.jsonl"
    stream.write_text("".join(json.dumps({"features": row, "label": int(row[0] > 0)}) + "\n" for row in rows))
    config = {
        "name": "signs",
        "state_dir": str(folder / "state"),
        "source": {"type": "file", "path": str(stream), "follow": True},
        "input": {"shape": [2]},
        "learner": {"name": "sgd"},
        "serve": ports,  # by default from a process of its own, which follows
        "telemetry": {"port": 0},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    life = _forks.start("run", path)
    life.until(lambda: learned(ports["port"]) >= 3000, "all is learned", 120.0)
    yield ports
    life.kill(signal.SIGTERM)
    assert life.wait() == 0


def is_sign(label, labels, probabilities):
    """The first features of the questions are 0.5 and 2, then 0: which is 0 the stream never said."""
    assert label[:2] == ["1", "1"]
    assert sorted(labels) == ["0", "1"]
    np.testing.assert_allclose(np.sum(probabilities, 1), 1, rtol=1e-5)
    assert np.array(probabilities)[1, labels.index("1")] > 0.8
    return True


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_tritons_client_is_answered_by_a_daemon(daemon, binary):
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{daemon['port']}", network_timeout=DEADLINE_S)) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("signs")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities", "labels")]
        answer = client.infer("signs", features(X, binary=binary), outputs=outputs)
    found = {name: [str(each.decode() if isinstance(each, bytes) else each) for each in answer.as_numpy(name).ravel()]
             for name in ("label", "labels")}  # fmt: skip
    assert is_sign(**found, probabilities=answer.as_numpy("probabilities"))
    assert int(answer.get_response()["model_version"]) > 0


def test_tritons_client_for_grpc_is_answered_by_a_daemon(daemon):
    over_grpc = pytest.importorskip("tritonclient.grpc", reason="Triton's client for gRPC is not installed: the extra `dev`")
    given = [over_grpc.InferInput("features", list(X.shape), "FP32").set_data_from_numpy(X)]
    with over_grpc.InferenceServerClient(f"127.0.0.1:{daemon['grpc_port']}") as client:
        assert client.is_server_ready(client_timeout=DEADLINE_S)
        assert client.is_model_ready("signs", client_timeout=DEADLINE_S)
        outputs = [over_grpc.InferRequestedOutput(name) for name in ("label", "probabilities", "labels")]
        answer = client.infer("signs", given, outputs=outputs, client_timeout=DEADLINE_S)
    found = {name: [each.decode() for each in answer.as_numpy(name).ravel()] for name in ("label", "labels")}
    assert is_sign(**found, probabilities=answer.as_numpy("probabilities"))
    assert int(answer.get_response().model_version) > 0


def test_kserves_clients_are_answered_by_a_daemon(daemon):
    said = asked_by_kserve(daemon["port"], daemon["grpc_port"], "signs")
    for protocol in ("rest", "grpc"):
        for tensors in ("json", "binary"):
            answer = said[protocol][tensors]
            assert is_sign(answer["label"], answer["labels"], answer["probabilities"])
    assert int(said["grpc"]["json"]["version"]) > 0
