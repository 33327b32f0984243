"""Where records come from and go to. Each file wraps one upstream, and is imported only when a configuration names it.

Others join without a change here: an entry point in the group `streamlearn.connectors`, named as the configuration will name
it, that leads to a module with a class `Source`, a class `Sink`, or both.
"""

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamlearn.errors import ConfigError
from streamlearn.protocols import Sink, Source
from streamlearn.records import Json
from streamlearn.settings import read

GROUP = "streamlearn.connectors"
SOURCES: Mapping[str, str] = {
    "kafka": "connectors.kafka:KafkaSource",
    "log": "connectors.log:LogSource",
    "file": "connectors.file:FileSource",
    "stdin": "connectors.stdin:StdinSource",
    "synthetic": "connectors.synthetic:SyntheticSource",
}
SINKS: Mapping[str, str] = {
    "kafka": "connectors.kafka_sink:KafkaSink",
    "log": "connectors.log:LogSink",
    "file": "connectors.file:FileSink",
}


def open_source(name: str, values: Mapping[str, Json], *, path: str = "source") -> Source:
    """The source called `name` with the checked settings `values`. It connects at `seek`, not here.

    Errors  ConfigError that names `path`, the key, what was found and what was expected.
    """
    kind = source_class(name, path=path)
    source: Source = kind(read(kind.Settings, values, path=path))
    return source


def open_sink(name: str, values: Mapping[str, Json], *, path: str = "sink") -> Sink:
    """The sink called `name` with the checked settings `values`. It connects at the first write, not here.

    Errors  ConfigError that names `path`, the key, what was found and what was expected.
    """
    kind = sink_class(name, path=path)
    sink: Sink = kind(read(kind.Settings, values, path=path))
    return sink


def source_class(name: str, *, path: str = "source") -> Any:
    """The class of a source; its `Settings` is a section. Errors: ConfigError that names the nearest known name."""
    return _find(name, SOURCES, "Source", path)


def sink_class(name: str, *, path: str = "sink") -> Any:
    """The class of a sink; its `Settings` is a section. Errors: ConfigError that names the nearest known name."""
    return _find(name, SINKS, "Sink", path)


def _find(name: str, table: Mapping[str, str], attribute: str, path: str) -> Any:
    where = table.get(name)
    others = {} if where else {point.name: point for point in entry_points(group=GROUP)}
    if where is None and name not in others:
        raise ConfigError(f"{path} '{name}' is not known: {_hint(name, [*table, *others])}")
    try:
        if where is None:
            return getattr(others[name].load(), attribute)
        module, _, kind = where.partition(":")
        return getattr(import_module(module), kind)
    except ImportError as error:
        raise ConfigError(f"{path} '{name}' cannot be loaded: {error}; install the package it needs") from error
    except AttributeError as error:
        raise ConfigError(f"{path} '{name}' cannot be used: {_target(others[name])} has no class {attribute}") from error


def _target(point: EntryPoint) -> str:
    return f"'{point.value}' (entry point group {GROUP})"


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
