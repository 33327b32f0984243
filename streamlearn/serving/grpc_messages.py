"""The messages of the Open Inference Protocol over gRPC: a table of fields, turned into classes when this is imported.

A table rather than generated code: that is tied to the version of its generator, and puts its names into a pool that the
whole process shares, where any client library's copy of the same names collides with it. These lie in a pool of their own.

Source  kserve/open-inference-protocol, inference_grpc (GRPCInferenceService). Names and numbers are facts of the wire format.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["FIELDS", "MESSAGES", "METHODS", "PACKAGE", "SERVICE", "DecodeError"]

PACKAGE = "inference"
SERVICE = "GRPCInferenceService"

PARAMETERS = "map InferParameter"
FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": {"name": (1, "string"), "version": (2, "string")},
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": (1, "string"), "version": (2, "string"), "extensions": (3, "repeated string")},
    "ModelMetadataRequest": {"name": (1, "string"), "version": (2, "string")},
    "ModelMetadataResponse": {
        "name": (1, "string"),
        "versions": (2, "repeated string"),
        "platform": (3, "string"),
        "inputs": (4, "repeated ModelMetadataResponse.TensorMetadata"),
        "outputs": (5, "repeated ModelMetadataResponse.TensorMetadata"),
    },
    "ModelMetadataResponse.TensorMetadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")},
    "InferParameter": {
        "bool_param": (1, "oneof bool"),
        "int64_param": (2, "oneof int64"),
        "string_param": (3, "oneof string"),
        "double_param": (4, "oneof double"),
        "uint64_param": (5, "oneof uint64"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "repeated bool"),
        "int_contents": (2, "repeated int32"),
        "int64_contents": (3, "repeated int64"),
        "uint_contents": (4, "repeated uint32"),
        "uint64_contents": (5, "repeated uint64"),
        "fp32_contents": (6, "repeated float"),
        "fp64_contents": (7, "repeated double"),
        "bytes_contents": (8, "repeated bytes"),
    },
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, PARAMETERS),
        "inputs": (5, "repeated ModelInferRequest.InferInputTensor"),
        "outputs": (6, "repeated ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferRequest.InferInputTensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "repeated int64"),
        "parameters": (4, PARAMETERS),
        "contents": (5, "InferTensorContents"),
    },
    "ModelInferRequest.InferRequestedOutputTensor": {"name": (1, "string"), "parameters": (2, PARAMETERS)},
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, PARAMETERS),
        "outputs": (5, "repeated ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "ModelInferResponse.InferOutputTensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "repeated int64"),
        "parameters": (4, PARAMETERS),
        "contents": (5, "InferTensorContents"),
    },
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="streamlearn/open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for path, fields in FIELDS.items():  # an outer message stands before those within it
        outer, _, name = path.rpartition(".")
        message = (made[outer].nested_type if outer else file.message_type).add(name=name)
        made[path] = message
        for field, (number, kind) in fields.items():
            _add(message, path, field, (number, kind))
    return file


def _add(message: Any, path: str, field: str, told: tuple[int, str]) -> None:
    number, kind = told
    made = message.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
    word, _, rest = kind.rpartition(" ")
    if word == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        made.oneof_index = 0
    if word in {"repeated", "map"}:
        made.label = _Field.LABEL_REPEATED
    if word == "map":
        made.type, made.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{path}.{_entry(message, field, rest)}"
    else:
        _type(made, rest)


def _entry(message: Any, field: str, value: str) -> str:
    """A map on the wire is a repeated message of key and value."""
    entry = message.nested_type.add(name="".join(map(str.capitalize, field.split("_"))) + "Entry")
    entry.options.map_entry = True
    _type(entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL), "string")
    _type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), value)
    return str(entry.name)


def _type(made: Any, kind: str) -> None:
    if kind in _SCALARS:
        made.type = _SCALARS[kind]
    else:
        made.type, made.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    named = {path: pool.FindMessageTypeByName(f"{PACKAGE}.{path}") for path in FIELDS}
    return {path: message_factory.GetMessageClass(descriptor) for path, descriptor in named.items()}


MESSAGES: Mapping[str, Any] = _classes()
"""Message classes by name; those within another as `Outer.Inner`."""
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes NAMERequest and gives NAMEResponse."""
