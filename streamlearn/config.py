"""The configuration: one YAML file, then environment (`STREAMLEARN__SECTION__KEY`), then flags; later ones win.

Sections that depend on a name (`source`, `learner`, `model`, sinks) carry the keys of what they name; `assemble` has each part
check its own. Unknown keys are errors everywhere, and no value is echoed where it may be a secret.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar, cast

import yaml
from pydantic import ConfigDict, PositiveInt, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from streamlearn import admit
from streamlearn.conformal import Conformal
from streamlearn.decode import Settings as DecodeKeys
from streamlearn.drift import Drift
from streamlearn.errors import ConfigError
from streamlearn.inputs import InputSettings
from streamlearn.meta.settings import CorpusSettings, MetaSettings
from streamlearn.metrics import Metrics
from streamlearn.pending import Settings as PendingSettings
from streamlearn.probe import Settings as ProbeSettings
from streamlearn.records import Json
from streamlearn.schema import MOST_BUCKETS, Column, Schema
from streamlearn.scrape import Telemetry
from streamlearn.settings import Section, key, read
from streamlearn.share import Share

PREFIX = "STREAMLEARN__"


class Named(Section):
    """A section whose other keys belong to what `name` names."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def rest(self) -> dict[str, Json]:
        """The keys of what is named."""
        return dict(self.model_extra or {})


class SourceKeys(Named):
    """Where records come from; the other keys belong to the connector."""

    type: str = key(..., "connector: kafka, log, file, stdin, synthetic, or an installed one")
    give_up_s: float | None = key(None, "how long to retry a lost source before exit 3; empty: for ever", unit="seconds", gt=0)
    ahead_records: int = key(5000, "records read ahead of the learner, over all partitions", unit="records", ge=1)
    ahead_bytes: int = key(64 << 20, "bytes read ahead of the learner, over all partitions", unit="bytes", ge=1)
    poll_records: int = key(500, "most records of one poll and of one turn of the loop", unit="records", ge=1)


class LabelSourceKeys(Named):
    """Where late labels come from, when it is not the source of the samples; the other keys belong to the connector."""

    type: str = key(..., "connector: kafka, log, file, stdin, or an installed one")


class SinkKeys(Named):
    """Where records go; the other keys belong to the connector."""

    type: str = key(..., "connector: log, kafka, file, or an installed one")


class ColumnKeys(Section):
    """One named column."""

    type: Literal["numeric", "categorical"] = key(..., "numeric: numbers; categorical: text or integers, each a category")
    missing: Literal["allow", "refuse"] = key("allow", "refuse: a record without this value is a dead letter")
    buckets: int = key(4096, "that categories are hashed into; two in one bucket are one", ge=2, le=MOST_BUCKETS)

    def column(self, name: str) -> Column:
        """As it travels."""
        return Column(name, self.type, self.missing == "allow", self.buckets if self.type == "categorical" else 0)


class InputKeys(Section):
    """What one input is: an array of a shape, or named columns."""

    shape: tuple[PositiveInt, ...] = key((), "shape of one input, for example [28, 28]; this or `columns` must be given")
    columns: dict[str, ColumnKeys] = key(
        {}, "instead of a shape: names in order, each numeric or categorical, or a section of the keys below"
    )
    unknown: Literal["refuse", "ignore"] = key("refuse", "what becomes of a record with features that are no column")
    slots: int = key(64, "inputs of a network for each categorical column, of which each category sets three", ge=4, le=65536)
    transform: InputSettings = key(InputSettings(), "what is done to arrays before the network sees them; columns need none")

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: Json) -> Json:
        if not isinstance(columns, dict):
            return columns
        return {str(name): {"type": what} if isinstance(what, str) else what for name, what in columns.items()}

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if bool(self.shape) == bool(self.columns):
            found = "both" if self.shape else "neither"
            raise ValueError(f"shape and columns: found {found}, expected `shape` for arrays or `columns` for named values")
        if self.columns and self.transform.kind != "none":
            raise ValueError(f"transform.kind is '{self.transform.kind}' beside columns: expected none, they are standardised")
        if "" in self.columns:
            raise ValueError("columns has an empty name: expected the name of a field")
        return self

    @property
    def named(self) -> Schema | None:
        """The columns as they travel; None for arrays."""
        columns = tuple(keys.column(name) for name, keys in self.columns.items())
        return Schema(columns, self.unknown, self.slots) if columns else None

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row of a batch."""
        return self.shape or (len(self.columns),)


class LabelKeys(Section):
    """What labels are."""

    type: Literal["any", "string", "integer"] = key("any", "any keeps 1 and '1' apart; the others turn one into the other")
    max_labels: int = key(1000, "bound of the label map; records with further labels are dead letters", unit="labels", ge=1)
    other: str | int | None = key(
        None, "label that all further ones share instead: the last row of the map is kept for it; empty: none"
    )
    known: tuple[str | int, ...] = key((), "labels that take part in every answer from the start, in this order")

    @model_validator(mode="after")
    def _other_is_one_of_them(self) -> Self:
        wanted = {"string": str, "integer": int}.get(self.type)
        if self.other is not None and wanted and not isinstance(self.other, wanted):
            raise ValueError(f"other is {self.other!r}: expected {self.type}, as `type` says")
        if self.other is not None and self.max_labels < 2:
            raise ValueError("other needs a row beside those of other labels: expected max_labels of 2 or more")
        return self


class ModelKeys(Named):
    """The network; the other keys belong to it."""

    name: str = key("mlp", "mlp, conv, or module with `module: package.module:factory`")

    @model_validator(mode="after")
    def _names_its_module(self) -> Self:
        if self.name == "module" and not self.rest.get("module"):
            raise ValueError("name is 'module', but nothing says which: expected module: 'package.module:factory' beside it")
        return self


class LearnerKeys(Named):
    """The learning method; the other keys belong to it."""

    name: str = key("auto", "a name of the table of learners in the README; auto: the pool, or la-maml where that cannot run")


class CheckpointKeys(Section):
    """When the state is saved."""

    every_records: int = key(10_000, "records between checkpoints", unit="records", ge=1)
    every_s: float = key(10.0, "time between checkpoints while records come", unit="seconds", gt=0)
    keep: int = key(3, "checkpoints kept", unit="checkpoints", ge=1)


class PublishKeys(Section):
    """When the model that is served is renewed."""

    every_ms: float = key(100.0, "time between snapshots while the model changes", unit="milliseconds", gt=0)
    folder: Path | None = key(None, "where snapshots live; empty: a tmpfs folder of this state directory, if there is one")


class QuestionKeys(Named):
    """Questions that come as records of Kafka topics; the other keys are those of a Kafka source or sink."""

    requests: tuple[str, ...] = key(..., "topics of questions, each an inference request as HTTP takes it", min_length=1)
    replies: str = key(..., "topic of the replies")
    start: Literal["earliest", "latest"] = key("latest", "where the very first start begins to answer")
    most: int = key(100, "most questions answered between two savings of the positions", unit="records", ge=1)


class ServeKeys(Named):
    """How questions are answered; the other keys belong to the servers."""

    kafka: QuestionKeys | None = key(None, "where questions come from as records, and where replies go; empty: nowhere")
    processes: int = key(1, "server processes that follow the snapshots; 0 answers in the learner's own process", ge=0, le=64)
    enabled: bool = key(True, "false: learn and publish only")


class LogKeys(Section):
    """What the process says of itself, one line an event, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = key("info", "least level that is written")
    format: Literal["json", "text"] = key("json", "json for machines, text for people")


class MetaConfig(BaseSettings):
    """Everything `streamlearn meta-train` is told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    seed: int = key(0, "all random numbers follow from it, and which classes are held out", ge=0)
    state_dir: Path = key(Path("state"), "where it resumes from; not that of a daemon")
    device: str = key("cpu", "cpu, cuda, cuda:N, or auto")
    input: InputKeys = key(..., "what one input is; the transform is none or scale")
    model: ModelKeys = key(ModelKeys(), "the network")
    corpus: CorpusSettings = key(..., "labelled samples of classes that the stream need not have")
    meta: MetaSettings = key(..., "the algorithm")
    warm_start: Path = key(Path("warm_start.safetensors"), "the file that is written; name it in the daemon's configuration")


class DeadLetterKeys(admit.Settings):
    """What becomes of records that cannot be learned, and where they are kept."""

    sink: SinkKeys | None = key(None, "where they go; empty: an embedded log of the newest 100,000 in the state directory")


class Config(BaseSettings):
    """Everything `streamlearn run` is told. Every key has a default, but for the source and what an input is."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    name: str = key("model", "name of the model in /v2/models/NAME", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = key(0, "all random numbers follow from it", ge=0)
    state_dir: Path = key(Path("state"), "checkpoints, journal, dead letters, status, lock")
    device: str = key("cpu", "cpu, cuda, cuda:N, or auto")
    source: SourceKeys = key(..., "where records come from")
    input: InputKeys = key(..., "what one input is")
    decode: DecodeKeys = key(DecodeKeys(), "what records look like")
    label_source: LabelSourceKeys | None = key(None, "a second source, whose records are late labels; empty: none")
    label: LabelKeys = key(LabelKeys(), "what labels are")
    model: ModelKeys = key(ModelKeys(), "the network")
    learner: LearnerKeys = key(LearnerKeys(), "the learning method")
    warm_start: Path | None = key(None, "file that `meta-train` wrote, where an empty state begins; empty: random values")
    metrics: Metrics.Settings = key(Metrics.Settings(), "prequential metrics")
    drift: Drift.Settings = key(Drift.Settings(), "detectors on the error")
    conformal: Conformal.Settings = key(Conformal.Settings(), "sets of labels that hold the true one as often as promised")
    checkpoint: CheckpointKeys = key(CheckpointKeys(), "when the state is saved")
    publish: PublishKeys = key(PublishKeys(), "when the model that is served is renewed")
    serve: ServeKeys = key(ServeKeys(), "how questions are answered")
    telemetry: Telemetry.Settings = key(Telemetry.Settings(), "where Prometheus scrapes")
    dead_letters: DeadLetterKeys = key(DeadLetterKeys(), "what becomes of records that cannot be learned")
    probe: ProbeSettings = key(ProbeSettings(), "records that are never trained on, which show what is still known")
    pending: PendingSettings = key(PendingSettings(), "samples whose labels come later, by id")
    predictions: SinkKeys | None = key(None, "where the answer given before each label goes; empty: nowhere")
    process: Share = key(Share(), "which processors the learner may use; what `serve.cpus` and `serve.nice` are for servers")
    log: LogKeys = key(LogKeys(), "what the process says of itself")

    @property
    def control_path(self) -> Path:
        """Folder where the learner looks for what administrators ask."""
        return self.state_dir.resolve() / "control"

    @property
    def answers_path(self) -> Path:
        """Log where servers record the answers that late labels will score."""
        return self.state_dir / "answers.sqlite"


def load(path: Path, flags: Mapping[str, Json] | None = None) -> Config:
    """The checked configuration. Errors: ConfigError, one line, naming the key and what was expected."""
    return configure(_yaml(path), flags or {})


def load_meta(path: Path, flags: Mapping[str, Json] | None = None) -> MetaConfig:
    """The checked configuration of `meta-train`. Errors: ConfigError."""
    return _layered(MetaConfig, _yaml(path), flags or {})


def configure(values: Mapping[str, Json], flags: Mapping[str, Json] | None = None) -> Config:
    """A configuration out of values, over which environment and flags win. Errors: ConfigError."""
    return _layered(Config, values, flags or {})


C = TypeVar("C", bound=BaseSettings)


def _layered(kind: type[C], values: Mapping[str, Json], flags: Mapping[str, Json]) -> C:
    _refuse_unknown_variables()

    def sources(  # noqa: PLR0917  pydantic's signature
        settings_cls: type[BaseSettings],  # the class that is being made
        of_kind: type[BaseSettings],  # noqa: ARG001  pydantic names it once more
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG001  pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG001  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, InitSettingsSource(settings_cls, dict(values)))

    layered = cast(
        type[C], type("Layered", (kind,), {"settings_customise_sources": classmethod(sources), "__module__": __name__})
    )
    return read(layered, flags, path="")


def merged(flags: Sequence[str]) -> dict[str, Json]:
    """Flags of the form `section.key=value`, later ones winning, as nested values. Errors: ConfigError."""
    values: dict[str, Json] = {}
    for text in flags:
        values = _over(values, flag(text))
    return values


def flag(text: str) -> dict[str, Json]:
    """`section.key=value` as nested values; the value is YAML. Errors: ConfigError."""
    where, equals, value = text.partition("=")
    if not equals or not where:
        raise ConfigError(f"--set {text!r} is not valid: expected section.key=value")
    nested: Json = _parsed(value, f"--set {where}")
    for part in reversed(where.split(".")):
        nested = {part: nested}
    return dict(nested)


def _over(below: dict[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    both = {name: _over(below[name], above[name]) for name in above if isinstance(below.get(name), dict)}
    return below | dict(above) | both


def _yaml(path: Path) -> dict[str, Json]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"configuration {path} cannot be read: {reason}; expected a YAML file") from error
    values = _parsed(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"configuration {path} holds {type(values).__name__}: expected sections, like `source:`")
    return values


def _parsed(text: str, where: str) -> Json:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _refuse_unknown_variables() -> None:
    known = list(Config.model_fields | MetaConfig.model_fields)
    for variable in os.environ:
        section = variable.removeprefix(PREFIX).split("__")[0].lower()
        if variable.startswith(PREFIX) and section not in known:
            near = difflib.get_close_matches(section, known, n=1, cutoff=0.5)
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else f"known sections: {', '.join(known)}"
            raise ConfigError(f"environment variable {variable} names no section: {hint}")
