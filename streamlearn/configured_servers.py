"""Config → who answers, where snapshots go, and what every server is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

import connectors
from streamlearn.config import Config
from streamlearn.daemon import Service as Hosted
from streamlearn.protocols import Publisher
from streamlearn.records import Json
from streamlearn.serving.hosts import Followers, InProcess
from streamlearn.serving.requests import InThread
from streamlearn.serving.service import RequestsFrom, SamplesTo, Service
from streamlearn.serving.settings import Settings
from streamlearn.settings import read
from streamlearn.snapshot import FilePublisher, Reference, live_folder
from streamlearn.watch import Servers

KAFKA_CONNECTION = ("bootstrap_servers", "client", "timeout_s")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where snapshots go and who answers from them."""

    publisher: Publisher
    folder: Path
    services: Sequence[Hosted]
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
    told = service(config)
    host = InProcess(told, reference)
    beside = [] if told.requests is None else [InThread(told, reference, tell=folder / "follower-1.json")]

    def counts() -> Mapping[str, Json]:
        host.look()
        return host.told()

    return Hosting(reference, folder, (host, *beside), Servers(counts=counts, counts_path=folder / "follower-0.json"))


def service(config: Config) -> Service:
    """What every server is told. Errors: ConfigError."""
    return Service(
        model_name=config.name,
        settings=read(Settings, config.serve.rest, path="serve"),
        module=str(config.model.rest.get("module", "")),
        status=str(config.state_dir / "status.json"),
        samples=samples_sink(config),
        answers=_answers_sink(config),
        control=str(config.control_path),
        requests=_requests(config),
    )


def _requests(config: Config) -> RequestsFrom | None:
    """Errors: ConfigError."""
    keys = config.serve.kafka
    if keys is None:
        return None
    connection = kafka_connection(keys.rest)
    asked = keys.rest | {"topics": list(keys.requests), "start": keys.start, "on_gap": "skip"}
    positions = str((config.state_dir / "questions.json").resolve())
    made = RequestsFrom(asked, connection | {"topic": keys.replies}, positions=positions, most=keys.most)
    made.source()
    made.sink()
    return made


def _answers_sink(config: Config) -> SamplesTo | None:
    if not config.pending.record_answers:
        return None
    bounded = {"max_records": config.pending.max_answers}
    return SamplesTo("log", {"path": str(config.answers_path.resolve()), **bounded})


def samples_sink(config: Config) -> SamplesTo | None:
    """Where posted samples go: into what the daemon reads, where that can be written."""
    keys = config.source.rest
    kind = connectors.source_class(config.source.type, path="source")
    read(kind.Settings, keys, path="source")  # refuses what is misspelt or left out
    if config.source.type == "log":
        return SamplesTo("log", {"path": str(keys["path"])})
    if config.source.type == "kafka":
        return SamplesTo("kafka", kafka_connection(keys) | {"topic": keys["topics"][0]})
    return None


def kafka_connection(keys: Mapping[str, Json]) -> dict[str, Json]:
    """Of the keys of a source or sink those that say which cluster it is in, and how to reach that."""
    return {name: value for name, value in keys.items() if name in KAFKA_CONNECTION}
