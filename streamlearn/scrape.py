"""The page that Prometheus scrapes.

The learner's thread shows one `Reading` after another and observes histograms; each scrape runs in a thread of its own,
reads the newest `Reading` as a whole, and never waits for the learner.
"""

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from streamlearn.errors import ConfigError
from streamlearn.follower_files import FollowerFiles, Servers
from streamlearn.reading import NOT_YET, OTHER, Reading, Seen, Values
from streamlearn.settings import Section, key
from streamlearn.telemetry import ROWS, Row

log = structlog.get_logger()


class Info(NamedTuple):
    """What was configured, in the labels of `streamlearn_config_info`."""

    name: str = ""
    learner: str = ""
    model: str = ""
    source: str = ""
    device: str = ""
    digest: str = ""


class Listening(NamedTuple):
    """A metrics page that is up."""

    port: int
    stop: Callable[[], None]


class Telemetry(Collector):
    """The page that Prometheus scrapes. `show` and the histograms are fed by the learner's thread."""

    class Settings(Section):
        enabled: bool = key(True, "false: no metrics page")
        host: str = key("127.0.0.1", "address of the metrics page")
        port: int = key(8082, "port of the metrics page; 0 takes a free one", ge=0, le=65535)
        accuracy_floor: float | None = key(None, "an alert fires when the fading accuracy stays below; empty: none", ge=0, le=1)

    def __init__(self, info: Info, *, version: str, followers: FollowerFiles, accuracy_floor: float | None = None) -> None:
        # else a gauge that says when it began stands beside each histogram
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no annotations there
        self._info = {
            "build_info": {"version": version, "python": platform.python_version()},
            "config_info": info._asdict(),
        }
        self._followers = followers
        self._floor = NOT_YET if accuracy_floor is None else accuracy_floor
        self._reading = Reading()
        self.registry = CollectorRegistry()
        self.learn_seconds = self._histogram("learn_seconds")
        self.checkpoint_seconds = self._histogram("checkpoint_seconds")
        self.checkpoint_pause_seconds = self._histogram("checkpoint_pause_seconds")
        self.publish_seconds = self._histogram("publish_seconds")
        self.label_delay_seconds = self._histogram("label_delay_seconds")
        self.probe_seconds = self._histogram("probe_seconds")
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        row = next(row for row in ROWS if row.name == name)
        return Histogram(row.full_name, row.help, buckets=row.buckets, registry=self.registry)

    def show(self, reading: Reading) -> None:
        """From now on, scrapes tell this. Called by the loop once a second or so; costs nothing."""
        self._reading = reading

    def text(self) -> str:
        """What a scrape gets."""
        return generate_latest(self.registry).decode()

    def serve(self, host: str, port: int) -> Listening:
        """Answer scrapes until `stop`. Errors: ConfigError when the port is taken."""
        return listen(self.registry, host, port, path="telemetry.port")

    def collect(self) -> Iterable[Any]:
        """Called by the registry, in the thread of a scrape."""
        return families(ROWS, Seen(self._reading, self._followers.read(), self._floor), self._info)


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


def listen(registry: CollectorRegistry, host: str, port: int, *, path: str) -> Listening:
    """Answer scrapes in threads of their own. Errors: ConfigError, naming the key at `path`, when the port is taken."""
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"{path} {port} on {host} cannot be opened ({error.strerror}): stop what holds it, or choose another; "
            "0 takes a free one"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return Listening(server.server_port, stop)


def families(rows: Iterable[Row], seen: Seen, info: Mapping[str, Mapping[str, str]]) -> Iterable[Any]:
    """What a registry is told of `rows`; those that are observed as they happen are in it already."""
    for row in rows:
        if row.kind == "info":
            yield _info(row, info[row.name])
        elif row.name == "request_seconds":
            yield _request_seconds(row, seen.servers)
        elif row.read is not None:
            yield _family(row, row.read(seen))


def _family(row: Row, values: Values) -> Any:
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    if not isinstance(values, Mapping):
        return make(row.full_name, row.help, value=values)
    family = make(row.full_name, row.help, labels=[row.label])
    for value, number in _bounded(row, values).items():
        family.add_metric([value], number)
    return family


def _bounded(row: Row, values: Mapping[str, float]) -> Mapping[str, float]:
    """The values of one label, with those known beforehand, and at most `limit` that were not: a sum of ratios is no ratio."""
    shown: dict[str, float] = dict.fromkeys(row.values, 0.0 if row.kind == "counter" or row.unit != "ratio" else NOT_YET)
    outside = [value for value in values if value not in row.values]
    shown |= {value: float(values[value]) for value in [*row.values, *outside[: row.limit]] if value in values}
    if (rest := outside[row.limit :]) and row.sums_up:
        shown[OTHER] = shown.get(OTHER, 0.0) + sum(values[value] for value in rest)
    return shown


def _info(row: Row, labels: Mapping[str, str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(row.full_name, row.help, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _request_seconds(row: Row, servers: Servers) -> HistogramMetricFamily:
    bounds = [*(repr(bound) for bound in servers.bounds), "+Inf"]
    buckets = [(bound, sum(servers.counts[: i + 1])) for i, bound in enumerate(bounds)]
    return HistogramMetricFamily(row.full_name, row.help, buckets=buckets, sum_value=servers.seconds)
