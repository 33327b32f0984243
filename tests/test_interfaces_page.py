"""docs/interfaces.md: every program on it is run as it stands, but for the ports, against a server."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.testbed.waiting import DEADLINE_S
from streamlearn.config import configure
from streamlearn.configured_servers import service
from streamlearn.records import Answering, Snapshot
from streamlearn.serving.hosts import Followers
from streamlearn.serving.service import Service
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import FilePublisher
from tests.kserve_python import kserve_python

PAGE = (Path(__file__).parents[1] / "docs/interfaces.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def digits():
    """Ten digits, of which 3 is always the likeliest, then 4."""
    bias = np.zeros(10, np.float32)
    bias[3], bias[4] = 2.0, 1.0
    arrays = {"head.weight": np.zeros((10, 64), np.float32), "head.bias": bias, "active": np.ones(10, np.uint8)}
    return Snapshot(1234, Answering("mlp", arrays, {}), tuple(range(10)), (8, 8), 0)


DIGITS = digits()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    FilePublisher(folder).publish(DIGITS)
    running = Followers(Service("digits", Settings(port=0, grpc_port=0 if find_spec("grpc") else None)), folder=folder)
    running.start()
    yield running
    running.stop(DEADLINE_S)


def test_the_program_that_asks_over_kafka_prints_the_answer(kafka, kafka_topic, tmp_path):
    (program,) = [each for each in PROGRAMS if "KafkaProducer" in each]
    topics = {"digits.questions": kafka_topic(), "digits.answers": kafka_topic()}
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "kafka:" in each]
    for name, own in topics.items():
        program, block = program.replace(name, own), block.replace(name, own)
    values = yaml.safe_load(block.replace("127.0.0.1:9092", kafka)) | {"state_dir": str(tmp_path)}
    values["serve"] |= {"port": 0}
    values["serve"]["kafka"] |= {"start": "earliest"}
    told = service(configure(values | {"name": "digits", "source": {"type": "stdin"}, "input": {"shape": [8, 8]}}))
    live = tmp_path / "live"
    FilePublisher(live).publish(DIGITS)
    host = Followers(told, folder=live)
    host.start()
    try:
        text = program.replace("127.0.0.1:9092", kafka)
        done = subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True, timeout=60)
    finally:
        host.stop(DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 1234 {")
    assert "'data': ['3']" in done.stdout


SERVED = [each for each in PROGRAMS if ":808" in each]


@pytest.mark.parametrize("program", SERVED, ids=[str(i) for i in range(len(SERVED))])
def test_a_program_prints_the_answer_and_its_version(host, program):
    if "8081" in program and host.grpc_port is None:
        pytest.skip("grpcio is not installed: the extra `grpc`")
    interpreter = kserve_python() if "kserve" in program else sys.executable
    text = program.replace(":8080", f":{host.port}").replace(":8081", f":{host.grpc_port}")
    done = subprocess.run([interpreter, "-c", text], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1234" in done.stdout or "InferenceRESTClient" in program
    expected = np.exp(2.0) / (np.exp(2.0) + np.exp(1.0) + 8)
    assert "'3'" in done.stdout if "top_labels" in program else f"{expected:.7}"[:7] in done.stdout


def test_the_program_that_loads_an_exported_model_prints_what_is_served(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra `dev`")
    (program,) = [each for each in PROGRAMS if "onnxruntime" in each]
    FilePublisher(tmp_path).publish(DIGITS)
    command = [sys.executable, "-m", "streamlearn", "export", str(tmp_path), "--to", "digits.onnx"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, timeout=120)
    done = subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1234 [3, 3]\n"
