"""What this server offers over HTTP, as an OpenAPI 3.1 document: for people, client generators, and tests that attack it."""

from collections.abc import Mapping

from streamlearn import __version__
from streamlearn.records import Json
from streamlearn.schema import Column, Schema
from streamlearn.serving.named_tensors import TEXT
from streamlearn.serving.open_inference import OUTPUTS
from streamlearn.serving.tensors import DTYPES, INPUT

_JSON = "application/json"
_BINARY = "application/octet-stream"


def openapi(*, model_name: str, shape: tuple[int, ...], max_rows: int, schema: Schema | None = None) -> Json:
    """The document of one server; `shape` is that of one input, empty before the first snapshot; `schema` of named columns."""
    model = [_path_parameter("model", [model_name])]
    version = [*model, _path_parameter("version", None)]
    paths: dict[str, Json] = {
        "/v2": _get("What this server is", _answer("Server")),
        "/v2/health/live": _get("Whether server and learner turn", _answer("Health"), _refusals(503), open_to_all=True),
        "/v2/health/ready": _get("Whether the server should be asked", _answer("Health"), _refusals(503), open_to_all=True),
        "/status.json": _get("What the learner did, as the page shows it", _answer(None), _refusals(503)),
        "/openapi.json": _get("This document", _answer(None)),
        "/v2/models/{model}/samples": {"parameters": model, "post": _written(_SAMPLES, "Samples")},
        "/v2/models/{model}/feedback": {"parameters": model, "post": _written(_FEEDBACK, "Feedback")},
    }
    index = _repository("What is served, and what could be", "RepositoryIndex", "Versions", required=False)
    paths["/v2/repository/index"] = {"post": index}
    load = _repository("Serve what an older checkpoint holds, under a new number", "Load", "Loaded", 404)
    paths["/v2/repository/models/{model}/load"] = {"parameters": model, "post": load}
    for prefix, parameters in (("/v2/models/{model}", model), ("/v2/models/{model}/versions/{version}", version)):
        paths[prefix] = {"parameters": parameters, **_get("What goes in and comes out", _answer("Model"), _refusals(404, 503))}
        ready = _get("Whether the model answers", _answer("ModelReady"), _refusals(404) | _answer("ModelReady", "503"))
        paths[prefix + "/ready"] = {"parameters": parameters, **ready}
        paths[prefix + "/infer"] = {"parameters": parameters, "post": _infer()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "streamlearn: Open Inference Protocol v2, and samples", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": _schemas(shape, max_rows, schema),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path_parameter(name: str, known: list[str] | None) -> Json:
    values = {"enum": known} if known else {"pattern": "^[0-9]{1,20}$"}
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", **values}}


def _get(summary: str, *answers: Mapping[str, Json], open_to_all: bool = False) -> dict[str, Json]:
    responses: dict[str, Json] = {} if open_to_all else _refusals(401, 403)
    for answer in answers:
        responses |= answer
    return {"get": {"summary": summary, "responses": responses, **({} if open_to_all else _SECURITY)}}


def _infer() -> Json:
    return {
        "summary": "Answers, one for each row",
        "parameters": [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "bytes of JSON before the tensors, in a request that holds binary ones",
                "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
            }
        ],
        "requestBody": {"required": True, "content": {_JSON: _ref("Question"), _BINARY: {"schema": {"type": "string"}}}},
        "responses": {
            "200": {
                "description": "the answer; binary when that was asked for",
                "content": {_JSON: _ref("Answer"), _BINARY: {"schema": {"type": "string"}}},
            },
            **_refusals(400, 401, 403, 404, 408, 413, 503),
        },
        **_SECURITY,
    }


_SAMPLES = "Samples to learn from, written durably into the source before they are acknowledged"
_FEEDBACK = "Labels of samples that came before without, by id; written as samples are, joined by the learner"


def _written(summary: str, schema: str) -> Json:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {_JSON: _ref(schema)}},
        "responses": {**_answer("Accepted"), **_refusals(400, 401, 403, 404, 408, 413, 501, 503)},
        **_SECURITY,
    }


def _repository(summary: str, asked: str, answer: str, *more: int, required: bool = True) -> Json:
    return {
        "summary": summary,
        "requestBody": {"required": required, "content": {_JSON: _ref(asked)}},
        "responses": {**_answer(answer), **_refusals(400, 401, 403, 408, 413, 501, 503, *more)},
        **_SECURITY,
    }


_SECURITY: dict[str, Json] = {"security": [{}, {"token": []}]}

_REFUSALS = {
    400: "the request is not what was expected; the message says what was found",
    401: "a token is needed",
    403: "the token's role is not enough, or a web page asks without one",
    404: "no such model or version",
    408: "the body did not come in time",
    413: "the body is too large",
    501: "this server has nowhere to write samples, or cannot reach the learner",
    503: "not now: overloaded, not ready, or no label learned yet",
}


def _refusals(*codes: int) -> dict[str, Json]:
    retry = {"headers": {"Retry-After": {"schema": {"type": "string"}}}}
    return {
        str(code): {"description": _REFUSALS[code], "content": {_JSON: _ref("Error")}, **(retry if code == 503 else {})}
        for code in codes
    }


def _answer(schema: str | None, code: str = "200") -> dict[str, Json]:
    content = {"schema": {"type": "object"}} if schema is None else _ref(schema)
    return {code: {"description": "the answer", "content": {_JSON: content}}}


def _ref(name: str) -> dict[str, Json]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _schemas(shape: tuple[int, ...], max_rows: int, schema: Schema | None) -> dict[str, Json]:
    sample = {
        "features": _NUMBERS if schema is None else _named_features(schema),
        "label": _LABEL,
        "id": _LABEL,
        "time": {"type": "integer"},
    }
    samples: dict[str, Json] = {"anyOf": [_object(sample, "features", "label"), _object(sample, "features", "id")]}
    label = _object({name: sample[name] for name in ("id", "label", "time")}, "id", "label")
    return {
        "Error": _object({"error": _TEXT}, "error"),
        "Health": _object({"live": _FLAG, "ready": _FLAG, "error": _TEXT}, "live", "ready"),
        "Server": _closed({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "Model": _closed({"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT, "inputs": _NAMED, "outputs": _NAMED}),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG, "error": _TEXT}),
        "Question": _asked(_array_input(shape, max_rows) if schema is None else _named_inputs(schema, max_rows)),
        "Answer": _answered(),
        "Samples": {"anyOf": [samples, _list(samples) | {"minItems": 1, "maxItems": max_rows}]},
        "Feedback": {"anyOf": [label, _list(label) | {"minItems": 1, "maxItems": max_rows}]},
        "RepositoryIndex": _closed({"ready": _FLAG}) | {"required": []},
        "Versions": _list(_closed({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})),
        "Load": _closed({"parameters": _closed({"version": _VERSION, "resume": _RESUME}) | {"required": ["version"]}}),
        "Loaded": _closed({"name": _TEXT, "version": _TEXT, "loaded": _TEXT}),
        "Accepted": _closed({"accepted": {"type": "integer", "minimum": 1}}),
    }


def _named_features(schema: Schema) -> Json:
    """By name, or all of them in order."""
    needed = [column.name for column in schema.columns if not column.missing]
    by_name = _object({column.name: {"type": _CELLS[column.kind]} for column in schema.columns}, *needed)
    closed = by_name | ({"additionalProperties": False} if schema.unknown == "refuse" else {})
    return {"anyOf": [closed, _list({}) | {"minItems": len(schema.columns), "maxItems": len(schema.columns)}]}


def _array_input(shape: tuple[int, ...], max_rows: int) -> Json:
    given = _input(INPUT, list(DTYPES), [_rows(max_rows), *({"const": each} for each in shape)]) | {"data": _NUMBERS}
    return _list(_object(given, "name", "shape", "datatype")) | {"minItems": 1, "maxItems": 1}


def _named_inputs(schema: Schema, max_rows: int) -> Json:
    given = [_object(_column_input(column, max_rows), "name", "shape", "datatype") for column in schema.columns]
    return _list({"anyOf": given}) | {"minItems": 1}


def _column_input(column: Column, max_rows: int) -> Json:
    numbers = [name for name in DTYPES if name != "BOOL"]
    datatypes = numbers if column.kind == "numeric" else [TEXT, *(name for name in numbers if "INT" in name)]
    return _input(column.name, datatypes, [_rows(max_rows)]) | {"data": {"type": "array"}}


def _rows(max_rows: int) -> Json:
    return {"type": "integer", "minimum": 1, "maximum": max_rows}


def _input(name: str, datatypes: list[str], lengths: list[Json]) -> dict[str, Json]:
    return {
        "name": {"const": name},
        "shape": {"type": "array", "prefixItems": lengths, "minItems": len(lengths), "maxItems": len(lengths)},
        "datatype": {"enum": datatypes},
        "parameters": _PARAMETERS,
    }


def _asked(inputs: Json) -> Json:
    wanted = _object({"name": {"enum": list(OUTPUTS)}, "parameters": _PARAMETERS}, "name")
    return _object({"inputs": inputs, "id": _TEXT, "parameters": _PARAMETERS, "outputs": _list(wanted)}, "inputs")


def _answered() -> Json:
    more = {"data": {"type": "array"}, "parameters": _PARAMETERS}
    outputs = _list(_object({**_NAMED_KEYS, **more}, *_NAMED_KEYS))
    values = {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": outputs}
    return _object(values, "model_name", "model_version", "outputs")


def _list(items: Json) -> dict[str, Json]:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Json], *required: str) -> dict[str, Json]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _closed(properties: Mapping[str, Json]) -> dict[str, Json]:
    """All of these and nothing else."""
    return _object(properties, *properties) | {"additionalProperties": False}


_TEXT: Json = {"type": "string"}
_VERSION: Json = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"}
_RESUME: Json = {"enum": ["replay", "now"]}
_FLAG: Json = {"type": "boolean"}
_LABEL: Json = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 1024}, {"type": "integer"}]}
_NUMBERS: Json = _list({"anyOf": [{"type": "number"}, {"type": "array"}]})
_PARAMETERS: Json = {"type": "object"}
_CELLS: Json = {"numeric": ["number", "null"], "categorical": ["string", "integer", "boolean", "null"]}
_NAMED_KEYS: Mapping[str, Json] = {"name": _TEXT, "datatype": _TEXT, "shape": _list({"type": "integer"})}
_NAMED: Json = _list(_closed(_NAMED_KEYS))
