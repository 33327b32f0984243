"""Config → a ready daemon. The only file that knows every class; everything else meets its neighbours through protocols."""

import difflib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

import structlog
import torch

import connectors
from streamlearn import __version__
from streamlearn.admit import Admission, DeadLetters
from streamlearn.answers import AnswerLog, AnswersTo, NoAnswerLog
from streamlearn.checkpoint import Checkpoints, CheckpointWriter
from streamlearn.chunks import Chunks
from streamlearn.config import Config, SinkKeys
from streamlearn.daemon import Daemon, Deadlines, Service
from streamlearn.decode import decoder_for
from streamlearn.drift import Drift
from streamlearn.due import Due
from streamlearn.errors import ConfigError
from streamlearn.follower_files import FollowerFiles
from streamlearn.inputs import InputSettings
from streamlearn.journal import Journal
from streamlearn.labels import LabelMap
from streamlearn.learners import LEARNERS
from streamlearn.learners.task import Task
from streamlearn.meta import warm_start
from streamlearn.metrics import Metrics
from streamlearn.models.classifier import ModelSettings
from streamlearn.prefetch import Intake, Prefetch
from streamlearn.prequential import Parts, Prequential
from streamlearn.protocols import Decoder, Learner, Publisher, Sink, Source
from streamlearn.records import Initialisation
from streamlearn.scrape import Info, Listening, Telemetry
from streamlearn.serving import http
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.service import SamplesTo
from streamlearn.serving.service import Service as ServingService
from streamlearn.settings import read
from streamlearn.snapshot import FilePublisher, Reference, live_folder
from streamlearn.status import Status
from streamlearn.watch import LoopWatch, Servers

log = structlog.get_logger()


def now_ms() -> int:
    """Milliseconds since the epoch, UTC: for files that people read, never for anything that is learned."""
    return time.time_ns() // 1_000_000


def learner(config: Config) -> Learner:
    """The configured learner, fresh. Errors: ConfigError for an unknown name or key, or a model that cannot be made."""
    path = LEARNERS.get(config.learner.name)
    if path is None:
        near = difflib.get_close_matches(config.learner.name, LEARNERS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(LEARNERS)}"
        raise ConfigError(f"learner.name '{config.learner.name}' is not known: {hint}")
    module, _, name = path.partition(":")
    kind = getattr(import_module(module), name)
    settings = read(kind.Settings, config.learner.rest, path="learner")
    try:
        made: Learner = kind(settings, task(config))
    except ValueError as error:  # settings that are right one by one, and do not go together
        raise ConfigError(f"learner: {error}") from error
    return made


def task(config: Config) -> Task:
    """What every learner is told beside its own settings. Errors: ConfigError, also for a warm start that does not fit."""
    given = config.model.rest | ({} if config.model.name == "module" else {"name": config.model.name})
    model = read(ModelSettings, given, path="model")
    start = None if config.warm_start is None else _warm_start(config, config.warm_start, model)
    return Task(
        shape=config.input.shape,
        max_labels=config.label.max_labels,
        known=len(config.label.known),
        seed=config.seed,
        model=model if start is None else ModelSettings(**start.model),
        inputs=config.input.transform if start is None else InputSettings(**start.inputs),
        device=device(config.device),
        start=start,
    )


def _warm_start(config: Config, path: Path, model: ModelSettings) -> Initialisation:
    start = warm_start.load(path)
    said = set(config.model.rest) | (config.model.model_fields_set & {"name"} if not model.module else set())
    keys = model.model_dump(mode="json", include=said | {"module"})  # which code is imported, the configuration alone says
    inputs = config.input.transform.model_dump(mode="json", exclude_unset=True)
    warm_start.check_fits(start, shape=config.input.shape, model=keys, inputs=inputs)
    return start


def device(name: str) -> str:
    """`auto` resolved. Errors: ConfigError when the device is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ConfigError(f"device is '{name}': expected cpu, cuda, cuda:N or auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but torch finds no CUDA device: expected cpu or auto here")
    return name


def sink(keys: SinkKeys, *, path: str) -> Sink:
    """A configured sink. Errors: ConfigError."""
    return connectors.open_sink(keys.type, keys.rest, path=path)


def prequential(config: Config, *, state_dir: Path, publisher: Publisher) -> Prequential:
    """The loop and all it puts in order, fresh; `daemon.recover` brings it to its checkpoint. Errors: ConfigError."""
    made = learner(config)
    labels = LabelMap(max_labels=config.label.max_labels, known=config.label.known)
    letters = DeadLetters(_dead_letter_sink(config, state_dir), config.dead_letters, clock_ms=now_ms)
    admission = Admission(labels, letters)
    parts = Parts(
        intake=Intake(max_records=config.source.ahead_records, max_bytes=config.source.ahead_bytes),
        journal=Journal(state_dir / "journal"),
        admission=admission,
        chunks=Chunks(made.chunk, config.input.shape),
        learner=made,
        metrics=Metrics.of(config.metrics),
        drift=Drift.of(config.drift),
        answers=_answer_log(config, admission, chunk=made.chunk),
        writer=CheckpointWriter(Checkpoints(state_dir / "checkpoints", keep=config.checkpoint.keep), clock_ms=now_ms),
        publisher=publisher,
    )
    return Prequential(
        parts,
        shape=config.input.shape,
        checkpoint_due=Due(every_s=config.checkpoint.every_s, every_count=config.checkpoint.every_records),
        publish_due=Due(every_s=config.publish.every_ms / 1000),
        max_records=config.source.poll_records,
        clock_ms=now_ms,
    )


def _dead_letter_sink(config: Config, state_dir: Path) -> Sink:
    if config.dead_letters.sink is not None:
        return sink(config.dead_letters.sink, path="dead_letters.sink")
    bounded = {"unique_keys": True, "max_records": MAX_DEAD_LETTERS}
    return connectors.open_sink("log", {"path": str(state_dir / "dead_letters.sqlite"), **bounded})


def _answer_log(config: Config, admission: Admission, *, chunk: int) -> AnswerLog:
    if config.predictions is None:
        return NoAnswerLog()
    return AnswersTo(sink(config.predictions, path="predictions"), admission.labels, admission.positions, chunk=chunk)


def prefetch(
    config: Config, intake: Intake, positions: Mapping[str, int], *, open_source: Callable[[], Source] | None = None
) -> Prefetch:
    """The thread that reads ahead, not started; from the configured source unless told otherwise. Errors: ConfigError."""
    return Prefetch(
        open_source or source(config),
        decoder(config),
        intake,
        shape=config.input.shape,
        positions=positions,
        poll_records=config.source.poll_records,
        give_up_s=config.source.give_up_s,
    )


def source(config: Config) -> Callable[[], Source]:
    """How to make the configured source anew after it was lost. Errors: ConfigError."""
    kind = connectors.source_class(config.source.type)
    settings = read(kind.Settings, config.source.rest, path="source")
    return lambda: cast(Source, kind(settings))


def decoder(config: Config) -> Decoder:
    """Bytes → rows. Errors: ConfigError."""
    return decoder_for(config.decode, config.input.shape, label_type=config.label.type)


class MetricsPage:
    """/metrics as a service."""

    def __init__(self, telemetry: Telemetry, settings: Telemetry.Settings) -> None:
        self._telemetry, self._settings = telemetry, settings
        self._listening: Listening | None = None

    def start(self) -> None:
        """Errors: ConfigError when the port is in use."""
        if self._settings.enabled:
            self._listening = self._telemetry.serve(self._settings.host, self._settings.port)
            log.info("metrics.listening", host=self._settings.host, port=self._listening.port)

    def withdraw(self) -> None:
        """Nothing: the page shows the end too."""

    def stop(self, timeout_s: float) -> None:  # noqa: ARG002  it stops at once
        """Close the page."""
        if self._listening is not None:
            self._listening.stop()
            self._listening = None


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where snapshots go and who answers from them."""

    publisher: Publisher
    folder: Path
    services: Sequence[Service]
    servers: Servers


def hosting(config: Config) -> Hosting:
    """Followers of their own process, a server in this one, or none. Errors: ConfigError."""
    folder = live_folder(config.state_dir, str(config.publish.folder) if config.publish.folder else None)
    log.info("snapshots.published_to", folder=str(folder))
    if not config.serve.enabled:
        return Hosting(FilePublisher(folder), folder, (), Servers())
    if config.serve.processes:
        followers = Followers(service(config), folder=folder, count=config.serve.processes)
        servers = Servers(running=lambda: len(followers.pids), restarts=lambda: followers.restarts)
        return Hosting(FilePublisher(folder), folder, (followers,), servers)
    reference = Reference()
    host = InProcess(service(config), reference)
    counts = Servers(counts=lambda: host.counts.values(age_s=reference.age_s()), counts_path=folder / "follower-0.json")
    return Hosting(reference, folder, (host,), counts)


def daemon(config: Config, *, extra: Sequence[Service] = ()) -> Daemon:
    """Everything that `streamlearn run` runs, not started yet. Errors: ConfigError for all that can be known beforehand."""
    config.state_dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # two fight over every small operation
    hosts = hosting(config)
    loop = prequential(config, state_dir=config.state_dir, publisher=hosts.publisher)
    floor = config.telemetry.accuracy_floor
    telemetry = Telemetry(_info(config), version=__version__, followers=FollowerFiles(hosts.folder), accuracy_floor=floor)
    facts = {"name": config.name, "learner": config.learner.name, "model": config.model.name, "source_type": config.source.type}

    def watch(reading: Prefetch) -> LoopWatch:
        status = Status(config.state_dir / "status.json", loop, facts, clock_ms=now_ms)
        return LoopWatch(loop, reading, status=status, telemetry=telemetry, servers=hosts.servers)

    return Daemon(
        state_dir=config.state_dir,
        loop=loop,
        make_prefetch=lambda positions: prefetch(config, loop.intake, positions),
        make_watch=watch,
        services=[MetricsPage(telemetry, config.telemetry), *hosts.services, *extra],
        close=loop.close,
        deadlines=Deadlines(drain_s=service(config).settings.drain_s),
    )


def service(config: Config) -> ServingService:
    """What every server is told. Errors: ConfigError."""
    return ServingService(
        model_name=config.name,
        settings=read(http.Settings, config.serve.rest, path="serve"),
        module=str(config.model.rest.get("module", "")),
        status=str(config.state_dir / "status.json"),
        samples=samples_sink(config),
    )


def samples_sink(config: Config) -> SamplesTo | None:
    """Where posted samples go: into what the daemon reads, where that can be written."""
    keys = config.source.rest
    if config.source.type == "log":
        return SamplesTo("log", {"path": str(keys["path"])})
    if config.source.type == "kafka":
        connection = {name: value for name, value in keys.items() if name in KAFKA_CONNECTION}
        return SamplesTo("kafka", connection | {"topic": keys["topics"][0]})
    return None


MAX_DEAD_LETTERS = 100_000  # in the embedded log; the oldest go first
KAFKA_CONNECTION = ("bootstrap_servers", "client", "timeout_s")


def _info(config: Config) -> Info:
    text = config.model_dump_json(exclude={"state_dir"})
    return Info(
        name=config.name,
        learner=config.learner.name,
        model=config.model.name,
        source=config.source.type,
        device=config.device,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
    )
