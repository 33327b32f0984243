"""`docs/configuration.md`, made from the sections themselves: every key with its unit, default and one line of help."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import connectors
from streamlearn.config import ColumnKeys, Config, MetaConfig, QuestionKeys
from streamlearn.learners import LEARNERS
from streamlearn.models.classifier import ModelSettings
from streamlearn.serving.settings import Settings as HttpSettings

HEAD = """# Configuration

Made from the sections of the program by `python -m streamlearn.reference`; do not edit.

One YAML file, then environment variables (`STREAMLEARN__SECTION__KEY`, for example `STREAMLEARN__SOURCE__TYPE=log`), then
`--set section.key=value`; later ones win. An unknown key is an error that names the nearest known one.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    yield _table("Top level", Config, "")
    extra: Mapping[str, type[BaseModel]] = {"serve": HttpSettings, "model": ModelSettings}
    for name, field in Config.model_fields.items():
        if isinstance(section := field.annotation, type) and issubclass(section, BaseModel):
            yield _table(f"`{name}`", section, f"{name}.", more=extra.get(name))
    yield _table("`serve.kafka`; other keys are those of a Kafka source", QuestionKeys, "serve.kafka.")
    yield _table("One of `input.columns`, where it is not just `numeric` or `categorical`", ColumnKeys, "input.columns.NAME.")
    for name in connectors.SOURCES:
        yield _table(f"`source` of type `{name}`", connectors.source_class(name).Settings, "source.")
    for name in connectors.SINKS:
        yield _table(f"`dead_letters.sink`, `predictions` of type `{name}`", connectors.sink_class(name).Settings, "….")
    for name, path in LEARNERS.items():
        module, _, kind = path.partition(":")
        yield _table(f"`learner` named `{name}`", getattr(import_module(module), kind).Settings, "learner.")
    yield _table("Of `meta-train`: top level", MetaConfig, "")
    for name in ("corpus", "meta"):
        yield _table(f"Of `meta-train`: `{name}`", cast(type[BaseModel], MetaConfig.model_fields[name].annotation), f"{name}.")


def _table(title: str, section: type[BaseModel], prefix: str, *, more: type[BaseModel] | None = None) -> str:
    lines = [f"## {title}\n", "| key | default | unit | what it does |", "|---|---|---|---|"]
    rows = {row: None for kind in (section, more) if kind is not None for row in _rows(kind, prefix)}
    return "\n".join([*lines, *rows, ""])


def _rows(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if prefix:
                yield from _rows(inner, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, Mapping) else ""
        yield f"| `{prefix}{name}` | {_default(field.default)} | {unit} | {field.description} |"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "must be given"
    if not value and value not in (0, False):
        return ""
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value if not isinstance(value, Path) else value.as_posix()}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
