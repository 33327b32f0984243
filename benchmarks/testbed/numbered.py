"""Snapshots that say their number in every part of an answer, so that an answer mixed of two would be seen."""

import math
from typing import Any

import httpx
import numpy as np

from streamlearn.records import Answering, Array, Snapshot

INFER = "/v2/models/digits/infer"
LABELS = 20


def numbered(number: int) -> Snapshot:
    """A snapshot whose every answer tells its number: as the label, and as the probability of the label."""
    bias = np.zeros(LABELS, np.float32)
    bias[0] = 1 + number % 97
    arrays: dict[str, Array] = {
        "head.weight": np.zeros((LABELS, 2), np.float32),
        "head.bias": bias,
        "active": np.ones(LABELS, np.uint8),
    }
    return Snapshot(number, Answering("mlp", arrays, {}), tuple(range(number, number + LABELS)), (2,), 0)


def question(*names: str) -> dict[str, Any]:
    """About one sample; the outputs of these names are wanted."""
    features = {"name": "features", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]}
    return {"inputs": [features], "outputs": [{"name": name} for name in names]}


ALL = question("label", "probabilities", "labels")


def assert_of_one_snapshot(answer: httpx.Response) -> int:
    """The number that the answer to `ALL` tells three times. Errors: AssertionError where it tells several."""
    assert answer.status_code == 200, answer.text
    version = int(answer.json()["model_version"])
    label, probabilities, labels = (output["data"] for output in answer.json()["outputs"])
    assert label == [str(version)], f"{label} from number {version}"
    assert labels == [str(version + i) for i in range(LABELS)], f"{labels} from number {version}"
    power = math.exp(1.0 + version % 97)
    expected = power / (power + LABELS - 1)
    assert math.isclose(probabilities[0], expected, rel_tol=1e-5), f"{probabilities[0]} from number {version}, not {expected}"
    return version
