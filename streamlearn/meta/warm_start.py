"""Warm starts as files: one safetensors file, its values as one JSON text in the header. Nothing in it is executed (P8)."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from streamlearn.disk import replace_file
from streamlearn.errors import ConfigError
from streamlearn.records import Array, Initialisation, Json

SCHEMA = 1
HEAD_POLICIES = ("drawn", "zero")


def save(start: Initialisation, path: Path) -> None:
    """The warm start as one file, replaced in one step. Errors: ConfigError when it cannot be written."""
    body = {"schema": SCHEMA, "fingerprint": start.fingerprint, "values": start.values()}
    arrays = {name: np.ascontiguousarray(array) for name, array in start.arrays.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, safetensors.numpy.save(arrays, {"streamlearn": json.dumps(body, sort_keys=True)}))
    except OSError as error:
        raise ConfigError(f"warm start {path} cannot be written: {error.strerror or error}") from error


def load(path: Path) -> Initialisation:
    """The warm start of a file. Errors: ConfigError when it is absent, damaged, of another schema, or makes no sense."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            body = json.loads((file.metadata() or {})["streamlearn"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        schema = body["schema"]
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"warm start {path} cannot be read: {error}; expected a file that `meta-train` wrote") from error
    if schema != SCHEMA:
        raise ConfigError(f"warm start {path} was written by schema {schema}, this program reads {SCHEMA}: upgrade")
    start = _start(path, body, arrays)
    if start.fingerprint != body["fingerprint"]:
        raise ConfigError(
            f"warm start {path} has the fingerprint {start.fingerprint}, but names {body['fingerprint']}: it is damaged"
        )
    return _checked(path, start)


def _start(path: Path, body: Mapping[str, Any], arrays: Mapping[str, Array]) -> Initialisation:
    values, known = dict(body.get("values", {})), {each.name for each in fields(Initialisation)} - {"arrays"}
    if values.keys() != known or "fingerprint" not in body:
        odd = ", ".join(sorted(values.keys() ^ known)) or "fingerprint"
        raise ConfigError(f"warm start {path} lacks or adds {odd}: expected what schema {SCHEMA} says")
    return Initialisation(**values | {n: tuple(values[n]) for n in ("shape", "plastic")}, arrays=arrays)


def _checked(path: Path, start: Initialisation) -> Initialisation:
    unknown = sorted(set(start.plastic) - set(start.arrays))
    if unknown:
        raise ConfigError(f"warm start {path} calls '{unknown[0]}' plastic, but holds no such array")
    if start.head not in HEAD_POLICIES:
        raise ConfigError(f"warm start {path} has the head policy {start.head!r}: expected one of {', '.join(HEAD_POLICIES)}")
    for name, array in start.arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ConfigError(f"warm start {path} holds {array.dtype} for '{name}': expected float32, and finite numbers alone")
    return start


def check_fits(start: Initialisation, *, shape: tuple[int, ...], model: Mapping[str, Json], inputs: Mapping[str, Json]) -> None:
    """Errors: ConfigError, with both values, when what the configuration says is not what the warm start was made with.

    `model` and `inputs` hold the keys that the configuration gives; what it leaves out is taken from the warm start.
    """
    pairs: list[tuple[str, Json, Json]] = [("input.shape", list(shape), list(start.shape))]
    pairs += [(f"model.{name}", value, start.model.get(name)) for name, value in model.items()]
    pairs += [(f"input.transform.{name}", value, start.inputs.get(name)) for name, value in inputs.items()]
    for where, ours, theirs in pairs:
        if ours != theirs:
            raise ConfigError(
                f"{where} is {json.dumps(ours)}, but the warm start '{start.algorithm}' {start.fingerprint} was made with "
                f"{json.dumps(theirs)}: expected the same; leave the key out to take the warm start's"
            )
