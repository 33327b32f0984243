"""Messages of gRPC ↔ questions and answers. Pure: no socket, no clock, no model.

Tensors come as raw bytes, all of them, or each in the field of `contents` that its datatype has. They go out as they came.
"""

import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from streamlearn.records import Array, Json
from streamlearn.schema import Schema
from streamlearn.serving.grpc_messages import MESSAGES
from streamlearn.serving.named_tensors import TEXT
from streamlearn.serving.open_inference import Answer, Question, Request, RequestedOutput, answered, question_of, raw_bytes
from streamlearn.serving.tensors import DTYPES, Input, Parameters, RequestError

CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of each datatype; FP16 has none, and comes as raw bytes."""
_SIZE, _RAW = "binary_data_size", "binary_data_output"


def read_message(message: Any, *, shape: tuple[int, ...], max_rows: int, schema: Schema | None) -> Question:
    """The question of a ModelInferRequest. Errors: RequestError (400) that says what was found and what was expected."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"raw_input_contents holds {len(raw)} tensors, expected one for each of {len(message.inputs)} inputs"
        )
    parts = [_part(given, part) for given, part in zip_longest(message.inputs, raw)]
    inputs = [_input(given, len(part)) for given, part in zip(message.inputs, parts, strict=True)]
    outputs = [RequestedOutput(each.name, _parameters(each.parameters)) for each in message.outputs]
    asked = Request(inputs, message.id or None, {_RAW: bool(raw), **_parameters(message.parameters)}, outputs)
    return question_of(asked, b"".join(parts), shape=shape, max_rows=max_rows, schema=schema)


def write_message(answer: Answer, question: Question, *, model_name: str) -> Any:
    """A ModelInferResponse. Where any output goes out raw all do, for the protocol knows no mixture."""
    message = MESSAGES["ModelInferResponse"](model_name=model_name, model_version=str(answer.number), id=question.id or "")
    is_raw = any(wanted.binary for wanted in question.outputs)
    for output, data in answered(answer, question):
        made = message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        for name, value in output.get("parameters", {}).items():
            made.parameters[name].string_param = value
        if is_raw:
            message.raw_output_contents.append(raw_bytes(data))
        else:
            getattr(made.contents, CONTENTS[output["datatype"]]).extend(_values(data))
    return message


def metadata_message(values: Json) -> Any:
    """A ModelMetadataResponse of what HTTP says as JSON."""
    return MESSAGES["ModelMetadataResponse"](**values)


def _part(given: Any, raw: bytes | None) -> bytes:
    """The tensor's bytes, of the length that its shape and datatype need."""
    name, datatype = given.name[:40], given.datatype
    if datatype != TEXT and datatype not in DTYPES:
        raise RequestError(f"'{name}' has datatype {datatype[:20]!r}, expected one of {', '.join(DTYPES)}, {TEXT}")
    if any(length < 0 for length in given.shape):
        raise RequestError(f"'{name}' has shape {list(given.shape)[:10]}, expected no negative length")
    if raw is None:
        return _typed(given)
    if given.HasField("contents"):
        raise RequestError(f"'{name}' has contents beside raw_input_contents, expected one of them")
    expected = len(raw) if datatype == TEXT else math.prod(given.shape) * DTYPES[datatype].itemsize
    if len(raw) != expected:
        raise RequestError(f"'{name}' has {len(raw)} raw bytes, its shape and datatype need {expected}")
    return raw


def _typed(given: Any) -> bytes:
    name, datatype, field = given.name[:40], given.datatype, CONTENTS.get(given.datatype)
    if field is None:
        raise RequestError(
            f"'{name}' has datatype {datatype}, expected it in raw_input_contents, for contents have no field for it"
        )
    others = [found.name for found, _ in given.contents.ListFields() if found.name != field]
    if others:
        raise RequestError(f"'{name}' of datatype {datatype} has {others[0]}, expected {field}")
    values = getattr(given.contents, field)
    expected = math.prod(given.shape)
    if len(values) != expected:
        raise RequestError(f"'{name}' holds {len(values)} values in {field}, its shape needs {expected}")
    if datatype == TEXT:
        return b"".join(len(text).to_bytes(4, "little") + text for text in values)
    return _narrowed(np.asarray(values, {"f": np.float64, "b": np.bool_}.get(DTYPES[datatype].kind)), given).tobytes()


def _narrowed(values: Array, given: Any) -> Array:
    """Whole numbers come in 32 bits, whatever their datatype."""
    dtype = DTYPES[given.datatype]
    if dtype.kind in "iu" and len(values):
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise RequestError(f"'{given.name[:40]}' holds a value that does not fit {given.datatype}")
    return values.astype(dtype)


def _input(given: Any, size_bytes: int) -> Input:
    own = {name: value for name, value in _parameters(given.parameters).items() if name != _SIZE}
    return Input(given.name, list(given.shape), given.datatype, parameters=own | {_SIZE: size_bytes})


def _parameters(given: Any) -> Parameters:
    found: Parameters = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(parameter, choice)
    return found


def _values(data: Array | list[str]) -> Any:
    return data.reshape(-1).tolist() if isinstance(data, np.ndarray) else [text.encode() for text in data]
