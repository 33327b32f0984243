"""The configuration: what every key owes its reader, and which of several values wins."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel

import connectors
from streamlearn.config import ColumnKeys, Config, QuestionKeys, configure, flag, load, merged
from streamlearn.errors import ConfigError
from streamlearn.learners import LEARNERS
from streamlearn.models.classifier import ModelSettings
from streamlearn.serving.settings import Settings as HttpSettings
from streamlearn.settings import Section, key, read

LEAST = {"source": {"type": "log", "path": "x"}, "input": {"shape": [2]}}
DIMENSIONS = {
    "_s": {"s", "seconds"},
    "_ms": {"ms", "milliseconds"},
    "_bytes": {"bytes"},
    "_records": {"records"},
    "_rows": {"rows"},
    "_labels": {"labels"},
}


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the program, with what its keys are under."""
    yield "", Config
    yield "serve", HttpSettings
    yield "serve(kafka)", QuestionKeys
    yield "model", ModelSettings
    yield "input.columns.NAME", ColumnKeys
    for name in connectors.SOURCES:
        yield f"source({name})", connectors.source_class(name).Settings
    for name in connectors.SINKS:
        yield f"sink({name})", connectors.sink_class(name).Settings
    for name, path in LEARNERS.items():
        module, _, kind = path.partition(":")
        yield f"learner({name})", getattr(import_module(module), kind).Settings


def keys(section: type[BaseModel], where: str) -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        yield f"{where}.{name}".strip("."), field
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{where}.{name}")


KEYS = dict(pair for where, section in sections() for pair in keys(section, where))


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_a_line_of_help_and_a_unit_where_it_has_a_dimension(name):
    field = KEYS[name]
    assert field.description, "no help"
    assert "\n" not in field.description
    assert len(field.description) < 160
    suffix = next((s for s in sorted(DIMENSIONS, key=len, reverse=True) if name.endswith(s)), None)
    numeric = "int" in str(field.annotation) or "float" in str(field.annotation)
    if suffix and numeric and not name.endswith("_per_s"):
        assert (field.json_schema_extra or {}).get("unit") in DIMENSIONS[suffix], f"no unit for {name}"


def test_only_source_and_shape_have_to_be_given():
    loaded = configure(LEAST)
    required = [name for name, field in KEYS.items() if field.is_required() and "(" not in name]
    assert required == ["source", "source.type", "input", "input.columns.NAME.type"]
    assert (loaded.learner.name, loaded.checkpoint.keep, loaded.telemetry.port) == ("auto", 3, 8082)


def test_a_configuration_cannot_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        configure(LEAST).checkpoint.keep = 4


def test_flags_win_over_environment_and_environment_over_file_key_by_key(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    path.write_text("source: {type: log, path: x}\ninput: {shape: [2]}\ncheckpoint: {keep: 2, every_records: 20, every_s: 2}\n")
    monkeypatch.setenv("STREAMLEARN__CHECKPOINT__KEEP", "5")
    monkeypatch.setenv("STREAMLEARN__CHECKPOINT__EVERY_S", "5")
    kept = load(path, merged(["checkpoint.keep=7"])).checkpoint
    assert (kept.keep, kept.every_s, kept.every_records) == (7, 5.0, 20)


def test_the_environment_reaches_keys_of_what_is_named(monkeypatch):
    monkeypatch.setenv("STREAMLEARN__SOURCE__PATH", "elsewhere")
    monkeypatch.setenv("STREAMLEARN__INPUT__SHAPE", "[3, 4]")
    loaded = configure(LEAST)
    assert loaded.source.rest == {"path": "elsewhere"}
    assert loaded.input.shape == (3, 4)


def test_flags_are_yaml_and_add_up():
    given = merged(["a.b=[1, 2]", "a.c=text", "a.b=3", "d=null", "a.e.f=true", "g=x=y"])
    assert given == {"a": {"b": 3, "c": "text", "e": {"f": True}}, "d": None, "g": "x=y"}


@pytest.mark.parametrize("text", ["keep", "=3", ""])
def test_a_flag_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(f"--set {text!r} is not valid: expected section.key=value")):
        flag(text)


def test_a_yaml_file_cannot_make_python_objects(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("source: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(path)


class Inner(Section):
    count: int = key(3, "how many", unit="rows", ge=1)
    ratio: float = key(0.5, "how much", gt=0)
    mode: str = key("a", "which", pattern="^[ab]$")


class Outer(Section):
    inner: Inner = key(Inner(), "inside")
    maybe: Inner | None = key(None, "inside, or not")
    token: str = key("", "a secret")
    given: int = key(..., "has to be given")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "at.given is missing: expected has to be given"),
        ({"given": "x"}, "at.given is text: expected a whole number"),
        ({"given": 1.5}, "at.given is 1.5: expected a whole number"),
        ({"given": None}, "at.given is empty: expected a whole number"),
        ({"given": 1, "inner": {"count": 0}}, "at.inner.count is 0: expected 1 or more; leave the key out for the default, 3"),
        (
            {"given": 1, "inner": {"ratio": 0}},
            "at.inner.ratio is 0: expected more than 0; leave the key out for the default, 0.5",
        ),
        ({"given": 1, "inner": {"conut": 1}}, "at.inner.conut is not a known key: did you mean 'count'?"),
        ({"given": 1, "maybe": {"conut": 1}}, "at.maybe.conut is not a known key: did you mean 'count'?"),
        ({"given": 1, "inner": {"zzz": 1}}, "at.inner.zzz is not a known key: known keys: count, mode, ratio"),
        ({"given": 1, "inner": [1]}, "at.inner is a list: expected a section of keys"),
        ({"given": 1, "token": 4711}, "at.token is a number: expected text"),
        (
            {"given": True, "inner": {"count": 1e400}},
            "at.inner.count is Infinity: expected a finite number; leave the key out for",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found_and_what_was_expected(values, said):
    with pytest.raises(ConfigError) as error:
        read(Outer, values, path="at")
    assert str(error.value).startswith(said)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as error:
        read(Outer, {"inner": {"count": 0}}, path="")
    assert str(error.value).split("; ")[0] == "inner.count is 0: expected 1 or more"
    assert str(error.value).endswith("given is missing: expected has to be given")


def test_a_value_is_never_echoed_where_it_may_be_a_secret():
    for values in ({"given": 1, "token": ["hidden"]}, {"given": "hidden"}, {"given": 1, "inner": "hidden"}):
        with pytest.raises(ConfigError) as error:
            read(Outer, values, path="at")
        assert "hidden" not in str(error.value)
        assert "hidden" not in repr(error.value.__cause__)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"type": "integer", "other": "rest"}, r"label: other is 'rest': expected integer"),
        ({"type": "string", "other": 7}, r"label: other is 7: expected string"),
        ({"max_labels": 1, "other": "rest"}, r"label: other needs a row .*: expected max_labels of 2 or more"),
    ],
)
def test_the_label_that_further_ones_share_is_of_the_type_and_has_a_row(label, said):
    with pytest.raises(ConfigError, match=said):
        configure({**LEAST, "label": label})
