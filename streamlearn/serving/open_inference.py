"""Open Inference Protocol v2: messages ↔ arrays. Pure: no socket, no clock, no model.

A request holds one tensor named `features`, in JSON (flat or nested) or, by the binary tensor extension, as raw bytes after the
JSON. An answer holds the outputs that were asked for: `label`, `probabilities`, `labels`; `label` alone when nothing was named.

Source  kserve/open-inference-protocol, inference_rest; the binary extension as Triton describes it (`binary_data_size`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np

from streamlearn.errors import StreamlearnError
from streamlearn.records import About, Array, Json, Label

INPUT = "features"
OUTPUTS = ("label", "probabilities", "labels")
DTYPES: Mapping[str, "np.dtype[Any]"] = {
    "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "FP16": np.dtype("<f2"), "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
}  # fmt: skip


class RequestError(StreamlearnError):
    """Handled by `http`: the answer is `status` and `{"error": message}`."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Wanted(NamedTuple):
    """An output that was asked for."""

    name: str
    binary: bool  # as raw bytes after the JSON


@dataclass(frozen=True, slots=True)
class Question:
    """An inference request: one row for each answer wanted."""

    x: Array  # float32 [n, *shape], finite
    outputs: tuple[Wanted, ...]
    id: str | None
    about: About


@dataclass(frozen=True, slots=True)
class Answer:
    """What one snapshot said."""

    number: int
    labels: "LabelTexts"
    rows: Array  # int64 [n]: for each question the row of its label
    probabilities: Array  # float32 [n, C]; C may be below the number of labels


class LabelTexts(NamedTuple):
    """The labels of a snapshot as they go out, made once."""

    texts: tuple[str, ...]
    types: tuple[Literal["integer", "string"], ...]

    @classmethod
    def of(cls, labels: Sequence[Label]) -> "LabelTexts":
        """Integers as decimal text."""
        return cls(tuple(map(str, labels)), tuple("integer" if isinstance(label, int) else "string" for label in labels))


def read_question(body: bytes, *, json_bytes: int | None, shape: tuple[int, ...], max_rows: int) -> Question:
    """The question of a request body, of which the first `json_bytes` are JSON and the rest tensors; all is JSON when None.

    Errors  RequestError (400) that says what was found and what was expected.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise RequestError(f"Inference-Header-Content-Length is {json_bytes}, the body has {len(body)} bytes")
    try:
        request = _REQUEST.decode(body[:json_bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not an inference request: {error}") from error
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        found = ", ".join(repr(each.name[:40]) for each in request.inputs[:5]) or "none"
        raise RequestError(f"inputs: found {found}, expected exactly one, '{INPUT}'")
    binary = body[json_bytes:] if json_bytes is not None else b""
    x = _features(request.inputs[0], binary, shape=shape, max_rows=max_rows)
    return Question(x, _wanted(request), request.id, _about(request.parameters))


def numbers(data: msgspec.Raw, datatype: str, shape: tuple[int, ...]) -> Array:
    """JSON numbers, in a flat list or nested like `shape`, as an array of it. Errors: RequestError (400)."""
    depth, dtype = _depth(data), DTYPES[datatype]
    if depth not in {1, len(shape)} or depth > _DEEPEST:
        raise RequestError(f"'{INPUT}' is nested {depth} deep, expected a flat list of numbers, or one nested like its shape")
    kind = {"f": float, "b": bool}.get(dtype.kind, int)
    try:
        found = np.array(_DATA[kind, depth].decode(data), np.float64 if kind is float else dtype)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise RequestError(f"'{INPUT}' does not fit {datatype} of shape {list(shape)}: {error}") from error
    if found.shape != (shape if depth > 1 else (math.prod(shape),)):
        raise RequestError(f"'{INPUT}' holds numbers of shape {list(found.shape)}, expected {list(shape)}")
    return found.reshape(shape)


def finite_rows(found: Array) -> Array:
    """The same as float32. Errors: RequestError (400) naming the first row that is not finite then."""
    with np.errstate(over="ignore"):
        x = found.astype(np.float32)
    finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if not finite.all():
        raise RequestError(f"'{INPUT}' row {int(finite.argmin())} holds a value that is not finite as a 32-bit float")
    return x


def write_answer(answer: Answer, question: Question, *, model_name: str) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON when tensors follow it (None when all is JSON)."""
    outputs, tensors = [], []
    for wanted in question.outputs:
        output, data = _OUTPUTS[wanted.name](answer)
        if wanted.binary:
            tensors.append(_bytes(data))
            output.setdefault("parameters", {})["binary_data_size"] = len(tensors[-1])
        else:
            output["data"] = data.reshape(-1).tolist() if isinstance(data, np.ndarray) else data
        outputs.append(output)
    response: dict[str, Json] = {"model_name": model_name, "model_version": str(answer.number)}
    if question.id is not None:
        response["id"] = question.id
    text = msgspec.json.encode(response | {"outputs": outputs})
    return (text + b"".join(tensors), len(text)) if tensors else (text, None)


def model_metadata(*, model_name: str, number: int, form: str, shape: tuple[int, ...]) -> Json:
    """What `GET /v2/models/{m}` says; -1 is the number of rows, or of labels."""
    return {
        "name": model_name,
        "versions": [str(number)],
        "platform": f"streamlearn_{form}",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *shape]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1]},
        ],
    }


_Parameters = dict[str, Any]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class _Input(msgspec.Struct):
    name: str
    shape: list[_Size]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: _Parameters = {}


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters = {}


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: _Parameters = {}
    outputs: list[_Output] = []


_REQUEST = msgspec.json.Decoder(_Request)
_DEEPEST = 8


def _nested(kind: type, depth: int) -> Any:
    return kind if depth == 0 else list[_nested(kind, depth - 1)]  # type: ignore[misc]  # a type made at run time


_DATA = {
    (kind, depth): msgspec.json.Decoder(_nested(kind, depth)) for kind in (float, int, bool) for depth in range(1, _DEEPEST + 1)
}


def _features(given: _Input, binary: bytes, *, shape: tuple[int, ...], max_rows: int) -> Array:
    if given.datatype not in DTYPES:
        raise RequestError(f"'{INPUT}' has datatype {given.datatype[:20]!r}, expected one of {', '.join(DTYPES)}")
    if tuple(given.shape[1:]) != shape or not given.shape:
        expected = ", ".join(map(str, ("n", *shape)))
        raise RequestError(f"'{INPUT}' has shape {given.shape[:10]}, expected [{expected}]")
    if not 1 <= given.shape[0] <= max_rows:
        raise RequestError(f"'{INPUT}' has {given.shape[0]} rows, expected 1 to {max_rows} in one request")
    if "binary_data_size" in given.parameters:
        return finite_rows(_from_bytes(given, binary).reshape(given.shape))
    if binary:
        raise RequestError(f"{len(binary)} bytes follow the JSON, but '{INPUT}' has no 'binary_data_size'")
    return finite_rows(numbers(given.data, given.datatype, tuple(given.shape)))


def _from_bytes(given: _Input, binary: bytes) -> Array:
    dtype, size = DTYPES[given.datatype], given.parameters["binary_data_size"]
    expected = math.prod(given.shape) * dtype.itemsize
    if size != expected or isinstance(size, bool):
        raise RequestError(f"'{INPUT}' has binary_data_size {str(size)[:20]}, its shape and datatype need {expected}")
    if len(binary) != expected or bytes(given.data):
        raise RequestError(f"{len(binary)} bytes follow the JSON, expected {expected}, and no 'data' beside them")
    return np.frombuffer(binary, np.uint8) != 0 if dtype.kind == "b" else np.frombuffer(binary, dtype)


def _depth(data: msgspec.Raw) -> int:
    """How many lists open before the first value."""
    depth = 0
    for byte in memoryview(data):
        if byte == ord("["):
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


def _wanted(request: _Request) -> tuple[Wanted, ...]:
    everywhere = _flag(request.parameters, "binary_data_output", False)
    wanted = tuple(Wanted(each.name, _flag(each.parameters, "binary_data", everywhere)) for each in request.outputs)
    names = [each.name for each in wanted]
    for name in names:
        if name not in OUTPUTS or names.count(name) > 1:
            raise RequestError(f"outputs: found {name[:40]!r}, expected each of {', '.join(OUTPUTS)} at most once")
    return wanted or (Wanted("label", everywhere),)


def _flag(parameters: _Parameters, name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"parameter '{name}' is not valid: expected true or false")
    return value


def _about(parameters: _Parameters) -> About:
    for about in get_args(About):
        if parameters.get("about", "auto") == about:
            return about  # type: ignore[no-any-return]  # get_args forgets the type
    raise RequestError(f"parameter 'about' is not valid: expected one of {', '.join(get_args(About))}")


def _label(answer: Answer) -> tuple[dict[str, Json], list[str]]:
    return _bytes_output("label", answer.labels, answer.rows.tolist())


def _labels(answer: Answer) -> tuple[dict[str, Json], list[str]]:
    return _bytes_output("labels", answer.labels, range(answer.probabilities.shape[1]))


def _probabilities(answer: Answer) -> tuple[dict[str, Json], Array]:
    return {"name": "probabilities", "datatype": "FP32", "shape": list(answer.probabilities.shape)}, answer.probabilities


_OUTPUTS: Mapping[str, Any] = {"label": _label, "probabilities": _probabilities, "labels": _labels}


def _bytes_output(name: str, labels: LabelTexts, rows: Sequence[int]) -> tuple[dict[str, Json], list[str]]:
    """Labels of one type say so once; of several, `1` and `"1"` look alike as text, so each says its own."""
    types = [labels.types[row] for row in rows]
    parameters = {"label_type": types[0]} if len(set(types)) == 1 else {"label_type": "mixed", "label_types": ",".join(types)}
    output = {"name": name, "datatype": "BYTES", "shape": [len(rows)], "parameters": parameters}
    return output, [labels.texts[row] for row in rows]


def _bytes(data: Array | list[str]) -> bytes:
    """Little-endian values; for text each element after its length in four bytes."""
    if isinstance(data, np.ndarray):
        return np.asarray(data, "<f4").tobytes()
    return b"".join(len(raw).to_bytes(4, "little") + raw for raw in map(str.encode, data))
