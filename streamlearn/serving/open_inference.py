"""Open Inference Protocol v2: messages ↔ arrays. Pure: no socket, no clock, no model.

A request holds one tensor named `features`, or one for each named column (`named_tensors`), in JSON or, by the binary tensor
extension, as raw bytes after the JSON. An answer holds the outputs that were asked for: `label`, `probabilities`, `labels`;
`label` alone when nothing was named.

Source  kserve/open-inference-protocol, inference_rest; the binary extension as Triton describes it (`binary_data_size`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np

from streamlearn.records import About, Array, Json, Label
from streamlearn.schema import Schema
from streamlearn.serving.named_tensors import named_inputs, named_rows
from streamlearn.serving.tensors import INPUT, Input, Parameters, RequestError, features

__all__ = [
    "JSON_LENGTH",
    "OUTPUTS",
    "Answer",
    "LabelTexts",
    "Question",
    "Request",
    "RequestError",
    "RequestedOutput",
    "Wanted",
    "answered",
    "json_length",
    "model_metadata",
    "question_of",
    "raw_bytes",
    "read_question",
    "write_answer",
]

JSON_LENGTH = "inference-header-content-length"
"""Header that tells how many bytes of a body are JSON, before raw tensors."""
OUTPUTS = ("label", "probabilities", "labels", "top_labels", "top_probabilities", "set_labels", "set_sizes")
ABOUT: tuple[About, ...] = get_args(About)
TOP_K = 5


class Wanted(NamedTuple):
    """An output that was asked for."""

    name: str
    binary: bool  # as raw bytes after the JSON


class Question(NamedTuple):
    """An inference request: one row for each answer wanted."""

    x: Array  # float32 [n, *shape], finite
    outputs: tuple[Wanted, ...]
    id: str | None
    about: About
    top_k: int = TOP_K  # best labels of a row, in `top_labels` and `top_probabilities`; fewer where fewer are known
    sets: float | None = None  # coverage of `set_labels` and `set_sizes`; None: the least that is promised


class Answer:
    """What one snapshot said."""

    __slots__ = ("_probabilities", "labels", "number", "rows", "sets")

    def __init__(
        self,
        number: int,
        labels: "LabelTexts",
        rows: Array,
        probabilities: Array | Callable[[], Array],
        sets: Mapping[float, float] | None = None,
    ) -> None:
        """`rows`: int64 [n], for each question the row of its label. `sets`: coverage → largest 1 − p of a label in the set."""
        self.number, self.labels, self.rows, self.sets = number, labels, rows, sets or {}
        self._probabilities = probabilities

    @property
    def probabilities(self) -> Array:
        """float32 [n, C]; C may be below the number of labels. Made when they are first asked for: most questions never do."""
        if callable(self._probabilities):
            self._probabilities = self._probabilities()
        return self._probabilities

    def best(self, k: int) -> Array:
        """int64 [n, k]: rows of the best labels, best first; of equal ones the answer first, then the earlier label."""
        others = np.arange(self.probabilities.shape[1]) != self.rows[:, None]
        return np.lexsort((others, -self.probabilities), axis=1)[:, :k]

    def members(self, coverage: float | None) -> Array:
        """bool [n, C]: labels of each row's set. Errors: RequestError (400) for a coverage that is not promised."""
        if not self.sets:
            raise RequestError("this model promises no sets: expected `conformal.coverages` in its configuration")
        coverage = min(self.sets) if coverage is None else coverage
        if coverage not in self.sets:
            raise RequestError(f"parameter 'sets' is {coverage:g}: expected one of {', '.join(map(str, self.sets))}")
        return np.asarray(self.probabilities >= 1.0 - self.sets[coverage])


class LabelTexts(NamedTuple):
    """The labels of a snapshot as they go out, made once."""

    texts: tuple[str, ...]
    types: tuple[Literal["integer", "string"], ...]
    type: Literal["integer", "string", "mixed"]  # of all of them

    @classmethod
    def of(cls, labels: Sequence[Label]) -> "LabelTexts":
        """Integers as decimal text."""
        types: tuple[Literal["integer", "string"], ...] = tuple(
            "integer" if isinstance(label, int) else "string" for label in labels
        )
        return cls(tuple(map(str, labels)), types, "mixed" if len(set(types)) > 1 else max(types, default="string"))


def read_question(
    body: bytes, *, json_bytes: int | None, shape: tuple[int, ...], max_rows: int, schema: Schema | None = None
) -> Question:
    """The question of a request body, of which the first `json_bytes` are JSON and the rest tensors; all is JSON when None.

    Errors  RequestError (400) that says what was found and what was expected.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise RequestError(f"Inference-Header-Content-Length is {json_bytes}, the body has {len(body)} bytes")
    try:
        request = _REQUEST.decode(body[:json_bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not an inference request: {error}") from error
    binary = body[json_bytes:] if json_bytes is not None else b""
    return question_of(request, binary, shape=shape, max_rows=max_rows, schema=schema)


def json_length(text: str | None) -> int | None:
    """Bytes of JSON, as the header `JSON_LENGTH` tells them. Errors: RequestError (400)."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError(f"Inference-Header-Content-Length is {text[:20]!r}, expected a number of bytes")
    return int(text)


def question_of(
    request: "Request", binary: bytes, *, shape: tuple[int, ...], max_rows: int, schema: Schema | None = None
) -> Question:
    """The question of a request whose inputs with a `binary_data_size` lie in `binary`. Errors: RequestError (400)."""
    if schema is not None:
        x = named_rows(request.inputs, binary, schema=schema, max_rows=max_rows)
    elif len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        found = ", ".join(repr(each.name[:40]) for each in request.inputs[:5]) or "none"
        raise RequestError(f"inputs: found {found}, expected exactly one, '{INPUT}'")
    else:
        x = features(request.inputs[0], binary, shape=shape, max_rows=max_rows)
    about, top_k, sets = _about(request.parameters), _top_k(request.parameters), _sets(request.parameters)
    return Question(x, _wanted(request), request.id, about, top_k, sets)


def write_answer(answer: Answer, question: Question, *, model_name: str) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON when tensors follow it (None when all is JSON)."""
    outputs, tensors = [], []
    for wanted, (output, data) in zip(question.outputs, answered(answer, question), strict=True):
        if wanted.binary:
            tensors.append(raw_bytes(data))
            output.setdefault("parameters", {})["binary_data_size"] = len(tensors[-1])
        else:
            output["data"] = data.reshape(-1).tolist() if isinstance(data, np.ndarray) else data
        outputs.append(output)
    response: dict[str, Json] = {"model_name": model_name, "model_version": str(answer.number)}
    if question.id is not None:
        response["id"] = question.id
    text = msgspec.json.encode(response | {"outputs": outputs})
    return (text + b"".join(tensors), len(text)) if tensors else (text, None)


def answered(answer: Answer, question: Question) -> "list[tuple[dict[str, Json], Array | list[str]]]":
    """Each output that was asked for: name, datatype, shape and parameters, and its data."""
    return [_OUTPUTS[wanted.name](answer, question) for wanted in question.outputs]


def model_metadata(*, model_name: str, number: int, form: str, shape: tuple[int, ...], schema: Schema | None = None) -> Json:
    """What `GET /v2/models/{m}` says; -1 is the number of rows, or of labels."""
    inputs = [{"name": INPUT, "datatype": "FP32", "shape": [-1, *shape]}] if schema is None else named_inputs(schema)
    return {
        "name": model_name,
        "versions": [str(number)],
        "platform": f"streamlearn_{form}",
        "inputs": inputs,
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            {"name": "top_labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "top_probabilities", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "set_labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "set_sizes", "datatype": "INT32", "shape": [-1]},
        ],
    }


class RequestedOutput(msgspec.Struct):
    """An output as it was asked for."""

    name: str
    parameters: Parameters = {}


class Request(msgspec.Struct):
    """A request as it came."""

    inputs: list[Input]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[RequestedOutput] = []


_REQUEST = msgspec.json.Decoder(Request)


_LABEL: Mapping[bool, tuple[Wanted, ...]] = {binary: (Wanted("label", binary),) for binary in (False, True)}


def _wanted(request: Request) -> tuple[Wanted, ...]:
    everywhere = _flag(request.parameters, "binary_data_output", False)
    if not request.outputs and "sets" not in request.parameters:
        return _LABEL[everywhere]
    wanted = tuple(Wanted(each.name, _flag(each.parameters, "binary_data", everywhere)) for each in request.outputs)
    names = [each.name for each in wanted]
    for name in names:
        if name not in OUTPUTS or names.count(name) > 1:
            raise RequestError(f"outputs: found {name[:40]!r}, expected each of {', '.join(OUTPUTS)} at most once")
    wanted = wanted or _LABEL[everywhere]
    sets = ("set_labels", "set_sizes") if "sets" in request.parameters else ()
    return wanted + tuple(Wanted(name, everywhere) for name in sets if name not in names)


def _flag(parameters: Parameters, name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"parameter '{name}' is not valid: expected true or false")
    return value


def _about(parameters: Parameters) -> About:
    for about in ABOUT:
        if parameters.get("about", "auto") == about:
            return about
    raise RequestError(f"parameter 'about' is not valid: expected one of {', '.join(ABOUT)}")


def _top_k(parameters: Parameters) -> int:
    value = parameters.get("top_k", TOP_K)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RequestError("parameter 'top_k' is not valid: expected a whole number of 1 or more")
    return value


def _sets(parameters: Parameters) -> float | None:
    value = parameters.get("sets")
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise RequestError("parameter 'sets' is not valid: expected a coverage between 0 and 1")
    return value


def _label(answer: Answer, _: Question) -> tuple[dict[str, Json], list[str]]:
    return _bytes_output("label", answer.labels, answer.rows.tolist())


def _labels(answer: Answer, _: Question) -> tuple[dict[str, Json], list[str]]:
    return _bytes_output("labels", answer.labels, range(answer.probabilities.shape[1]))


def _probabilities(answer: Answer, _: Question) -> tuple[dict[str, Json], Array]:
    return {"name": "probabilities", "datatype": "FP32", "shape": list(answer.probabilities.shape)}, answer.probabilities


def _top_labels(answer: Answer, question: Question) -> tuple[dict[str, Json], list[str]]:
    best = answer.best(question.top_k)
    output, texts = _bytes_output("top_labels", answer.labels, best.ravel().tolist())
    return output | {"shape": list(best.shape)}, texts


def _top_probabilities(answer: Answer, question: Question) -> tuple[dict[str, Json], Array]:
    found = np.take_along_axis(answer.probabilities, answer.best(question.top_k), axis=1)
    return {"name": "top_probabilities", "datatype": "FP32", "shape": list(found.shape)}, found


def _set_labels(answer: Answer, question: Question) -> tuple[dict[str, Json], list[str]]:
    """Best first; a row whose set is smaller than the largest is filled up with empty texts, which no label is."""
    members = answer.members(question.sets)
    best, sizes = answer.best(members.shape[1]), members.sum(1)
    width = int(sizes.max(initial=0))
    rows = np.where(np.arange(width) < sizes[:, None], best[:, :width], -1)
    output, texts = _bytes_output("set_labels", answer.labels, rows.ravel().tolist())
    return output | {"shape": list(rows.shape)}, texts


def _set_sizes(answer: Answer, question: Question) -> tuple[dict[str, Json], Array]:
    sizes = answer.members(question.sets).sum(1).astype(np.int32)
    return {"name": "set_sizes", "datatype": "INT32", "shape": list(sizes.shape)}, sizes


_OUTPUTS: Mapping[str, Any] = {
    "label": _label,
    "probabilities": _probabilities,
    "labels": _labels,
    "top_labels": _top_labels,
    "top_probabilities": _top_probabilities,
    "set_labels": _set_labels,
    "set_sizes": _set_sizes,
}


def _bytes_output(name: str, labels: LabelTexts, rows: Sequence[int]) -> tuple[dict[str, Json], list[str]]:
    """Labels of one type say so once; of several, `1` and `"1"` look alike as text, so each says its own."""
    parameters = {"label_type": labels.type} if labels.type != "mixed" else _types_of(labels, rows)
    output = {"name": name, "datatype": "BYTES", "shape": [len(rows)], "parameters": parameters}
    return output, [labels.texts[row] if row >= 0 else "" for row in rows]


def _types_of(labels: LabelTexts, rows: Sequence[int]) -> dict[str, str]:
    types = [labels.types[row] if row >= 0 else "" for row in rows]
    known = set(types) - {""}
    if len(known) > 1:
        return {"label_type": "mixed", "label_types": ",".join(types)}
    return {"label_type": max(known, default="string")}


def raw_bytes(data: Array | list[str]) -> bytes:
    """Little-endian values; for text each element after its length in four bytes."""
    if isinstance(data, np.ndarray):
        return data.astype(data.dtype.newbyteorder("<")).tobytes()
    return b"".join(len(raw).to_bytes(4, "little") + raw for raw in map(str.encode, data))
