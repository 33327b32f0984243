"""Questions and samples with named columns over HTTP, and whose answers they are."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.decode.fields import Rules
from streamlearn.decode.json import JsonDecoder
from streamlearn.learners.look_ahead import LaMAML
from streamlearn.learners.pool import Pool
from streamlearn.learners.task import Task
from streamlearn.models.classifier import ModelSettings
from streamlearn.protocols import Learner
from streamlearn.records import Array, Batch, Message, Record, Snapshot
from streamlearn.schema import Column, Schema, bucket
from streamlearn.serving.endpoint import Endpoint
from streamlearn.serving.http import Application
from streamlearn.serving.open_inference import RequestError, read_question
from streamlearn.serving.settings import Settings
from streamlearn.snapshot import Reference
from streamlearn.snapshot_file import read as read_snapshot
from streamlearn.snapshot_file import write as write_snapshot

SCHEMA = Schema(
    (Column("temperature"), Column("carrier", "categorical", True, 512), Column("speed", "numeric", False)), slots=16
)
NONE = np.nan


def tensor(name: str, datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data} | more


TEMPERATURE = tensor("temperature", "FP32", [1.5, None])
CARRIER = tensor("carrier", "BYTES", ["AA", ""])
SPEED = tensor("speed", "INT64", [7, 8])
RIGHT = [[1.5, bucket("AA", 512), 7.0], [NONE, NONE, 8.0]]


def ask(*inputs: dict[str, Any], schema: Schema = SCHEMA) -> Array:
    body = json.dumps({"inputs": list(inputs)}).encode()
    return read_question(body, json_bytes=None, shape=(3,), max_rows=8, schema=schema).x


def refusal(*inputs: dict[str, Any], schema: Schema = SCHEMA) -> str:
    with pytest.raises(RequestError) as caught:
        ask(*inputs, schema=schema)
    assert caught.value.status == 400
    return str(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        (TEMPERATURE, CARRIER, SPEED),
        (SPEED, TEMPERATURE, CARRIER),
        (TEMPERATURE, tensor("carrier", "BYTES", ["AA", None]), tensor("speed", "FP64", [7.0, 8.0])),
        (tensor("temperature", "FP64", [[1.5], [None]], shape=[2, 1]), CARRIER, tensor("speed", "UINT8", [7, 8])),
    ],
)
def test_each_column_is_a_tensor_and_null_or_empty_is_missing(inputs: Any) -> None:
    np.testing.assert_array_equal(ask(*inputs), np.array(RIGHT, np.float32), strict=True)


def test_a_column_that_is_left_out_is_missing_and_an_integer_is_the_category_of_its_text() -> None:
    np.testing.assert_array_equal(ask(SPEED), np.array([[NONE, NONE, 7], [NONE, NONE, 8]], np.float32))
    found = ask(SPEED, tensor("carrier", "INT32", [12, -1]))[:, 1].tolist()
    assert (
        found == ask(SPEED, tensor("carrier", "BYTES", ["12", "-1"]))[:, 1].tolist() == [bucket("12", 512), bucket("-1", 512)]
    )


def raw(*parts: tuple[str, str, Any]) -> tuple[bytes, int]:
    """A request whose tensors follow the JSON."""
    heads, tail = [], b""
    for name, datatype, data in parts:
        text = datatype == "BYTES"
        content = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in data) if text else data.tobytes()
        heads.append(
            {"name": name, "datatype": datatype, "shape": [len(data)], "parameters": {"binary_data_size": len(content)}}
        )
        tail += content
    head = json.dumps({"inputs": heads}).encode()
    return head + tail, len(head)


def test_tensors_may_follow_the_json_as_bytes() -> None:
    parts = (
        ("carrier", "BYTES", ["AA", ""]),
        ("temperature", "FP32", np.array([1.5, NONE], "<f4")),
        ("speed", "INT16", np.array([7, 8], "<i2")),
    )
    body, length = raw(*parts)
    question = read_question(body, json_bytes=length, shape=(3,), max_rows=8, schema=SCHEMA)
    np.testing.assert_array_equal(question.x, np.array(RIGHT, np.float32))
    for cut in (body[:-1], body + b"x"):
        with pytest.raises(RequestError, match=r"binary_data_size|bytes follow"):
            read_question(cut, json_bytes=length, shape=(3,), max_rows=8, schema=SCHEMA)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "inputs: found 0 tensors"),
        ((SPEED, SPEED), "inputs: found 2 tensors, expected one for each column, at least one, none of them twice"),
        ((TEMPERATURE,), "input 'speed' is missing, expected a finite number of 32 bits"),
        ((tensor("speed", "FP32", [1.0, None]),), "input 'speed' is missing, expected a finite number"),
        ((SPEED, tensor("humidity", "FP32", [1.0, 2.0])), "inputs: found 'humidity', expected columns of the model: carrier, "),
        ((SPEED, tensor("temperature", "FP32", [1.0])), "'temperature' has shape [1], expected [2], as 'speed' has"),
        (
            (SPEED, tensor("temperature", "BYTES", ["1", "2"])),
            "input 'temperature' is '1', expected a finite number of 32 bits",
        ),
        ((SPEED, tensor("carrier", "FP32", [1.5, 2.0])), "input 'carrier' is 1.5, expected text of at most"),
        (
            (SPEED, tensor("temperature", "FP64", [1e39, 0])),
            "input 'temperature' is 1e+39, expected a finite number of 32 bits",
        ),
        ((tensor("speed", "INT8", [1.5, 2]),), "'speed' does not fit INT8"),
        ((tensor("speed", "FP9", [1.5, 2]),), "'speed' has datatype 'FP9', expected BYTES, FP32"),
        ((tensor("speed", "FP32", [1.0] * 9),), "'speed' has 9 rows, expected 1 to 8 in one request"),
    ],
)
def test_a_refusal_names_the_tensor_what_was_found_and_what_was_expected(inputs: Any, message: str) -> None:
    assert refusal(*inputs).startswith(message)


def test_other_tensors_are_passed_over_where_the_configuration_says_so() -> None:
    found = ask(TEMPERATURE, CARRIER, SPEED, tensor("humidity", "FP32", [1.0, 2.0]), schema=SCHEMA._replace(unknown="ignore"))
    np.testing.assert_array_equal(found, np.array(RIGHT, np.float32))


@given(st.binary(max_size=60), st.integers(0, 70))
def test_no_body_is_met_with_anything_but_rows_or_a_refusal(noise: bytes, length: int) -> None:
    good, head = raw(("speed", "FP32", np.ones(2, "<f4")), ("carrier", "BYTES", ["AA", "B"]))
    for body, json_bytes in ((noise, None), (good[: head + 3] + noise, head), (noise + good, length)):
        try:
            read_question(body, json_bytes=json_bytes, shape=(3,), max_rows=8, schema=SCHEMA)
        except RequestError as error:
            assert error.status == 400


# Over HTTP, from learners that learned.


def rows(count: int, seed: int) -> Array:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    x[:, 1] = [bucket(name, 512) for name in random.choice(["AA", "B", "C"], count)]
    x[:, :2][random.random((count, 2)) < 0.2] = NONE
    return x


def learned(kind: Any, *, named: bool) -> Learner:
    """First about one half of the carriers, then about the others, so that the present differs from the past."""
    task = Task((3,), model=ModelSettings(hidden=(8,)), schema=SCHEMA if named else None, seed=1)
    settings = {"gate": {"half_life": 40, "window": 40, "every": 5, "quantile": 0.3}} if kind is Pool else {}
    learner: Learner = kind(kind.Settings(**settings), task)
    for seed in range(4):
        x = rows(100, seed) if named else np.nan_to_num(rows(100, seed)) / [1, 512, 1]
        learner.learn(Batch.of(x, (np.nan_to_num(x[:, 1]) * 10 + seed // 2).astype(np.int64) % 2 + seed // 2))
    return learner


def application(learner: Learner, folder: Path, *, named: bool, samples: Any = None) -> Application:
    snapshot = Snapshot(40, learner.answering(), (0, 1, 2), (3,), 0, {}, SCHEMA if named else None)
    reference = Reference()
    reference.publish(read_snapshot(write_snapshot(snapshot, folder)))
    return Application(Endpoint(reference, model_name="m", settings=Settings()), samples=samples)


def request(app: Application, method: str, path: str, body: Any = None) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, f"/v2/models/m{path}", content=None if body is None else json.dumps(body))

    return asyncio.run(run())


def named_inputs(x: Array) -> list[dict[str, Any]]:
    """Rows as tensors; categories by their text."""
    texts = {bucket(name, 512): name for name in ("AA", "B", "C")}
    carriers = [None if np.isnan(v) else texts[int(v)] for v in x[:, 1]]
    numbers = {name: [None if np.isnan(v) else float(v) for v in x[:, j]] for name, j in (("temperature", 0), ("speed", 2))}
    return [tensor("carrier", "BYTES", carriers), *(tensor(name, "FP64", values) for name, values in numbers.items())]


@pytest.mark.parametrize("kind", [Pool, LaMAML])
@pytest.mark.parametrize("named", [True, False], ids=["columns", "array"])
def test_answers_over_http_are_the_learners_whatever_the_question_is_about(kind: Any, named: bool, tmp_path: Path) -> None:
    learner = learned(kind, named=named)
    app, x = application(learner, tmp_path, named=named), rows(8, 9)
    inputs = named_inputs(x)
    if not named:
        x = np.nan_to_num(x) / np.array([1, 512, 1], np.float32)
        inputs = [{"name": "features", "shape": [8, 3], "datatype": "FP32", "data": x.tolist()}]
    answers = {}
    for about in ("now", "ever", "auto"):
        body = {"inputs": inputs, "outputs": [{"name": "probabilities"}], "parameters": {"about": about}}
        found = request(app, "POST", "/infer", body)
        assert found.status_code == 200, found.text
        answers[about] = np.array(found.json()["outputs"][0]["data"]).reshape(8, -1)
        logits = learner.predict(x.astype(np.float32), about=about).astype(np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(answers[about], powers / powers.sum(1, keepdims=True), atol=1e-5)
    assert request(app, "POST", "/infer", {"inputs": inputs, "parameters": {"about": "then"}}).status_code == 400
    if kind is Pool:
        assert not np.allclose(answers["now"], answers["ever"], atol=1e-3)


def test_metadata_lists_one_input_for_each_column(tmp_path: Path) -> None:
    app = application(learned(LaMAML, named=True), tmp_path, named=True)
    assert request(app, "GET", "").json()["inputs"] == [
        {"name": "temperature", "datatype": "FP32", "shape": [-1]},
        {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
        {"name": "speed", "datatype": "FP32", "shape": [-1]},
    ]


def test_the_description_says_what_columns_take(tmp_path: Path) -> None:
    app = application(learned(LaMAML, named=True), tmp_path, named=True)

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return (await client.get("/openapi.json")).json()["components"]["schemas"]

    schemas = asyncio.run(run())
    inputs = schemas["Question"]["properties"]["inputs"]["items"]["anyOf"]
    assert [given["properties"]["name"]["const"] for given in inputs] == ["temperature", "carrier", "speed"]
    assert "BYTES" in inputs[1]["properties"]["datatype"]["enum"]
    for sample in schemas["Samples"]["anyOf"][0]["anyOf"]:  # with a label, or with an id by which it comes later
        features = sample["properties"]["features"]["anyOf"][0]
        assert (features["required"], features["additionalProperties"]) == (["speed"], False)


def test_samples_are_posted_as_the_stream_has_them(tmp_path: Path) -> None:
    taken: list[Message] = []
    app = application(learned(LaMAML, named=True), tmp_path, named=True, samples=taken.extend)
    good = [
        {"features": {"speed": 3, "carrier": "AA"}, "label": 1},
        {"features": [None, 7, 3.5], "label": "late", "id": "a"},
        {"features": {"speed": 3, "temperature": None}, "label": 1},
    ]
    assert request(app, "POST", "/samples", good).json() == {"accepted": 3}
    decoder = JsonDecoder(Rules((3,), 1 << 20, schema=SCHEMA))
    for message, expected in zip(
        taken, ([NONE, bucket("AA", 512), 3], [NONE, bucket("7", 512), 3.5], [NONE, NONE, 3]), strict=True
    ):
        out = np.zeros(3, np.float32)
        decoder.decode(Record("p[0]", 0, message.value), out)
        np.testing.assert_array_equal(out, np.array(expected, np.float32))
    bad = {
        "sample 0: 'speed' is missing, expected": {"carrier": "AA"},
        "sample 0: 'speed' is 'x', expected": {"speed": "x"},
        "sample 0: 'features' has the field 'wind', expected columns": {"speed": 1, "wind": 2},
        "sample 0: 'features' has 1 values, expected": [1],
    }
    for message, features in bad.items():
        answer = request(app, "POST", "/samples", {"features": features, "label": 1})
        assert (answer.status_code, answer.json()["error"][: len(message)]) == (400, message)
    assert len(taken) == 3
