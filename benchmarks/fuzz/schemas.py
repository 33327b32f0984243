"""The schemas that Avro and Protobuf records are fuzzed under, and values in them."""

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MORE = {
    "type": "record",
    "name": "More",
    "fields": [
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b", "c"]}},
        {"name": "tags", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
        {"name": "three", "type": {"type": "fixed", "name": "Three", "size": 3}},
        {"name": "raw", "type": "bytes"},
        {"name": "inner", "type": ["null", "More"]},
    ],
}
AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Sample",
    "fields": [
        {"name": "features", "type": {"type": "array", "items": "double"}},
        {"name": "label", "type": ["null", "string", "long"]},
        {"name": "id", "type": ["null", "string", "long"]},
        {"name": "time", "type": ["null", "long"]},
        {"name": "context", "type": ["null", "int"]},
        {"name": "more", "type": ["null", MORE]},
    ],
}
MESSAGE = "fuzz.Sample"
PROTO = """
syntax = "proto3";
package fuzz;
message Sample {
  repeated double features = 1;
  optional string label = 2;
  string id = 3;
  optional int64 time = 4;
  optional sint32 context = 5;
}
"""


@functools.cache
def files() -> descriptor_pb2.FileDescriptorSet:
    """What `protoc` makes of `PROTO`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    told = {"features": kinds.TYPE_DOUBLE, "label": kinds.TYPE_STRING, "id": kinds.TYPE_STRING}
    told |= {"time": kinds.TYPE_INT64, "context": kinds.TYPE_SINT32}
    message = descriptor_pb2.DescriptorProto(name="Sample")
    for number, (name, kind) in enumerate(told.items(), 1):
        label = kinds.LABEL_REPEATED if name == "features" else kinds.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, type=kind, label=label)
        if name in ("label", "time", "context"):
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    file = descriptor_pb2.FileDescriptorProto(name="sample.proto", package="fuzz", syntax="proto3", message_type=[message])
    return descriptor_pb2.FileDescriptorSet(file=[file])


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="streamlearn-fuzz-")


@functools.cache
def descriptors() -> Path:
    """A file of them."""
    path = Path(_folder().name) / "sample.desc"
    path.write_bytes(files().SerializeToString())
    return path


@functools.cache
def message() -> Any:
    """The class of the message."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files().file[0])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(MESSAGE))
