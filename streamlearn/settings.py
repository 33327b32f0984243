"""Sections of the configuration: each part of the program declares its own, beside the code that reads it."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamlearn.errors import ConfigError
from streamlearn.records import Json


class Section(BaseModel):
    """Keys with type, default, bounds and one line of help (`key`). Unknown keys are errors. Frozen once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def key(default: Any, help_text: str, *, unit: str = "", **bounds: Any) -> Any:
    """A configuration key: its default (`...` when it must be given), one line of help, its unit, pydantic's bounds."""
    return Field(default, description=help_text, json_schema_extra={"unit": unit}, **bounds)


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
    return f"{where} is not valid: {item['msg'][0].lower()}{item['msg'][1:]}"


def _field(section: type[BaseModel], loc: tuple[Any, ...]) -> Any:
    field = None
    for part in loc:
        field = section.model_fields.get(str(part))
        inner = getattr(field, "annotation", None)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return field


def _keys_at(section: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    field = _field(section, loc)
    inner = field.annotation if field is not None else section
    return list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []


def _help(section: type[BaseModel], loc: tuple[Any, ...]) -> str:
    field = _field(section, loc)
    return (field.description if field is not None else "") or "a value"
