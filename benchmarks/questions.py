"""A client of the served model: Open Inference Protocol v2 over one connection, by the standard library alone."""

import http.client
import json
import time
from types import TracebackType
from typing import NamedTuple

import numpy as np

from streamlearn.records import Array, Json

LOOK_EVERY_S = 0.02


class Answers(NamedTuple):
    """What one snapshot said."""

    number: int
    labels: Array  # int64 [n]


class Questions:
    """Asks a model at a port of this machine. Labels are expected to be integers."""

    def __init__(self, port: int, model: str, *, timeout_s: float = 60.0) -> None:
        self.path = f"/v2/models/{model}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def __enter__(self) -> "Questions":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def number(self) -> int:
        """Of the snapshot that is served now."""
        return int(json.loads(self._asked("GET", self.path))["versions"][0])

    def wait_for(self, number: int, *, within_s: float) -> int:
        """The served number once it is `number` or above. Errors: TimeoutError naming what is served instead."""
        until = time.monotonic() + within_s
        while (found := self.number()) < number:
            if time.monotonic() > until:
                raise TimeoutError(f"snapshot {found} is served after {within_s:g} s: expected {number}")
            time.sleep(LOOK_EVERY_S)
        return found

    def ask(self, x: Array, *, binary: bool = True) -> Answers:
        """Labels of uint8 inputs [n, *shape], sent as raw bytes or as JSON numbers."""
        if not binary:
            return _answers(self._asked("POST", f"{self.path}/infer", json_body(x)))
        head = json.dumps({"inputs": [_tensor(x) | {"parameters": {"binary_data_size": x.nbytes}}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        return _answers(self._asked("POST", f"{self.path}/infer", head + x.tobytes(), headers))

    def _asked(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ConnectionError(f"{method} {path} was answered {response.status}: {content[:200]!r}")
        return content


def json_body(x: Array) -> bytes:
    """An inference request with the numbers of `x`, uint8 or float32 [n, *shape], as JSON."""
    return json.dumps({"inputs": [_tensor(x) | {"data": x.reshape(-1).tolist()}]}).encode()


def _tensor(x: Array) -> dict[str, Json]:
    return {"name": "features", "datatype": {"u": "UINT8", "f": "FP32"}[x.dtype.kind], "shape": list(x.shape)}


def _answers(content: bytes) -> Answers:
    answer = json.loads(content)
    return Answers(int(answer["model_version"]), np.array(answer["outputs"][0]["data"], np.int64))
