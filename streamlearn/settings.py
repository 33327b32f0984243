"""Sections of the configuration: each part of the program declares its own, beside the code that reads it."""

import difflib
import json
from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamlearn.errors import ConfigError
from streamlearn.records import Json


class Section(BaseModel):
    """Keys with type, default, bounds and one line of help (`key`). Unknown keys are errors. Frozen once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def key(default: Any, help_text: str, *, unit: str = "", **bounds: Any) -> Any:
    """A configuration key: its default (`...` when it must be given), one line of help, its unit, pydantic's bounds."""
    return Field(default, description=help_text, json_schema_extra={"unit": unit}, **bounds)


def other(section: type[Section], name: str, default: Any) -> Any:
    """The key `name` of `section`, with another default."""
    field = copy(section.model_fields[name])
    field.default = default
    return field


S = TypeVar("S", bound=BaseModel)


def read(section: type[S], values: Mapping[str, Json], *, path: str) -> S:
    """`values` as a checked section. Errors: ConfigError that names `path`, the key, what was found and expected."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_message(section, path, item) for item in error.errors())) from error


def _message(section: type[BaseModel], path: str, item: Any) -> str:
    where = ".".join(str(part) for part in (path, *item["loc"]) if part != "")
    if item["type"] == "extra_forbidden":
        known = _keys_at(section, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where} is not a known key: {hint}"
    if item["type"] == "missing":
        return f"{where} is missing: expected {_help(section, item['loc'])}"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    return f"{where} is {_found(item)}: expected {_expected(item)}{_default(section, item['loc'])}"


SECRET = ("password", "secret", "token")
EXPECTED = {
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "too_short": "{min_length} or more entries",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "a section of keys"),
    **dict.fromkeys(("string_type", "path_type"), "text"),
}
"""What is expected, by pydantic's type of error, in the words of a YAML file."""


def is_secret(name: str) -> bool:
    """Whether what stands under a key of this name is never shown."""
    return any(word in name for word in SECRET)


def _expected(item: Any) -> str:
    text = EXPECTED.get(item["type"])
    bounds = {name: f"{v:g}" if isinstance(v, float) else v for name, v in item.get("ctx", {}).items()}
    return item["msg"].removeprefix("Input should be ") if text is None else text.format(**bounds)


def _found(item: Any) -> str:
    """Numbers and misspelt choices as they stand. Other text may be a secret, as is all under a name that sounds like one."""
    value, secret = item["input"], any(is_secret(str(part)) or part == "client" for part in item["loc"])
    kind = next((name for types, name in KINDS if isinstance(value, types)), "something else")
    if secret or not (isinstance(value, int | float) or item["type"] == "literal_error"):
        return kind
    return json.dumps(value) if not isinstance(value, str) else f"'{value}'"


KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "true or false"),
    (int | float, "a number"),
    (str, "text"),
    (list | tuple, "a list"),
    (dict, "a section of keys"),
    (type(None), "empty"),
)


def _default(section: type[BaseModel], loc: tuple[Any, ...]) -> str:
    default = getattr(_field(section, loc), "default", None)
    if not isinstance(default, int | float | str) or default == "":
        return ""
    return f"; leave the key out for the default, {default if isinstance(default, str) else json.dumps(default)}"


def _field(section: type[BaseModel], loc: tuple[Any, ...]) -> Any:
    field = None
    for part in loc:
        field = section.model_fields.get(str(part))
        section = _section(getattr(field, "annotation", None)) or section
    return field


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, or may hold."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _keys_at(section: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    field = _field(section, loc)
    inner = section if field is None else _section(field.annotation)
    return [] if inner is None else list(inner.model_fields)


def _help(section: type[BaseModel], loc: tuple[Any, ...]) -> str:
    field = _field(section, loc)
    return (field.description if field is not None else "") or "a value"
