"""Clients that others wrote, against a server process, with tensors as JSON and as bytes: Triton's for HTTP, KServe's.

KServe's package asks for older releases of pandas, psutil and others than are current, so it is run by an interpreter of its
own, which STREAMLEARN_KSERVE names: `make kserve` makes one. (Triton's for gRPC: `test_grpc.py`.)
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from streamlearn.serving.hosts import Followers
from streamlearn.serving.http import Settings
from streamlearn.serving.service import Service
from streamlearn.snapshot import FilePublisher
from tests.test_follower import DEADLINE_S, LABELS, numbered

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


@pytest.fixture(scope="module")
def kserve_says(server):
    """All that KServe's clients were answered, over HTTP and gRPC."""
    beside = Path(__file__).parents[1] / ".venv-kserve/bin/python"
    interpreter = os.environ.get("STREAMLEARN_KSERVE") or (str(beside) if beside.exists() else sys.executable)
    if interpreter == sys.executable and not (find_spec("kserve") and find_spec("grpc")):
        pytest.skip("KServe's package is not installed: `make kserve` makes an environment of its own for it")
    assert server.grpc_port is not None
    asked = [f"http://127.0.0.1:{server.port}", f"127.0.0.1:{server.grpc_port}", "digits"]
    command = [interpreter, Path(__file__).with_name("kserve_asks.py"), *asked]
    done = subprocess.run(command, check=False, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
